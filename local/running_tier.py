"""A tier as a process of its own: its log, its end, and the certainty that it does not outlive us."""

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from local.logs.log_line import LogLine

KEPT_LOG_LINES = 20


class RunningTier:
    """The process, started on construction; every line it prints goes to `on_line`."""

    def __init__(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], on_line: Callable[[LogLine], None]
    ) -> None:
        """Start it in a group of its own, where the terminal's Ctrl-C does not reach it: we stop it, in our order.

        Its standard input is a pipe whose other end only we hold. When we die, however we die, the kernel closes that
        end, and `huginn serve --end-with-parent` takes it for its own end.
        """
        self.name = name
        self.last_lines: deque[str] = deque(maxlen=KEPT_LOG_LINES)
        self._on_line = on_line
        self._process = subprocess.Popen(  # noqa: S603  the command is our own
            command,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_lines, daemon=True, name=f"log of {name}")
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Give the exit code once it has ended; below zero it is the signal that ended it."""
        return self._process.wait()

    def how_it_ended(self) -> str:
        """Give the process's end in words, with the last of its log."""
        code = self.wait()
        self._reader.join(timeout=1)  # the last lines may still be in the pipe
        ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        log = "".join(f"\n    {line}" for line in self.last_lines)
        return f"{ended}; the last it said:{log}" if log else f"{ended}, and said nothing"

    def ask_to_stop(self) -> None:
        """Let it end its answers and go."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it now, with whatever it has started."""
        self._send(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        self._process.wait()

    def close(self) -> None:
        """Let go of the pipes of a process that has ended."""
        self._reader.join(timeout=1)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _send(self, number: signal.Signals) -> None:
        if not self.is_alive:
            return
        if os.name == "posix":
            os.killpg(self._process.pid, number)
        else:
            self._process.terminate()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line = LogLine.parse(text.rstrip(), self.name, datetime.now(UTC))
            self.last_lines += line.text(whole=True).split("\n")
            # A pipe that nobody empties would stop the tier, whatever becomes of its lines.
            try:
                self._on_line(line)
            except Exception as error:  # noqa: BLE001
                self.last_lines.append(f"(not passed on: {error!r})")
