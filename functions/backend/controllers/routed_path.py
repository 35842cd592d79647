"""Which path decides what is done."""

from starlette.types import Scope


def routed_path(scope: Scope) -> str:
    """Give the path that the router goes by: what was asked, without the root that it was asked under."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
