"""The log: a JSON object a line on standard output for machines, or plain lines on standard error for a terminal."""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NoReturn

from functions.backend.telemetry.current import current_request
from functions.backend.telemetry.cut_off import CutOffError

FORMATS = ("json", "text")
LEVELS = ("debug", "info", "warning", "error")

# Uvicorn gives them handlers of its own before it imports the app.
_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class JsonFormatter(logging.Formatter):
    """Gives a record as one JSON object, with the ids of the request that it belongs to.

    Its keys: time, level, tier; message and logger, or what `extra={"fields": ...}` has, such as an event; request_id,
    trace_id, span_id; exception, a traceback.
    """

    def __init__(self, tier: str) -> None:
        super().__init__()
        self._tier = tier

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        line: dict[str, Any] = {"time": f"{time}Z", "level": record.levelname.lower(), "tier": self._tier}
        fields = getattr(record, "fields", None)
        line |= fields or {"message": record.getMessage(), "logger": record.name}
        if (request := current_request()) is not None:
            line |= {"request_id": request.id, "trace_id": request.trace.trace_id, "span_id": request.trace.span_id}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=str)


class TextFormatter(logging.Formatter):
    """Gives a record as a line for people, with nothing that a terminal would obey: a path is anybody's."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as logging calls it
        """Give a message, or fields as NAME=VALUE after the request's name."""
        fields = getattr(record, "fields", None)
        if not fields:
            return _harmless(super().formatMessage(record))
        request = current_request()
        told = {"request_id": request.id, **fields} if request else fields
        return _harmless(" ".join([record.levelname, *(f"{name}={value}" for name, value in told.items())]))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as logging calls it
        """Give a traceback, each line of it with something before it: no line of the log begins like that."""
        return "\n".join(f"    {_harmless(line)}" for line in super().formatException(ei).split("\n"))


def _harmless(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def configure_logging(tier: str, form: str, level: str) -> None:
    """Make this process's log what the settings say; what others log is told from warnings on.

    Args:
        tier: stands in every line.
        form: one of FORMATS.
        level: one of LEVELS, from which on this project's own lines are written, and the server's.
    """
    handler = logging.StreamHandler(sys.stdout if form == "json" else sys.stderr)
    handler.setFormatter(JsonFormatter(tier) if form == "json" else TextFormatter())
    handler.addFilter(_is_no_cut_off)
    own = getattr(logging, level.upper())
    logging.basicConfig(level=max(own, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("functions").setLevel(own)
    for name in _UVICORN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        # The line of a request says more than the server's.
        logger.setLevel(logging.WARNING if name == "uvicorn.access" else own)
    if form == "json":
        logging.captureWarnings(capture=True)
        sys.excepthook = _log_uncaught
        threading.excepthook = _uncaught_in_thread(threading.excepthook)


def refuse_start(tier: str, why: Exception, exit_code: int, environ: Mapping[str, str] = os.environ) -> NoReturn:
    """End this process with one critical line of its log, which says ``why``; whoever imported it finds the cause.

    The log is not set up by settings that may be what is wrong: it has the form that is asked for, if there is such.

    Raises:
        SystemExit: always.
    """
    form = environ.get("LOG_FORMAT", "")
    configure_logging(tier, form if form in FORMATS else "json", "error")
    logging.getLogger("functions").critical("%s", why)
    raise SystemExit(exit_code) from why


def _is_no_cut_off(record: logging.LogRecord) -> bool:
    # To a server it is an exception like any other.
    return not record.exc_info or not isinstance(record.exc_info[1], CutOffError)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    logging.getLogger("functions").critical("The process has failed", exc_info=(kind, error, traceback))


def _uncaught_in_thread(former: Callable[[Any], object]) -> Callable[[Any], object]:
    def log(caught: threading.ExceptHookArgs) -> None:
        if caught.exc_value is None:
            former(caught)
            return
        name = caught.thread.name if caught.thread else "?"
        found = (caught.exc_type, caught.exc_value, caught.exc_traceback)
        logging.getLogger("functions").error("The thread %s has failed", name, exc_info=found)

    return log
