"""The frontend on AWS Lambda, where one response is one body."""

from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES

from functions.frontend.app import build_app
from functions.frontend.settings import Settings
from functions.frontend.telemetry.log_lines import configure_logging

settings = Settings.from_env()
configure_logging("frontend", settings.log_format, settings.log_level)
app = build_app(settings)

# Without lifespan: Mangum would start the app up and shut it down on every invocation. SVG is text, and Mangum would
# send it, a third longer, in base64.
handler = Mangum(app, lifespan="off", text_mime_types=[*DEFAULT_TEXT_MIME_TYPES, "image/svg+xml"])
