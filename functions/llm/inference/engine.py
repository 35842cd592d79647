"""One thread owns the models: requests wait in a bounded queue, those that run take turns, a chunk of tokens each."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from functions.llm.inference.errors import EngineStoppedError, QueueFullError
from functions.llm.inference.generation import Done, Event, Generation, Token

Outcome = Literal["stop", "length", "cancelled", "error"]

Delivery = list[Event] | Exception | None
"""Events in order, what made the generation fail, or None: nothing more will come."""

logger = logging.getLogger(__name__)


class EngineObserver(Protocol):
    """Hears what the engine does; called from its thread and from those that submit."""

    def load_changed(self, waiting: int, active: int) -> None:
        """So many requests wait, and so many are being answered."""

    def first_token(self, seconds: float) -> None:
        """A generation's first token came so long after the request."""

    def later_tokens(self, count: int, seconds: float) -> None:
        """``count`` more tokens came, so long after the one before."""

    def ended(self, outcome: Outcome, prompt_tokens: int) -> None:
        """A generation is over, having read so many tokens of its prompt."""


class Silent:
    """An observer for those who do not look."""

    def load_changed(self, waiting: int, active: int) -> None: ...
    def first_token(self, seconds: float) -> None: ...
    def later_tokens(self, count: int, seconds: float) -> None: ...
    def ended(self, outcome: Outcome, prompt_tokens: int) -> None: ...


@dataclass(eq=False)
class Task:
    """A submitted generation."""

    generation: Generation
    deliver: Callable[[Delivery], None]
    submitted_at: float
    cancelled: bool = False
    started: bool = False
    last_token_at: float | None = None
    events: Iterator[list[Event]] = field(init=False)

    def __post_init__(self) -> None:
        self.events = self.generation.events()


class Engine:
    """Generates for many at once, on a thread of its own that begins with the first request.

    Batching what runs together will replace the loop in here; submit, cancel and stop will stay.
    """

    def __init__(
        self,
        *,
        max_queue: int = 64,
        max_active: int = 16,
        observer: EngineObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_queue = max_queue
        self._max_active = max_active
        self._observer: EngineObserver = observer or Silent()
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._active: list[Task] = []
        self._thread: threading.Thread | None = None
        self._stopping = False

    def submit(self, generation: Generation, deliver: Callable[[Delivery], None]) -> Task:
        """Queue ``generation``; the engine's thread gives ``deliver`` what it brings, and None or an error at its end.

        Raises:
            QueueFullError: as many wait as may.
            EngineStoppedError: after `stop`.
        """
        task = Task(generation, deliver, self._clock())
        with self._changed:
            if self._stopping:
                raise EngineStoppedError
            if len(self._waiting) + len(self._active) >= self._max_queue + self._max_active:
                raise QueueFullError(len(self._waiting))
            self._waiting.append(task)
            self._report_load()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
                self._thread.start()
            self._changed.notify()
        return task

    def cancel(self, task: Task) -> None:
        """End ``task`` at the next chunk, or at once if it still waits; nothing happens if it is over."""
        with self._changed:
            task.cancelled = True
            if task not in self._waiting:
                return
            self._waiting.remove(task)
            self._report_load()
        self._observer.ended("cancelled", 0)
        self._deliver(task, None)

    def stop(self, timeout_s: float = 60.0) -> None:
        """Cut off what runs and what waits with `EngineStoppedError`, and end the thread."""
        with self._changed:
            self._stopping = True
            thread = self._thread
            self._changed.notify()
        if thread is not None:
            thread.join(timeout_s)

    def _run(self) -> None:
        while self._admit():
            for task in tuple(self._active):
                self._advance(task)
        with self._changed:
            cut_off = [*self._active, *self._waiting]
            self._waiting.clear()
        for task in cut_off:
            self._end(task, "cancelled" if task.cancelled else "error", EngineStoppedError())

    def _admit(self) -> bool:
        """Wait until there is work, and give free places to those who wait; False means that it is time to end."""
        with self._changed:
            while not (self._stopping or self._waiting or self._active):
                self._changed.wait()
            while self._waiting and len(self._active) < self._max_active:
                self._active.append(self._waiting.popleft())
                self._report_load()
            return not self._stopping

    def _advance(self, task: Task) -> None:
        if task.cancelled:
            self._end(task, "cancelled", None)
            return
        task.started = True
        try:
            events = next(task.events)
        except Exception as error:
            logger.exception("A generation of %s failed", task.generation.checkpoint.name)
            self._end(task, "error", error)
            return
        self._observe(task, events)
        if events:
            self._deliver(task, events)
            if isinstance(last := events[-1], Done):
                self._end(task, last.finish_reason, None)

    def _observe(self, task: Task, events: list[Event]) -> None:
        prompt_length = len(task.generation.prompt)
        generated = sum(isinstance(event, Token) and event.position >= prompt_length for event in events)
        if not generated:
            return
        now = self._clock()
        if task.last_token_at is None:
            self._observer.first_token(now - task.submitted_at)
        else:
            self._observer.later_tokens(generated, now - task.last_token_at)
        task.last_token_at = now

    def _end(self, task: Task, outcome: Outcome, error: Exception | None) -> None:
        with self._changed:
            if task in self._active:
                self._active.remove(task)
            self._report_load()
        self._observer.ended(outcome, len(task.generation.prompt) if task.started else 0)
        self._deliver(task, error)

    def _deliver(self, task: Task, delivery: Delivery) -> None:
        try:
            task.deliver(delivery)
        except Exception:
            # A receiver that is gone must not take the others' engine with it.
            logger.exception("A receiver of %s failed", task.generation.checkpoint.name)
            task.cancelled = True

    def _report_load(self) -> None:
        self._observer.load_changed(len(self._waiting), len(self._active))
