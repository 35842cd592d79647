"""The backend on AWS Lambda, and for any ASGI server: `uvicorn functions.backend.handler:app`."""

import gc

from mangum import Mangum

from functions.backend.app import build_app
from functions.backend.settings import Settings, SettingsError
from functions.backend.telemetry.log_lines import configure_logging, refuse_start

try:
    settings = Settings.from_env()
except SettingsError as error:
    refuse_start("backend", error, exit_code=2)
configure_logging("backend", settings.log_format, settings.log_level)
app = build_app(settings)
# All of this stays. To look through it again and again would hold every stream up for 50 ms each time.
gc.freeze()
# Mangum would run start-up and shut-down around every single invocation.
handler = Mangum(app, lifespan="off")
