"""Where a server or AWS Lambda enters: `app` for ASGI servers, `handler` for Lambda's buffered responses."""

from functools import cache
from typing import Any

from functions.llm.start_up import without_collecting

with without_collecting():
    from functions.llm.app import build_app
    from functions.llm.settings import Settings

    app = build_app(Settings.from_env())


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
