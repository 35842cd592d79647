"""The backend on AWS Lambda, and for any ASGI server: `uvicorn functions.backend.handler:app`."""

from mangum import Mangum

from functions.backend.app import build_app
from functions.backend.settings import Settings

app = build_app(Settings.from_env())
# Mangum would run start-up and shut-down around every single invocation.
handler = Mangum(app, lifespan="off")
