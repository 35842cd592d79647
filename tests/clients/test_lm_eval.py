"""lm-evaluation-harness scores a model over this API as the model scores itself; the tokenizer that it asks is ours."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import pytest
import yaml

from functions.llm.checkpoints.checkpoint import save_checkpoint
from functions.llm.models import MinGRU, MinGRUConfig
from functions.llm.tokenizers import ByteTokenizer, train_bpe
from local.cli import main
from tests.clients.conftest import API, CHECKPOINT, HERE, expect_ready
from tests.clients.environments import python_of
from tests.local.huginn_up import Up, unused_ports

# A model of plays does not foresee a line that begins so: whether the first letter is scored makes a difference.
SPEECH = """\
,
We are accounted poor citizens, the patricians good.
What authority surfeits on would relieve us: if they
would yield us but the superfluity, while it were
wholesome, we might guess they relieved us humanely;
but they think we are too dear: the leanness that
afflicts us, the object of our misery, is as an
inventory to particularise their abundance; our
sufferance is a gain to them. Let us revenge this with
our pikes, ere we become rakes: for the gods know I
speak this in hunger for bread, not in thirst for revenge.
"""
QUESTIONS = [
    {"question": "O, she doth teach the torches to burn", "choices": ["bright", "qxzjk"], "label": 0},
    {"question": "Good", "choices": ["zzkqx", "morrow"], "label": 1},
    {"question": "My noble", "choices": ["kkkk", "qqqq", "lord"], "label": 2},
    # What the label says here, no model of English would.
    {"question": "thou art", "choices": ["not", "xjxj"], "label": 1},
]
# A template would strip a line end from the end.
PROMPTS = ["ROMEO:\nO", "JULIET:\nMy", "Now is the winter of our"]
# 0 in the bundled model's vocabulary, which has no mark for a beginning.
NEWLINE = 0
WINDOW = 64

Evaluate = Callable[..., Any]


@pytest.fixture
def evaluate(client, api, tmp_path) -> Evaluate:
    """Evaluates tasks over local documents: `evaluate({"name": (documents, {...})}, "max_length=66", of=api)`."""
    expect_ready("lm-eval")

    def run(tasks: dict[str, tuple[Sequence[dict[str, Any]], dict[str, Any]]], *arguments: str, of: API = api) -> Any:
        folder = tmp_path / "tasks"
        folder.mkdir()
        for name, (documents, task) in tasks.items():
            data = folder / f"{name}.jsonl"
            data.write_text("".join(json.dumps(document) + "\n" for document in documents), "utf-8")
            local = {
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(data)}},
                "test_split": "test",
            }
            (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **local, **task}), "utf-8")
        program: list[str | Path] = [python_of("lm-eval"), HERE / "programs" / "lm_eval_tasks.py"]
        printed = client([*program, of.url, of.model, folder, *arguments], HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
        return json.loads(printed.splitlines()[-1])

    return run


def rolling(text: str) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """A task that asks how well a text is foreseen."""
    return [{"text": text}], {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
    }


def huginn_eval(file: Path, capsys, *flags: str, checkpoint: Path = CHECKPOINT) -> Any:
    """What `huginn eval` prints of a text."""
    assert main(["eval", "--ckpt", str(checkpoint), *flags, str(file)]) == 0
    return json.loads(capsys.readouterr().out)


def expect_equal(found: dict[str, float], ours: dict[str, float]) -> None:
    """A character of this text is a byte and a token, so that a byte's perplexity is a token's."""
    assert found["byte_perplexity,none"] == pytest.approx(ours["perplexity"], abs=1e-3)
    assert found["bits_per_byte,none"] == pytest.approx(ours["bits_per_byte"], abs=1e-3)


def test_tasks_of_our_own(evaluate, api, tmp_path, capsys):
    """A choice, a perplexity and a generation: what they find is what the model says when it is asked itself."""
    lines = [api.generate(each, max_tokens=60)["text"].partition("\n")[0] for each in PROMPTS]
    found = evaluate(
        {
            "choice": (
                QUESTIONS,
                {
                    "output_type": "multiple_choice",
                    "doc_to_text": "{{question}}",
                    "doc_to_choice": "{{choices}}",
                    "doc_to_target": "label",
                    "metric_list": [{"metric": "acc"}],
                },
            ),
            "perplexity": rolling(SPEECH),
            "generation": (
                [{"prompt": prompt, "line": line} for prompt, line in zip(PROMPTS, lines, strict=True)],
                {
                    "output_type": "generate_until",
                    "doc_to_text": "{{prompt}}",
                    "doc_to_target": "{{line}}",
                    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 60, "temperature": 0},
                    "metric_list": [{"metric": "exact_match"}],
                },
            ),
        },
        f"custom_prefix_token_id={NEWLINE}",
    )
    results, samples = found["results"], found["samples"]

    (tmp_path / "speech.txt").write_text(SPEECH, "utf-8")
    expect_equal(results["perplexity"], huginn_eval(tmp_path / "speech.txt", capsys, "--prefix", str(NEWLINE)))

    assert results["choice"]["acc,none"] == 0.75
    for sample in samples["choice"]:
        question = sample["doc"]["question"]
        for choice, ((logprob, _greedy),) in zip(sample["doc"]["choices"], sample["resps"], strict=True):
            assert float(logprob) == pytest.approx(log_likelihood(api, question, f" {choice}"), abs=1e-4)

    assert results["generation"]["exact_match,none"] == 1
    assert [sample["resps"][0][0] for sample in samples["generation"]] == lines


def log_likelihood(api, question: str, choice: str) -> float:
    """How likely a text goes on in this way, by our own API."""
    answer = api.generate(question + choice, max_tokens=1, logprobs=1, echo=True)
    return math.fsum(token["logprob"] for token in answer["tokens"][len(question) : -1])


def test_windows_are_those_of_huginn_eval(evaluate, tmp_path, capsys):
    """Of a text of any length, with max_length two above --window: room for a context and an answer of one token."""
    lengths = (WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW - 1, 2 * WINDOW, 6 * WINDOW + 9)
    found = evaluate(
        {str(length): rolling(SPEECH[:length]) for length in lengths},
        f"custom_prefix_token_id={NEWLINE}",
        f"max_length={WINDOW + 2}",
        "num_concurrent=3",
    )
    file, prefix = tmp_path / "speech.txt", ("--prefix", str(NEWLINE))
    for length in lengths:
        file.write_text(SPEECH[:length], "utf-8")
        ours = huginn_eval(file, capsys, *prefix, "--window", str(WINDOW))
        expect_equal(found["results"][str(length)], ours)
    # Not by chance: what is read in one go is foreseen better.
    assert huginn_eval(file, capsys, *prefix)["perplexity"] < ours["perplexity"] - 0.01


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Iterator[tuple[API, Path]]:
    """The root of a model whose tokens are pieces of words, beside a default one of bytes; and its checkpoint."""
    folder = tmp_path_factory.mktemp("models")
    tokenizers = {"bytes": ByteTokenizer(), "pieces": train_bpe([SPEECH], 320)}
    for name, tokenizer in tokenizers.items():
        config = MinGRUConfig(vocab_size=tokenizer.vocab_size, width=16, hidden=16, layers=1, dropout=0.0)
        tiny = MinGRU(config, MinGRU.init_params(config, jax.random.key(0)))
        save_checkpoint(folder / name, tiny, tokenizer, "# tiny\n")
    up = Up(folder / "bytes", unused_ports())
    try:
        up.wait_until_ready()
        yield API(f"http://127.0.0.1:{up.ports['api']}/models/pieces", "pieces"), folder / "pieces"
    finally:
        up.close()


def test_another_model_than_the_default_one(evaluate, pieces, tmp_path, capsys):
    """Under its root, for lm-eval does not say of which model it wants tokens."""
    root, checkpoint = pieces
    found = evaluate({"perplexity": rolling(SPEECH)}, "custom_prefix_token_id=0", f"max_length={WINDOW + 2}", of=root)[
        "results"
    ]["perplexity"]
    (tmp_path / "speech.txt").write_text(SPEECH, "utf-8")
    flags = ("--prefix", "0", "--window", str(WINDOW))
    ours = huginn_eval(tmp_path / "speech.txt", capsys, *flags, checkpoint=checkpoint)
    assert ours["tokens"] < 0.8 * len(SPEECH)
    assert found["bits_per_byte,none"] == pytest.approx(ours["bits_per_byte"], abs=1e-3)
