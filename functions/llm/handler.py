"""Where a server or AWS Lambda enters: `app` for ASGI servers, `handler` for Lambda's buffered responses."""

import atexit
import logging
import os
import signal
import threading
from functools import cache
from typing import Any

from functions.llm.start_up import without_collecting

# Of a program that was compiled ahead on another machine, XLA would write a page for each feature that is not here,
# whether the program uses it or not; what does fail comes as an exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _end() -> None:
    """End without a crash: a process whose interpreter ends under the compiler is aborted by it."""
    if not default.stopped:
        # No server has been told to stop, so nobody waits with a kill.
        default.stop()
    elif any(thread.name in {ENGINE, WARM_UP} for thread in threading.enumerate()):
        # The time to stop is up, and a large model still compiles: leave as who is ended by SIGTERM does.
        logging.shutdown()
        os._exit(128 + signal.SIGTERM)


with without_collecting():
    from functions.llm.checkpoints.checkpoint import CheckpointError
    from functions.llm.inference.jit_cache import keep_compiled
    from functions.llm.inference.warm_up import WARM_UP
    from functions.llm.served_first import default_model, expect_checkpoint
    from functions.llm.settings import Settings, SettingsError
    from functions.llm.telemetry.log_lines import configure_logging, refuse_start

    try:
        settings = Settings.from_env()
        configure_logging("llm", settings.log_format, settings.log_level)
        expect_checkpoint(settings)
        keep_compiled(settings.jit_cache_path)
        default = default_model(settings)
        # While the web's packages are imported, which takes as long.
        default.begin_early()
        atexit.register(_end)

        from functions.llm.app import build_app
        from functions.llm.inference.engine import ENGINE

        app = build_app(settings, default)
    except SettingsError as error:
        refuse_start("llm", error, exit_code=2)
    except CheckpointError as error:
        refuse_start("llm", error, exit_code=3)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer one invocation by AWS Lambda, in one piece."""
    answer: dict[str, Any] = _adapter()(event, context)
    return answer


@cache
def _adapter() -> Any:
    # Only a Lambda needs it; importing it takes as long as reading a small model.
    from mangum import Mangum

    # Mangum would run start-up and shut-down around every invocation.
    return Mangum(app, lifespan="off")
