"""Texts from files: plain or JSON lines, as they are or compressed."""

import gzip
import hashlib
import json
import lzma
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BETWEEN_DOCUMENTS = "\n\n"
"""What stands between two records of a JSON-lines file."""


class CorpusError(ValueError):
    """A corpus cannot be read; the message names the file and, where there is one, the line."""


@dataclass(frozen=True)
class Corpus:
    """A text to train on.

    Args:
        name: the file's name.
        text: all of it.
        weight: how often a training row comes from it, relative to the other corpora.
        digest: SHA-256 of the text in UTF-8, hexadecimal.
    """

    name: str
    text: str
    weight: float
    digest: str

    def split(self, validation: float) -> tuple[str, str]:
        """Return the first part, to train on, and the last ``validation`` share of the characters."""
        cut = int(len(self.text) * (1 - validation))
        return self.text[:cut], self.text[cut:]


def read_corpora(paths: Sequence[Path], weights: Sequence[float] | None = None) -> list[Corpus]:
    """Return the corpora in ``paths``; without weights each counts by its length."""
    if weights is not None and len(weights) != len(paths):
        raise CorpusError(f"--weights has {len(weights)} numbers for {len(paths)} files; give one for each")
    if weights is not None and not all(0 < weight < float("inf") for weight in weights):
        raise CorpusError(f"--weights is {list(weights)}; each must be above 0")
    texts = [read_text(path) for path in paths]
    shares = weights or [len(text) for text in texts]
    return [
        Corpus(path.name, text, share / sum(shares), hashlib.sha256(text.encode()).hexdigest())
        for path, text, share in zip(paths, texts, shares, strict=True)
    ]


def read_text(path: Path) -> str:
    """Return the text of a file: JSON lines by the name .jsonl, plain text by any other; also .gz or .xz of both."""
    try:
        raw = path.read_bytes()
        match path.suffix:
            case ".gz":
                raw = gzip.decompress(raw)
            case ".xz":
                raw = lzma.decompress(raw)
    except OSError as error:  # gzip's own errors are OSErrors without a strerror
        raise CorpusError(f"{path}: {error.strerror or error}") from error
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise CorpusError(f"{path}: not a whole {path.suffix} file ({error})") from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: byte {error.start} is not UTF-8; convert it first (iconv -t utf-8)") from error
    inner = path.with_suffix("") if path.suffix in (".gz", ".xz") else path
    if inner.suffix in (".jsonl", ".ndjson"):
        text = BETWEEN_DOCUMENTS.join(_documents(path, text))
    if not text:
        raise CorpusError(f"{path}: no text in it")
    return text


def _documents(path: Path, lines: str) -> list[str]:
    documents = []
    # Not splitlines(): it also cuts at characters that JSON strings may hold unescaped, such as U+2028.
    for number, line in enumerate(lines.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{path}:{number}: not JSON ({error})") from error
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise CorpusError(f'{path}:{number}: no string in the field "text"')
        documents.append(text)
    return documents
