"""What Lambda, and who deploys, say in the environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

ResponseMode = Literal["auto", "streaming", "buffered"]


class SettingsError(ValueError):
    """A variable that is missing or not understood: its name, what it is, what it must be."""


@dataclass(frozen=True)
class Settings:
    """The runtime's settings.

    Args:
        runtime_api: host and port of the Runtime API.
        app: where the ASGI app is, such as `package.module.app`.
        snap_start: whether a snapshot of this process will be made.
        max_concurrency: how many invocations may be answered at once.
        response_mode: `auto` streams to Function URLs and to whom it cannot tell from one, and gives HTTP APIs, REST
            APIs and load balancers one body. A REST API whose integration streams needs `streaming`.
        timeout_header: in which header of a request the app finds how many seconds it has.
    """

    runtime_api: str
    app: str
    snap_start: bool = False
    max_concurrency: int = 1
    response_mode: ResponseMode = "auto"
    timeout_header: str = "x-request-timeout-s"

    @classmethod
    def from_env(cls, app: str | None = None, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Give the settings of this process; ``app`` comes from the command line, else `_HANDLER` says it.

        Raises:
            SettingsError: names the variable.
        """
        runtime_api = environ.get("AWS_LAMBDA_RUNTIME_API", "")
        if not runtime_api:
            raise SettingsError("AWS_LAMBDA_RUNTIME_API is not set; Lambda, or an emulator of it, sets it.")
        app = app or environ.get("_HANDLER", "")
        if not app:
            raise SettingsError("_HANDLER is not set; give the app as an argument, such as package.module.app.")
        concurrency = environ.get("AWS_LAMBDA_MAX_CONCURRENCY", "1")
        if not concurrency.isascii() or not concurrency.isdigit() or concurrency.strip("0") == "":
            raise SettingsError(f"AWS_LAMBDA_MAX_CONCURRENCY is {concurrency!r}; it must be a number above 0.")
        mode = environ.get("RUNTIME_RESPONSE_MODE", "auto")
        if mode not in get_args(ResponseMode):
            raise SettingsError(f"RUNTIME_RESPONSE_MODE is {mode!r}; it must be auto, streaming or buffered.")
        timeout_header = environ.get("RUNTIME_TIMEOUT_HEADER", cls.timeout_header).lower()
        if not re.fullmatch(r"[a-z0-9-]+", timeout_header):
            raise SettingsError(f"RUNTIME_TIMEOUT_HEADER is {timeout_header!r}; it must be the name of a header.")
        return cls(
            runtime_api,
            app,
            environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start",
            int(concurrency),
            mode,  # type: ignore[arg-type]
            timeout_header,
        )
