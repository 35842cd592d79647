"""A token as OpenAI's log-probabilities name it."""

from collections.abc import Sequence

from functions.backend.domain.events import Alternative, Logprobs, Token


def token_bytes(text: str, raw: bytes | None) -> bytes:
    """Give what a token is made of."""
    return text.encode() if raw is None else raw


def token_string(text: str, raw: bytes | None) -> str:
    """Give a token's own text; one that is a part of a character is named by its bytes, as OpenAI names it.

    So two tokens never have the same name because neither of them is text: names are the keys of `top_logprobs`.
    """
    if raw is None:
        return text
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def alternatives_of(token: Token, logprobs: Logprobs) -> Sequence[Alternative]:
    """Give the likeliest tokens and the chosen one, which stands at the end where it is not among them."""
    if logprobs.token is None or any(other.id == token.id for other in logprobs.top):
        return logprobs.top
    return (*logprobs.top, Alternative(token.id, token.text, logprobs.token, logprobs.raw))
