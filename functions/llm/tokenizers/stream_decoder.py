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
        if self.pending != pending:
            raise ValueError(f"pending is {pending[:8]!r}, expected the beginning of one UTF-8 character or nothing")

    def push(self, token_id: int) -> str:
        """The characters that this token completes; bytes that no character has come out as U+FFFD."""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """What an end of the text makes of the pending bytes: nothing or one U+FFFD. A new text may follow."""
        return self._decoder.decode(b"", final=True)

    @property
    def pending(self) -> bytes:
        """The bytes that wait for the rest of their character, at most 3."""
        return self._decoder.getstate()[0]
