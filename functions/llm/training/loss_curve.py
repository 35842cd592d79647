"""The loss over a training, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from functions.llm.training.journal import Entry


def write_svg(entries: Sequence[Entry], file: Path, title: str) -> None:
    """Draw training and validation loss over the tokens seen."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # A fixed salt and no date: the same numbers give the same file.
    with mpl.rc_context({"svg.hashsalt": "huginn", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        seen = [entry.tokens / 1e6 for entry in entries]
        axes.plot(seen, [entry.train_nats for entry in entries], color="#9aa5b1", label="training")
        axes.plot(seen, [entry.val_nats for entry in entries], color="#1f4e79", label="validation", linewidth=2)
        best = min(entries, key=lambda entry: entry.val_nats)
        axes.plot([best.tokens / 1e6], [best.val_nats], "o", color="#c8553d")
        axes.annotate(
            f"{best.val_nats:.4f}",
            (best.tokens / 1e6, best.val_nats),
            textcoords="offset points",
            xytext=(0, 9),
            ha="center",
        )
        axes.set(xlabel="million tokens", ylabel="nats per token", title=title)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, format="svg", metadata={"Date": None})


def terminal_plot(entries: Sequence[Entry], width: int, height: int = 16) -> str:
    """Return the same curves in characters, ``width`` columns wide."""
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(width, height)
    seen = [entry.tokens / 1e6 for entry in entries]
    plotext.plot(seen, [entry.train_nats for entry in entries], label="training", marker="dot")
    plotext.plot(seen, [entry.val_nats for entry in entries], label="validation", marker="braille")
    plotext.xlabel("million tokens")
    plotext.title("nats per token")
    return str(plotext.build())
