"""Lambda's trace header, as W3C says the same."""

import re
import secrets

_FIELD = re.compile(r"(\w+)=([^;]*)")
_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_PARENT = re.compile(r"[0-9a-f]{16}")


def traceparent(trace_id: str) -> str | None:
    """Give W3C's `traceparent` of X-Ray's `Root=1-...-...;Parent=...;Sampled=1`; None where there is no root in it."""
    fields = {name.lower(): value.strip() for name, value in _FIELD.findall(trace_id)}
    root = _ROOT.fullmatch(fields.get("root", "").lower())
    if root is None:
        return None
    parent = fields.get("parent", "").lower()
    if not _PARENT.fullmatch(parent) or parent == 16 * "0":
        # W3C knows no trace without a parent; nobody else has this one.
        parent = secrets.token_hex(8)
    return f"00-{root[1]}{root[2]}-{parent}-{'01' if fields.get('sampled') == '1' else '00'}"
