"""`huginn generate`: the text, all of it and nothing else on standard output."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from functions.llm import cli
from functions.llm.inference import batch
from functions.llm.inference.generation import Generation, GenerationRequest, Token
from functions.llm.inference.sampling import SamplingOptions

REPOSITORY = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "functions.llm.cli", "generate"]


@pytest.fixture
def generate(capsys, checkpoints_folder):
    """Runs the command in this process: exit code, standard output, standard error."""

    def run(*args, ckpt="tiny-char"):
        code = cli.main(["generate", "--ckpt", str(checkpoints_folder / ckpt), *args])
        return (code, *capsys.readouterr())

    return run


def text_of(model, prompt, tokens, seed=4, **options):
    """What the library says."""
    asked = GenerationRequest(prompt, tokens, SamplingOptions(**options), seed)
    events = [event for events in batch.generate(Generation(model, asked)) for event in events]
    return "".join(event.text for event in events if isinstance(event, Token))


@pytest.mark.parametrize("chars", [1, 7, 50])
def test_as_many_characters_as_asked_for(generate, char_model, chars):
    """Of a character model they are its tokens."""
    code, out, err = generate("--seed", "the raven", "--chars", str(chars), "--random-seed", "4")
    assert (code, out, err) == (0, text_of(char_model, "the raven", chars), "")


@pytest.mark.parametrize("chars", [1, 2, 30])
def test_characters_are_counted_and_not_bytes(generate, byte_model, chars):
    """A byte model that speaks anything is asked until there are as many characters."""
    code, out, _ = generate(
        "--prompt", "é", "--chars", str(chars), "--random-seed", "4", "--temp", "3", ckpt="tiny-byte"
    )
    assert code == 0
    assert len(out) == chars
    assert text_of(byte_model, "é", 4 * chars, temperature=3).startswith(out)


def test_the_predecessors_flags_and_the_new_ones_reach_the_sampler(generate, char_model):
    """Each changes what is drawn as it does in the library."""
    given = {
        "--temp": 1.2, "--top-k": 9, "--top-p": 0.9, "--min-p": 0.01, "--repetition-penalty": 1.3,
        "--presence-penalty": 0.5, "--frequency-penalty": 0.4, "--penalty-decay": 0.9,
    }  # fmt: skip
    flags = [str(part) for pair in given.items() for part in pair]
    _, out, _ = generate("--seed", "a", "--chars", "60", "--random-seed", "4", *flags)
    options = {name.strip("-").replace("-", "_"): value for name, value in given.items()}
    options["temperature"] = options.pop("temp")
    assert out == text_of(char_model, "a", 60, **options)


def test_json_reports_usage_and_timing(generate, char_model):
    """One object, and no other output."""
    code, out, err = generate("--seed", "the raven", "--chars", "20", "--random-seed", "4", "--json")
    report = json.loads(out)
    assert (code, err, report["text"]) == (0, "", text_of(char_model, "the raven", 20))
    assert report["usage"] == {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29}
    assert (report["model"], report["seed"], report["finish_reason"]) == ("tiny-char", 4, "length")
    assert 0 < report["first_token_s"] <= report["seconds"]
    assert report["tokens_per_s"] > 0


def test_a_stop_string_ends_the_text(generate):
    """Any of those that are given."""
    _, whole, _ = generate("--seed", "a", "--chars", "200", "--random-seed", "4")
    _, out, _ = generate("--seed", "a", "--chars", "200", "--random-seed", "4", "--stop", whole[50], "--stop", "zzzz")
    assert out == whole[: whole.index(whole[50])]
    _, out, _ = generate("--seed", "a", "--chars", "200", "--random-seed", "4", "--stop", whole[50], "--json")
    assert json.loads(out)["finish_reason"] == "stop"


def test_echo_prints_the_prompt_first(generate):
    """Without it the output is the continuation alone."""
    _, plain, _ = generate("--seed", "the raven", "--chars", "9", "--random-seed", "4")
    _, echoed, _ = generate("--seed", "the raven", "--chars", "9", "--random-seed", "4", "--echo")
    assert echoed == "the raven" + plain


def test_without_a_seed_every_text_is_another(generate):
    """And the JSON says which seed it was."""
    reports = [json.loads(generate("--seed", "a", "--chars", "40", "--json")[1]) for _ in range(2)]
    assert reports[0]["text"] != reports[1]["text"]
    _, again, _ = generate("--seed", "a", "--chars", "40", "--random-seed", str(reports[0]["seed"]))
    assert again == reports[0]["text"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--seed", ""], 3, "prompt is empty"),
        (["--seed", "a", "--chars", "0"], 2, "--chars is 0"),
        (["--seed", "a", "--temp", "11"], 2, "temperature is 11.0"),
        (["--seed", "a", "--temp", "nan"], 2, "temperature is nan"),
        (["--seed", "a", "--top-p", "-1"], 2, "top_p is -1.0"),
        (["--seed", "a", "--random-seed", "-1"], 2, "seed is -1"),
        (["--seed", "a", "--stop", ""], 2, "stop has an empty string"),
    ],
)
def test_wrong_options_are_told_in_words(generate, args, code, message):
    """One line, no traceback, no output."""
    found, out, err = generate(*args)
    assert (found, out) == (code, "")
    assert err.startswith(f"huginn: {message}")
    assert "Traceback" not in err


def test_a_missing_checkpoint_is_told_with_the_command_that_helps(generate):
    """It says what is not there, and how to see what is."""
    code, out, err = generate("--seed", "a", ckpt="ghost")
    assert (code, out) == (3, "")
    assert "ghost: no such folder" in err
    assert "huginn models" in err


def environment(checkpoints_folder, **more):
    return {"PATH": "/usr/bin:/bin", "CKPT_PATH": str(checkpoints_folder / "tiny-char"), "LANG": "C.UTF-8", **more}


def test_the_module_runs_by_itself_with_the_checkpoint_of_the_environment(checkpoints_folder, char_model):
    """As in a container that has only this function."""
    run = subprocess.run(
        [*COMMAND, "--seed", "the raven é", "--chars", "30", "--random-seed", "4"],
        capture_output=True, check=True, cwd=REPOSITORY, env=environment(checkpoints_folder),
    )  # fmt: skip
    assert run.stdout.decode() == text_of(char_model, "the raven é", 30)
    assert run.stderr == b""


def test_it_streams_to_a_terminal_and_ctrl_c_ends_it_cleanly(checkpoints_folder):
    """Text is there long before the end; Ctrl-C gives 130 and no traceback."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--seed", "a", "--chars", "100000000"],
        stdout=terminal, stderr=subprocess.PIPE, cwd=REPOSITORY, env=environment(checkpoints_folder),
    )  # fmt: skip
    os.close(terminal)
    try:
        arrived = os.read(master, 1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        while process.poll() is None:
            # A terminal that nobody reads would hold the process up.
            try:
                os.read(master, 65536)
            except OSError:
                break
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(master)
    assert arrived
    assert process.returncode == 130
    assert b"Traceback" not in err


def test_a_reader_that_goes_away_is_no_error(checkpoints_folder):
    """As in `huginn generate | head -c 10`."""
    process = subprocess.Popen(
        [*COMMAND, "--seed", "a", "--chars", "100000000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY, env=environment(checkpoints_folder),
    )  # fmt: skip
    try:
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def test_it_needs_nothing_of_http(checkpoints_folder):
    """The command works where no server is installed."""
    script = (
        "import sys\n"
        "from functions.llm.cli import main\n"
        "code = main(['generate', '--seed', 'a', '--chars', '5'])\n"
        "served = {'fastapi', 'starlette', 'pydantic', 'uvicorn', 'mangum', 'prometheus_client'} & sys.modules.keys()\n"
        "sys.exit(code or ' '.join(served) or 0)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=False, cwd=REPOSITORY, env=environment(checkpoints_folder),
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
