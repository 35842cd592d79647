"""Tokens to text one at a time, never half a character."""

import codecs

from functions.llm.tokenizers.tokenizer import Tokenizer


class StreamDecoder:
    """Text as its tokens come: pushes and the final flush joined equal tokenizer.decode(ids).

    Bytes of a character that is not complete are held back and readable as `pending`; a decoder built with
    them continues where another one stopped, on this machine or elsewhere.
    """

    def __init__(self, tokenizer: Tokenizer, pending: bytes = b"") -> None:
        """Begin a text, or continue one whose last bytes are `pending` (ValueError if no character begins so)."""
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder.decode(pending)
        self._length = 0
        if self.pending != pending:
            raise ValueError(f"pending is {pending[:8]!r}, expected the beginning of one UTF-8 character or nothing")

    def push(self, token_id: int) -> str:
        """The characters that this token completes; bytes that no character has come out as U+FFFD."""
        text = self._decoder.decode(self._tokenizer.token_bytes(token_id))
        self._length += len(text)
        return text

    def place_of(self, token_id: int) -> int:
        """Where in the text this token would begin if it came next, in characters.

        A part of a character stands where its character does. One that is not what the pending bytes wait for stands
        behind the U+FFFD that they become.
        """
        begun = (self.pending + self._tokenizer.token_bytes(token_id)[:1]).decode("utf-8", "replace")
        return self._length + max(0, len(begun) - 1)

    def flush(self) -> str:
        """What an end of the text makes of the pending bytes: nothing or one U+FFFD. A new text may follow."""
        self._length = 0
        return self._decoder.decode(b"", final=True)

    @property
    def pending(self) -> bytes:
        """The bytes that wait for the rest of their character, at most 3."""
        return self._decoder.getstate()[0]
