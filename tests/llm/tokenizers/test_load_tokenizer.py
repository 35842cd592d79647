"""tokenizer.json files, good and bad."""

from pathlib import Path

import pytest

from functions.llm.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer, TokenizerError, load_tokenizer


def test_a_file_gives_its_tokenizer(tmp_path: Path, tokenizer: Tokenizer):
    file = tmp_path / "tokenizer.json"
    file.write_text(tokenizer.to_json(), encoding="utf-8")
    loaded = load_tokenizer(file)
    assert type(loaded) is type(tokenizer)
    assert loaded.encode("Huginn, où ?") == tokenizer.encode("Huginn, où ?")


def test_a_character_file_may_leave_the_fallback_out(tmp_path: Path):
    file = tmp_path / "tokenizer.json"
    file.write_text('{"type": "char", "chars": ["b", " "]}')
    assert load_tokenizer(file) == CharTokenizer(("b", " "), " ")


def test_a_byte_file_says_no_more_than_its_type(tmp_path: Path):
    file = tmp_path / "tokenizer.json"
    file.write_text('{"type": "byte"}')
    assert load_tokenizer(file) == ByteTokenizer()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff{}", "byte 0 is not UTF-8"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "holds a JSON list, expected an object"),
        (b"{}", "type is None, expected 'byte' or 'char'"),
        (b'{"type": ["char"]}', r"type is \['char'\]"),
        (b'{"type": "char"}', "chars is missing or no list of strings"),
        (b'{"type": "char", "chars": "abc"}', "chars is missing or no list of strings"),
        (b'{"type": "char", "chars": ["a", 1]}', "chars is missing or no list of strings"),
        (b'{"type": "char", "chars": []}', "chars is empty"),
        (b'{"type": "char", "chars": ["a"], "fallback": 0}', "fallback is a int, expected one of chars"),
        (b'{"type": "char", "chars": ["a"], "fallback": "b"}', "fallback is 'b', which is not in chars"),
        (b'{"model": 3}', "the tokenizers library refuses it"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_field(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_a_missing_file_is_refused_by_name(tmp_path: Path):
    with pytest.raises(TokenizerError, match=r"absent\.json: cannot be read"):
        load_tokenizer(tmp_path / "absent.json")
