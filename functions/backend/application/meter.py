"""What watches generations while they are made, whoever reads them."""

from collections.abc import AsyncGenerator, Callable

from functions.backend.domain.events import Event
from functions.backend.domain.generation import Generation

Meter = Callable[[Generation, AsyncGenerator[Event]], AsyncGenerator[Event]]
"""Gives the model service's events of a generation, seen on their way; closing them closes the service's."""


def unmetered(_: Generation, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
    """Give the events themselves: nobody counts them."""
    return events
