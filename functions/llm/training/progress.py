"""What a person sees of a training: a bar on a terminal, plain lines elsewhere."""

import math
from types import TracebackType
from typing import Self

from functions.llm.training.journal import Entry


class Progress:
    """Reports on stderr: loss, bits per byte, tokens per second, time left, and a sample now and then."""

    def __init__(self, steps: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True, highlight=False)
        self._bar = Bar(
            TextColumn("train"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("train", total=steps, completed=done, figures="compiling")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, step: int, nats: float, tokens_per_byte: float, tokens_per_s: float) -> None:
        """Move the bar to ``step``; ``nats`` is the training loss of late."""
        bits_per_byte = nats / math.log(2) * tokens_per_byte
        figures = f"loss {nats:.3f}  {bits_per_byte:.3f} bits/byte  {tokens_per_s:,.0f} tokens/s"
        self._bar.update(self._task, completed=step, figures=figures)

    def evaluated(self, entry: Entry, steps: int, *, best: bool) -> None:
        """Report an evaluation."""
        self._console.print(
            f"step {entry.step}/{steps}  train {entry.train_nats:.4f}  validation {entry.val_nats:.4f} nats/token, "
            f"{entry.val_bits_per_byte:.4f} bits/byte  {entry.tokens / 1e6:.2f}M tokens  {entry.wall_s:.0f} s"
            + ("  best so far, saved" if best else ""),
            markup=False,
            soft_wrap=True,
        )

    def sample(self, text: str) -> None:
        """Show some text of the model's."""
        from rich.padding import Padding
        from rich.text import Text

        self._console.print(Padding(Text(text.strip(), style="dim italic"), (1, 4)))
