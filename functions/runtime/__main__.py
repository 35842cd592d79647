"""`python -m functions.runtime package.module.app`, or without an argument the app that `_HANDLER` names."""

import asyncio
import logging
import os
import signal
import sys
from importlib import import_module
from typing import Any

from functions.runtime.errors import RuntimeFault
from functions.runtime.runtime_api import RuntimeApi
from functions.runtime.service import Service
from functions.runtime.settings import Settings, SettingsError


def main(arguments: list[str]) -> int:
    """Serve until Lambda has no more work for this process."""
    # Lambda knows a level more than Python does, below all the others.
    level = logging.getLevelNamesMapping().get(os.environ.get("AWS_LAMBDA_LOG_LEVEL", "WARN"), logging.DEBUG)
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = Settings.from_env(arguments[0] if arguments else None)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    api = RuntimeApi(settings.runtime_api)
    try:
        app = load_app(settings.app)
    except BaseException as error:
        # Who ends the process has put into words why; Lambda is told that, and not the number.
        why = error.__cause__ if isinstance(error, SystemExit) else None
        asyncio.run(api.fail_init(why or error))
        raise
    asyncio.run(_serve(app, api, settings))
    return 0


def load_app(name: str) -> Any:
    """Give the ASGI app at `package.module.app`, which may also be written `package/module.app` or with a colon.

    Raises:
        RuntimeFault: there is none.
    """
    module, _, attribute = name.replace("/", ".").replace(":", ".").rpartition(".")
    if not module:
        raise RuntimeFault("Runtime.MalformedHandlerName", f"{name!r} is not of the form package.module.app.")
    try:
        return getattr(import_module(module), attribute)
    except AttributeError as error:
        raise RuntimeFault("Runtime.HandlerNotFound", f"{module} has no {attribute!r}.") from error


async def _serve(app: Any, api: RuntimeApi, settings: Settings) -> None:
    service = Service(app, api, settings)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, service.stop)
    await service.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
