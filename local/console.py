"""What a person sees while a command works: log lines, and one line of progress where there is a terminal."""

import sys
import threading


class Console:
    """Standard error, shared by threads; the line of progress stays below the log."""

    def __init__(self) -> None:
        """Begin with an empty line of progress."""
        self._lock = threading.Lock()
        self._progress = ""
        self._is_terminal = sys.stderr.isatty()

    def log(self, line: str) -> None:
        """Write a line above the progress."""
        with self._lock:
            self._erase()
            sys.stderr.write(line + "\n")
            self._draw()

    def progress(self, text: str) -> None:
        """Show `text` in place of the progress so far; "" clears it. Nothing where there is no terminal."""
        with self._lock:
            if text != self._progress:
                self._erase()
                self._progress = text
                self._draw()

    def _erase(self) -> None:
        if self._is_terminal and self._progress:
            sys.stderr.write("\r\x1b[K")

    def _draw(self) -> None:
        if self._is_terminal:
            sys.stderr.write(self._progress)
        sys.stderr.flush()
