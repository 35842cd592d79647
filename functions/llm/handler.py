"""Where a server or AWS Lambda enters: `app` for ASGI servers, `handler` for Lambda's buffered responses."""

from mangum import Mangum

from functions.llm.app import build_app
from functions.llm.settings import Settings

app = build_app(Settings.from_env())
# Mangum would run start-up and shut-down around every invocation.
handler = Mangum(app, lifespan="off")
