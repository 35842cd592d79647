"""What chat templates run in: Jinja's sandbox, with the names that transformers gives them, and for a limited time.

They come with other people's checkpoints: one that loops would keep its thread long after everybody has left.
"""

import json
import time
from collections.abc import Sized
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, TemplateRuntimeError, nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SECONDS = 5.0
# Characters, elements or bits; a product that is larger takes memory, or time that nothing can interrupt.
MAX_PRODUCT = 1_000_000
_LOOK = "look_at_the_clock"


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment of one rendering, whose time begins with it.

    The clock is looked at on each pass of a loop and at each call, so the time may be exceeded by one expression. What
    memory a template takes by making long texts of short ones is not limited.
    """

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        self._until = time.monotonic() + MAX_SECONDS
        self.filters["tojson"] = _to_json
        self.filters[_LOOK] = _look
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)

    def limited(self, template: nodes.Template) -> nodes.Template:
        """Return the parsed template with a look at the clock on each pass of its loops, tests of elements included."""
        for loop in template.find_all(nodes.For):
            loop.body.insert(0, nodes.ExprStmt(self._look(nodes.Const(True), loop.lineno), lineno=loop.lineno))
            if loop.test is not None:
                loop.test = self._look(loop.test, loop.lineno)
        return template

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, or a macro, which may call itself."""
        self.expect_time()
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Multiply, or raise to a power, unless that is too large; constants come by here as well."""
        size = _power_size(left, right) if operator == "**" else _product_size(left, right)
        if size > MAX_PRODUCT:
            raise TemplateRuntimeError(f"{operator} makes what is too large")
        return super().call_binop(context, operator, left, right)

    def expect_time(self) -> None:
        """Raise TemplateRuntimeError when the time is over."""
        if time.monotonic() > self._until:
            raise TemplateRuntimeError(f"it takes more than {MAX_SECONDS:g} s")

    def _look(self, value: nodes.Node, lineno: int) -> nodes.Filter:
        return nodes.Filter(value, _LOOK, [], [], None, None, lineno=lineno, environment=self)


@pass_context
def _look(context: Context, value: Any) -> Any:
    """Give the value, in time."""
    environment = context.environment
    assert isinstance(environment, TemplateSandbox)
    environment.expect_time()
    return value


def _product_size(left: Any, right: Any) -> int:
    """Give the elements of a product of a sequence and a number, or the bits of one of two whole numbers."""
    if isinstance(left, int) and isinstance(right, int):
        return left.bit_length() + right.bit_length()
    for many, times in ((left, right), (right, left)):
        if isinstance(many, Sized) and isinstance(times, int):
            return len(many) * times
    return 0


def _power_size(left: Any, right: Any) -> int:
    """Give the bits of a power of two whole numbers."""
    return left.bit_length() * right if isinstance(left, int) and isinstance(right, int) else 0


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own would escape what a model must see as it is.
    return json.dumps(value, ensure_ascii=False, indent=indent)
