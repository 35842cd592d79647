"""metrics.jsonl: one line per evaluation, what was reached and what it cost."""

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from functions.llm.checkpoints.checkpoint import CheckpointError, replace_files


@dataclass(frozen=True)
class Cost:
    """What a training has used, all its sittings together.

    Args:
        cpu_s: CPU seconds of the process, all threads.
        wall_s: seconds by the clock.
        peak_memory_bytes: largest resident memory.
        tokens: tokens learned from, repetitions counted.
    """

    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_memory_bytes: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Entry:
    """One evaluation: after ``step`` updates, the mean training loss since the last one, and the validation loss."""

    step: int
    train_nats: float
    val_nats: float
    val_bits_per_byte: float
    cpu_s: float
    wall_s: float
    peak_memory_bytes: int
    tokens: int


class CostMeter:
    """Measures what this process uses, on top of what earlier sittings used."""

    def __init__(self, before: Cost) -> None:
        self._before = before
        self._cpu, self._wall = time.process_time(), time.monotonic()

    def read(self, tokens: int) -> Cost:
        """Return the cost up to now, ``tokens`` seen in all."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Cost(
            cpu_s=round(self._before.cpu_s + time.process_time() - self._cpu, 3),
            wall_s=round(self._before.wall_s + time.monotonic() - self._wall, 3),
            # macOS counts bytes, Linux kilobytes.
            peak_memory_bytes=max(self._before.peak_memory_bytes, peak if sys.platform == "darwin" else peak * 1024),
            tokens=tokens,
        )


class Journal:
    """The entries of a training, in a file that can be followed while it grows."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> list[Entry]:
        """Return the entries so far; a last line that was cut short does not count."""
        if not self._file.exists():
            return []
        lines = self._file.read_text().splitlines()
        entries = []
        for number, line in enumerate(lines, start=1):
            try:
                entries.append(Entry(**json.loads(line)))
            except (ValueError, TypeError) as error:
                if number < len(lines):
                    raise CheckpointError(f"{self._file}:{number}: not an entry ({error})") from error
        return entries

    def append(self, entry: Entry) -> None:
        """Add a line."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(entry)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keep_up_to(self, step: int) -> None:
        """Drop the entries after ``step``: a resumed training will write them again."""
        kept = [entry for entry in self.read() if entry.step <= step]
        if self._file.exists():
            lines = "".join(json.dumps(asdict(entry)) + "\n" for entry in kept)
            replace_files(self._file.parent, {self._file.name: lines.encode()})
