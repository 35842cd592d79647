"""SnapStart: what must be done before the snapshot is made, and in every process that comes out of it."""

import inspect
import random
import sys
from collections.abc import Callable, Iterable
from typing import Any

# AWS's module in which apps register what they want done; only an app that does has imported it.
_REGISTRY = "snapshot_restore_py"

Hook = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


async def before_snapshot() -> None:
    """Do what the app wants done before the snapshot is made."""
    if registry := sys.modules.get(_REGISTRY):
        # The last that was opened is the first to be closed.
        await _run(reversed(registry.get_before_snapshot()))


async def after_restore() -> None:
    """Do what each process that is made from the snapshot needs: random numbers and connections of its own."""
    reseed()
    if registry := sys.modules.get(_REGISTRY):
        await _run(registry.get_after_restore())


def reseed() -> None:
    """Give the process random numbers of its own; what draws from the system, as secrets and uuid4 do, has them."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


async def _run(hooks: Iterable[Hook]) -> None:
    for function, args, kwargs in hooks:
        result = function(*args, **kwargs)
        if inspect.isawaitable(result):
            await result
