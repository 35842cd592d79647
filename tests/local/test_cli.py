"""The `huginn` command: what it offers, how it refuses, and what it does not load for that."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.cli import main
from local.readiness import why_not_ready

REPOSITORY = Path(__file__).parents[2]
COMMANDS = [
    *["up", "serve", "keys", "logs", "package", "deploy", "destroy"],
    *["train", "eval", "generate", "import", "quantize", "models", "compile", "doctor"],
]


def huginn(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "local.cli", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_the_commands_and_the_exit_codes(capsys):
    """All of them, and no other."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert re.findall(r"^    (\w+) +\w", said, re.MULTILINE) == COMMANDS
    assert "exit codes: 0 ok" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_with_an_example(command, capsys):
    """One that can be copied."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert re.search(rf"^ +(\w+=\S+ )*huginn {command}\b", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("arguments", [[], ["fly"], ["serve"], ["serve", "moon"], ["up", "--page-port", "eighty"]])
def test_wrong_use_is_exit_code_2(arguments, capsys):
    """As argparse has it."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: huginn" in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    """Who asks what there is does not wait for jax, which takes longer than everything else together."""
    program = (
        "import sys\nfrom local.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'jax', 'numpy', 'flax', 'optax', 'fastapi', 'uvicorn', 'httpx', 'matplotlib', 'tokenizers'}))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("tier", "variable", "value"),
    [
        ("llm", "MAX_QUEUE", "many"),
        ("backend", "LLM_TIMEOUT_S", "soon"),
        ("frontend", "BACKEND_URL", "nowhere"),
    ],
)
def test_serve_refuses_a_setting_in_words(tier, variable, value):
    """The variable and its value, exit code 2, no traceback."""
    result = huginn("serve", tier, **{variable: value})
    assert result.returncode == 2
    assert result.stderr.startswith(f"huginn: {variable} is {value!r}")
    assert "Traceback" not in result.stderr


def test_serve_refuses_a_taken_port_in_words(taken_port):
    """Exit code 4, with what moves it."""
    result = huginn("serve", "frontend", HUGINN_PAGE_PORT=str(taken_port))
    assert result.returncode == 4
    assert result.stderr.startswith(
        f"huginn: port {taken_port}, where page is to listen, is taken\n  move it: --page-port"
    )


def test_serve_finds_its_neighbour_where_it_is_said_to_be(free_ports):
    """LLM_URL of the environment stays, and without it the port on this machine is meant; Ctrl-C is exit code 0."""
    port = free_ports["api"]
    for environ, asked in (
        ({"HUGINN_LLM_PORT": str(free_ports["llm"])}, f"http://127.0.0.1:{free_ports['llm']}/readyz"),
        (
            {"LLM_URL": f"http://localhost:{free_ports['page']}/generate/stream"},
            f"http://localhost:{free_ports['page']}/readyz",
        ),
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "local.cli", "serve", "backend", "--api-port", str(port)],
            cwd=REPOSITORY,
            env={**{name: value for name, value in os.environ.items() if name != "LLM_URL"}, **environ},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            deadline = time.monotonic() + 60
            while (reason := why_not_ready(f"http://127.0.0.1:{port}/livez")) is not None:
                assert time.monotonic() < deadline, reason
                assert process.poll() is None
                time.sleep(0.1)
            assert why_not_ready(f"http://127.0.0.1:{port}/readyz") is not None
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=10)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0
        assert f"GET {asked}" in said
