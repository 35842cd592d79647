"""The page's form: which controls it has, and the request that a filled one stands for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

from functions.frontend.errors import ErrorBody, RefusedError

FORM_TYPE = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Control:
    """One number of the request. An empty one is not sent, and means what the model's service takes by itself.

    Bounds are as the API has them, for the browser to check early; the API alone decides.

    Args:
        slider: lowest, highest and step of the useful part, where a slider makes sense.
    """

    name: str
    kind: Literal["integer", "number"]
    default: str
    minimum: str
    maximum: str
    step: str
    slider: tuple[str, str, str] | None = None


@dataclass(frozen=True)
class Group:
    """Controls that belong together; its title is in the strings under its name."""

    name: str
    controls: tuple[Control, ...]


GROUPS = (
    Group(
        "draw",
        (
            Control("temperature", "number", "0.8", "0", "10", "0.01", ("0", "2", "0.05")),
            Control("top_p", "number", "1", "0.01", "1", "0.01", ("0.05", "1", "0.05")),
            Control("min_p", "number", "0", "0", "1", "0.01", ("0", "0.5", "0.01")),
            Control("top_k", "integer", "0", "0", "1000000", "1", ("0", "100", "1")),
        ),
    ),
    Group(
        "penalties",
        (
            Control("repetition_penalty", "number", "1", "0.01", "10", "0.01", ("0.5", "2", "0.05")),
            Control("presence_penalty", "number", "0", "-2", "2", "0.01", ("-2", "2", "0.1")),
            Control("frequency_penalty", "number", "0", "-2", "2", "0.01", ("-2", "2", "0.1")),
            Control("penalty_decay", "number", "1", "0", "1", "0.001", ("0.9", "1", "0.005")),
        ),
    ),
)
MAX_TOKENS = Control("max_tokens", "integer", "256", "1", "4096", "1", ("16", "1024", "16"))
# A text field in the page: a seed has up to 19 digits, and a browser's numbers end at 16.
SEED = Control("seed", "integer", "", "0", str(2**63 - 1), "1")

CONTROLS = (*(control for group in GROUPS for control in group.controls), MAX_TOKENS, SEED)
# Python's own conversions also take underscores, "nan" and other scripts' digits, which JSON has not.
_NUMBER = {
    "integer": re.compile(r"-?[0-9]{1,20}"),
    "number": re.compile(r"-?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})([eE][+-]?[0-9]{1,2})?"),
}

NAMES = frozenset({"prompt", "stop", "model", *(control.name for control in CONTROLS)})
DEFAULTS: Mapping[str, str] = dict.fromkeys(NAMES, "") | {control.name: control.default for control in CONTROLS}


def refuse_other_sites(sec_fetch_site: str) -> None:
    """Let pass what the reader has sent: a form, unlike JSON, is what any site's page may post here unasked.

    Raises:
        RefusedError: the browser says that another site's page has sent it.
    """
    if sec_fetch_site not in {"same-origin", "none"}:
        message = (
            f"The form came from a page of another site ({sec_fetch_site[:64]}). Open this page, and send it here."
        )
        raise RefusedError(403, ErrorBody("foreign_form", message))


def parse_form(body: bytes, content_type: str) -> dict[str, str]:
    """The form's fields as they were typed.

    Raises:
        RefusedError: it is no form of this page.
    """
    if content_type.split(";", maxsplit=1)[0].strip().lower() != FORM_TYPE:
        message = f"The form came as {content_type[:80] or 'nothing named'}; expected {FORM_TYPE}."
        raise RefusedError(415, ErrorBody("unsupported_media_type", message))
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=len(NAMES))
    except ValueError as error:
        raise RefusedError(400, ErrorBody("invalid_form", f"The form cannot be read: {error}.")) from None
    fields = dict(pairs)
    for name in fields:
        if name not in NAMES:
            message = f"The form has a field {name[:64]!r}, which the page does not have."
            raise RefusedError(400, ErrorBody("invalid_form", message, field=name[:64]))
    # A browser sends line ends as CRLF, whatever was typed; the model has learnt from LF.
    return {name: value.replace("\r\n", "\n") for name, value in fields.items()}


def request_from_form(fields: Mapping[str, str]) -> dict[str, Any]:
    """The API's request that these fields stand for.

    Raises:
        RefusedError: a number cannot be read as one. Whether it is in range is the API's to say.
    """
    request: dict[str, Any] = {"prompt": fields.get("prompt", "")}
    for control in CONTROLS:
        text = fields.get(control.name, "").strip()
        if text:
            request[control.name] = _read_number(control, text)
    if stop := parse_stop(fields.get("stop", "")):
        request["stop"] = stop
    if model := fields.get("model", ""):
        request["model"] = model
    return request


def parse_stop(text: str) -> list[str]:
    r"""One stop string per line that is not empty; in it `\n`, `\t` and `\\` mean line end, tab and backslash."""
    meaning = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}
    return [re.sub(r"\\[nt\\]", lambda found: meaning[found[0]], line) for line in text.split("\n") if line]


def _read_number(control: Control, text: str) -> int | float:
    if not _NUMBER[control.kind].fullmatch(text):
        kind = "a whole number" if control.kind == "integer" else "a number"
        message = f"{control.name} is {text[:64]!r}; expected {kind} from {control.minimum} to {control.maximum}."
        raise RefusedError(422, ErrorBody("invalid_request", message, field=control.name))
    return int(text) if control.kind == "integer" else float(text)
