"""The frontend on AWS Lambda, where one response is one body."""

import gc

from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES

from functions.frontend.app import build_app
from functions.frontend.settings import Settings, SettingsError
from functions.frontend.telemetry.log_lines import configure_logging, refuse_start

try:
    settings = Settings.from_env()
except SettingsError as error:
    refuse_start("frontend", error, exit_code=2)
configure_logging("frontend", settings.log_format, settings.log_level)
app = build_app(settings)
# All of this stays. To look through it again and again would hold every stream up for 50 ms each time.
gc.freeze()

# Without lifespan: Mangum would start the app up and shut it down on every invocation. SVG is text, and Mangum would
# send it, a third longer, in base64.
handler = Mangum(app, lifespan="off", text_mime_types=[*DEFAULT_TEXT_MIME_TYPES, "image/svg+xml"])
