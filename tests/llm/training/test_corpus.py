"""Texts from files, and files that are none."""

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from functions.llm.training.corpus import CorpusError, read_corpora, read_text

TEXT = "Où sont les neiges d'antan ?\nNevermore.\n"


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_text_reads_the_same_however_it_is_packed(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    plain, lines = tmp_path / f"a.txt{suffix}", tmp_path / f"a.jsonl{suffix}"
    plain.write_bytes(pack(TEXT.encode()))
    # A line separator that JSON allows in a string does not end the record.
    records = [{"text": TEXT, "title": "x"}, {"text": "b\u2028c"}]
    lines.write_bytes(pack("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()))
    assert read_text(plain) == TEXT
    assert read_text(lines) == f"{TEXT}\n\nb\u2028c"


def test_the_novels_are_read(shared_dir: Path) -> None:
    text = read_text(shared_dir / "data" / "novels-fr.jsonl.xz")
    assert len(text) > 40_000_000
    assert "chandelier" in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "No such file"),
        ("empty.txt", b"", "no text in it"),
        ("latin.txt", b"caf\xe9", "byte 3 is not UTF-8"),
        ("cut.xz", lzma.compress(b"a" * 1000)[:-20], "not a whole .xz file"),
        ("cut.gz", gzip.compress(b"a" * 1000, mtime=0)[:-20], "not a whole .gz file"),
        ("not.gz", b"plain text", "not a whole .gz file|Not a gzipped file"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": \n', r"bad\.jsonl:2: not JSON"),
        ("deep.jsonl", b"[" * 200_000, r"deep\.jsonl:1: not JSON"),
        ("field.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', r'field\.jsonl:2: no string in the field "text"'),
        ("type.jsonl", b'{"text": 3}\n', r'type\.jsonl:1: no string in the field "text"'),
    ],
)
def test_a_file_that_is_no_corpus_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        read_text(tmp_path / name)


def test_corpora_count_by_length_or_by_weight(tmp_path: Path) -> None:
    for name, text in {"a": "x" * 300, "b": "y" * 100}.items():
        (tmp_path / name).write_text(text)
    paths = [tmp_path / "a", tmp_path / "b"]
    assert [c.weight for c in read_corpora(paths)] == [0.75, 0.25]
    assert [c.weight for c in read_corpora(paths, [1, 4])] == [0.2, 0.8]
    with pytest.raises(CorpusError, match="--weights has 1 numbers for 2 files"):
        read_corpora(paths, [1])
    with pytest.raises(CorpusError, match="must be above 0"):
        read_corpora(paths, [1, 0])


def test_the_split_is_the_texts_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("0123456789" * 10)
    train, validation = read_corpora([tmp_path / "a"])[0].split(0.1)
    assert (len(train), validation) == (90, "0123456789")
