"""Errors as Lambda wants to be told of them."""

import json
import traceback


class RuntimeFault(Exception):  # noqa: N818 - a fault, as AWS's own client calls it
    """Something that the runtime itself found wrong; ``error_type`` is its name in Lambda's logs."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


def error_type(error: BaseException) -> str:
    """Give an error's name, fit for a header."""
    name = error.error_type if isinstance(error, RuntimeFault) else type(error).__name__
    return name.encode("ascii", "replace").decode()


def error_body(error: BaseException, trace_key: str = "stackTrace") -> bytes:
    """Give an error as the JSON that Lambda shows to who invoked the function.

    Args:
        error: what happened.
        trace_key: `stackTrace` in the body of a request, `trace` in a trailer, as AWS's own clients have it.
    """
    trace = [] if isinstance(error, RuntimeFault) else traceback.format_exception(error)
    fields = {"errorType": error_type(error), "errorMessage": str(error), trace_key: trace}
    return json.dumps(fields, separators=(",", ":")).encode()
