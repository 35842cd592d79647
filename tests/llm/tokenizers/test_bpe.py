"""Byte-level BPE: training, and what it makes."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from functions.llm.tokenizers import BPETokenizer, TokenizerError, train_bpe
from functions.llm.tokenizers import bpe as module

CHORUS = "Nevermore, quoth the raven; nevermore. Jamais plus, dit le corbeau\u202f! 🐦‍⬛\n" * 4


def test_special_tokens_have_the_first_ids(bpe: BPETokenizer):
    """And are one token each wherever they are spelled."""
    assert dict(bpe.special_tokens) == {"<|prompt|>": 0, "<|endprompt|>": 1, "<|answer|>": 2, "<|endanswer|>": 3}
    assert bpe.eos_id == 3
    assert bpe.encode("<|answer|><|endanswer|>") == [2, 3]
    assert bpe.token_bytes(2) == b"<|answer|>"


def test_training_compresses(bpe: BPETokenizer):
    """The pairs it learnt are used: fewer tokens than characters, on the text of the training and on a like one."""
    assert bpe.vocab_size == 320
    text = "Le corbeau et l’enfant"
    assert len(bpe.encode(text)) < len(text)


def test_the_same_text_gives_the_same_file():
    """In other processes too, whose hashes are seeded differently."""
    code = f"from functions.llm.tokenizers import train_bpe; print(ascii(train_bpe([{CHORUS!r}], 290).to_json()))"
    runs = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout for _ in range(2)]
    assert runs[0].decode().strip() == runs[1].decode().strip() == ascii(train_bpe([CHORUS], 290).to_json())


def test_special_tokens_in_the_training_text_are_not_learnt_as_merges():
    """A text full of them gives the vocabulary of the text without them."""
    marked = "".join(f"<|prompt|>{line}<|endprompt|>" for line in CHORUS.splitlines(keepends=True))
    assert train_bpe([marked], 300).to_json() == train_bpe(CHORUS.splitlines(keepends=True), 300).to_json()


def test_a_long_text_is_learnt_as_its_parts(monkeypatch: pytest.MonkeyPatch):
    """Cutting the training text into pieces changes nothing."""
    whole = train_bpe([CHORUS], 300).to_json()
    monkeypatch.setattr(module, "PIECE_CHARS", 7)
    assert train_bpe([CHORUS], 300).to_json() == whole


def test_a_vocabulary_too_small_for_the_bytes_is_refused():
    with pytest.raises(TokenizerError, match="vocab_size is 259, a byte-level BPE needs at least 260"):
        train_bpe([CHORUS], 259)


def test_a_lone_surrogate_in_the_training_text_is_refused():
    with pytest.raises(TokenizerError, match="U\\+DC00, character 1"):
        train_bpe(["a\udc00"], 300)


def test_a_text_of_nothing_gives_the_bytes():
    assert train_bpe([], 300).vocab_size == 260


def without_a_byte(file: dict[str, Any]) -> None:
    file["model"]["merges"] = []
    file["model"]["vocab"] = {t: i for t, i in file["model"]["vocab"].items() if i < 260 and t != "Ċ"}


def with_a_gap(file: dict[str, Any]) -> None:
    file["model"]["vocab"]["zz"] = 5000


def with_a_foreign_token(file: dict[str, Any]) -> None:
    file["model"]["vocab"]["日"] = len(file["model"]["vocab"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file["model"].update(type="Unigram", vocab=[["a", 0.0]]), "model.type is 'Unigram'"),
        (lambda file: file["model"].update(dropout=0.5), "model.dropout is 0.5"),
        (lambda file: file.update(pre_tokenizer=None), "pre_tokenizer is .*expected 'ByteLevel'"),
        (lambda file: file.update(pre_tokenizer={"type": "Whitespace"}), r"pre_tokenizer is \['Whitespace'\]"),
        (lambda file: file.update(model={"type": "BPE"}), "the tokenizers library refuses it"),
        (without_a_byte, "model.vocab lacks 1 of the 256 byte tokens, 'Ċ'"),
        (with_a_gap, "model.vocab has 321 tokens, expected ids 0 to 320"),
        (with_a_foreign_token, r"model.vocab\['日'\] is not written in the byte-level alphabet"),
    ],
)
def test_a_file_that_is_no_byte_level_bpe_is_refused_by_field(
    bpe: BPETokenizer, spoil: Callable[[dict[str, Any]], None], message: str
):
    file = json.loads(bpe.to_json())
    spoil(file)
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer.from_json(json.dumps(file))


def test_truncation_and_padding_of_a_file_are_not_ours(bpe: BPETokenizer):
    """A file saved with them (a batch's habit) still encodes the whole text and no more."""
    file = json.loads(bpe.to_json())
    file["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    file["padding"] = {
        "strategy": {"Fixed": 512},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|prompt|>",
    }
    assert BPETokenizer.from_json(json.dumps(file)).encode(CHORUS) == bpe.encode(CHORUS)


def test_other_tokenizers_start_without_the_library():
    """What a cold start with bytes or characters does not need is not imported."""
    code = "import sys, functions.llm.tokenizers; sys.exit('tokenizers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
