"""One thread owns the models: requests wait in a bounded queue, those that run are written together, a chunk at a time.

Who waits comes in at the end of a chunk, who leaves is out by then. Places go to the clients that have the fewest,
in turn, so one that sends a hundred requests is not a hundred times as important as one that sends one.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal, Protocol

from functions.llm.inference.batch import Batch, Text
from functions.llm.inference.errors import DeadlineExceededError, EngineStoppedError, QueueFullError
from functions.llm.inference.generation import Done, Event, Generation, Token
from functions.llm.inference.prompt_cache import PromptCache
from functions.llm.inference.served_model import ServedModel

GivenUp = Literal["cancelled", "slow_reader", "not_ready"]
"""Why an answer is not gone on with: its reader has left, or takes it too slowly, or the server stops."""

Outcome = Literal["stop", "length", "cancelled", "slow_reader", "deadline", "queue_full", "not_ready", "error"]
"""How a generation ended; whoever is turned away after he was let in is counted as those who never were."""

Delivery = list[Event] | Exception | None
"""Events in order, what made the generation fail, or None: nothing more will come."""

ENGINE = "engine"
"""The name of the thread that answers."""

logger = logging.getLogger(__name__)


class EngineObserver(Protocol):
    """Hears what the engine does; called from its thread and from those that submit."""

    def load_changed(self, waiting: int, active: int) -> None:
        """So many requests wait, and so many are being answered."""

    def first_token(self, seconds: float) -> None:
        """A generation's first token came so long after the request."""

    def later_tokens(self, count: int, seconds: float) -> None:
        """``count`` more tokens came, so long after the one before."""

    def prompt_read(self, tokens: int) -> None:
        """So many more tokens of a prompt were read, besides those that the cache knew."""

    def ended(self, outcome: Outcome) -> None:
        """A generation is over."""


class Silent:
    """An observer for those who do not look."""

    def load_changed(self, waiting: int, active: int) -> None: ...
    def first_token(self, seconds: float) -> None: ...
    def later_tokens(self, count: int, seconds: float) -> None: ...
    def prompt_read(self, tokens: int) -> None: ...
    def ended(self, outcome: Outcome) -> None: ...


@dataclass(eq=False)
class Task:
    """A submitted generation.

    Args:
        generation: what is to be answered.
        deliver: who is given the events, on the engine's thread.
        client: whose fair share it counts against.
        submitted_at: by the engine's clock.
        deadline: when it is given up, by the engine's clock; None is never.
    """

    generation: Generation
    deliver: Callable[[Delivery], None]
    client: str
    submitted_at: float
    deadline: float | None
    given_up: GivenUp | None = None
    text: Text | None = None
    prompt_tokens_told: int = 0
    started_at: float | None = None
    last_token_at: float | None = None

    def give_up(self, reason: GivenUp) -> None:
        """Have it ended at the next chunk; the first reason counts."""
        self.given_up = self.given_up or reason


class Engine:
    """Generates for many at once, on a thread of its own that begins with the first request."""

    def __init__(
        self,
        *,
        max_queue: int = 64,
        max_active: int = 16,
        cache: PromptCache | None = None,
        observer: EngineObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
        new_batch: Callable[[ServedModel, PromptCache], Batch] = Batch,
    ) -> None:
        """Answer at most ``max_active`` requests at a time, and let ``max_queue`` more wait."""
        self._max_queue = max_queue
        self._max_active = max_active
        self._cache = cache or PromptCache(0)
        self._observer: EngineObserver = observer or Silent()
        self._clock = clock
        self._new_batch = new_batch
        self._changed = threading.Condition()
        self._waiting: list[Task] = []
        self._active: list[Task] = []
        self._batches: dict[ServedModel, Batch] = {}
        self._served_last: dict[str, int] = {}
        self._seconds_per_answer = 0.0
        self._thread: threading.Thread | None = None
        self._stopping = False

    def submit(
        self,
        generation: Generation,
        deliver: Callable[[Delivery], None],
        *,
        client: str = "",
        timeout_s: float | None = None,
    ) -> Task:
        """Queue ``generation``; the engine's thread gives ``deliver`` what it brings, and None or an error at its end.

        Args:
            generation: what is to be answered.
            deliver: called on the engine's thread.
            client: clients share the places equally, however many requests each sends.
            timeout_s: it is given up after so many seconds, waiting included, with `DeadlineExceededError`.

        Raises:
            QueueFullError: as many wait as may.
            EngineStoppedError: after `stop`.
        """
        now = self._clock()
        task = Task(generation, deliver, client, now, None if timeout_s is None else now + timeout_s)
        with self._changed:
            if self._stopping:
                raise EngineStoppedError
            evicted = self._make_room(client)
            self._waiting.append(task)
            self._report_load()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=ENGINE, daemon=True)
                self._thread.start()
            self._changed.notify()
        if evicted is not None:
            self._end(evicted, "queue_full", QueueFullError(self._max_queue, self._seconds_until_a_place_is_free()))
        return task

    def _make_room(self, client: str) -> Task | None:
        """Return who has to go for one more request of ``client``, if somebody has to; QueueFullError if nobody will.

        A full queue refuses those that fill it: the client with the most waiting loses its latest to one with less.
        """
        if len(self._waiting) + len(self._active) < self._max_queue + self._max_active:
            return None
        waiting = Counter(task.client for task in self._waiting)
        greedy, most = max(waiting.items(), key=itemgetter(1), default=("", 0))
        if most <= waiting[client] + 1:
            raise QueueFullError(len(self._waiting), self._seconds_until_a_place_is_free())
        latest = next(task for task in reversed(self._waiting) if task.client == greedy)
        self._waiting.remove(latest)
        return latest

    def cancel(self, task: Task, reason: GivenUp = "cancelled") -> None:
        """End ``task`` at the next chunk, or at once if it still waits; nothing happens if it is over."""
        with self._changed:
            task.give_up(reason)
            if task not in self._waiting:
                return
            self._waiting.remove(task)
            self._report_load()
        self._observer.ended(reason)
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
            try:
                self._advance_all()
            except Exception as error:  # noqa: BLE001 - this thread must not end: whoever comes later would wait for ever
                for task in tuple(self._active):
                    self._fail(task, error)
        with self._changed:
            cut_off = [*self._active, *self._waiting]
            self._waiting.clear()
        for task in cut_off:
            self._end(task, task.given_up or "not_ready", EngineStoppedError())

    def _advance_all(self) -> None:
        # A method of its own: while the thread waits for work, no variable of it keeps a model alive.
        self._give_up_the_late()
        for batch in tuple(self._batches.values()):
            self._advance(batch)

    def _admit(self) -> bool:
        """Wait until there is work, and give free places to those who wait; False means that it is time to end."""
        admitted = []
        with self._changed:
            while not (self._stopping or self._waiting or self._active):
                self._changed.wait()
            while self._waiting and len(self._active) < self._max_active:
                task = self._next_in_line()
                self._waiting.remove(task)
                self._active.append(task)
                admitted.append(task)
                self._report_load()
            if self._stopping:
                return False
        for task in admitted:
            self._begin(task)
        return True

    def _next_in_line(self) -> Task:
        """Return whose turn it is: of the clients with the fewest places, the one that got its last one first.

        Of one client's requests, and of clients that had no place yet, whoever waits longest.
        """
        places = Counter(task.client for task in self._active)
        chosen = min(self._waiting, key=lambda task: (places[task.client], self._served_last.get(task.client, 0)))
        present = {task.client for task in (*self._waiting, *self._active)}
        self._served_last = {client: turn for client, turn in self._served_last.items() if client in present}
        self._served_last[chosen.client] = max(self._served_last.values(), default=0) + 1
        return chosen

    def _begin(self, task: Task) -> None:
        task.started_at = self._clock()
        model = task.generation.model
        try:
            if model not in self._batches:
                self._batches[model] = self._new_batch(model, self._cache)
            task.text, events = self._batches[model].join(task.generation)
            task.prompt_tokens_told = task.text.prompt_tokens_read  # by the cache
        except Exception as error:  # noqa: BLE001 - one request that fails must not end the others' engine
            self._let_go(model)
            self._fail(task, error)
            return
        self._take(task, events)

    def _give_up_the_late(self) -> None:
        now = self._clock()
        with self._changed:
            late = [
                task for task in (*self._active, *self._waiting) if task.deadline is not None and task.deadline <= now
            ]
            for task in late:
                if task in self._waiting:
                    self._waiting.remove(task)
        for task in late:
            self._end(task, "deadline", DeadlineExceededError(now - task.submitted_at))

    def _advance(self, batch: Batch) -> None:
        tasks = {id(task.text): task for task in self._active}
        for task in tuple(self._active):
            if task.given_up is not None:
                self._end(task, task.given_up, None)
        for text, made in batch.advance(hurried=self._somebody_can_come_in()):
            task = tasks[id(text)]
            if isinstance(made, Exception):
                self._fail(task, made)
            else:
                self._take(task, made)

    def _somebody_can_come_in(self) -> bool:
        return bool(self._waiting) and len(self._active) < self._max_active

    def _take(self, task: Task, events: list[Event]) -> None:
        self._observe(task, events)
        if events:
            self._deliver(task, events)
            if isinstance(last := events[-1], Done):
                self._end(task, last.finish_reason, None)

    def _observe(self, task: Task, events: list[Event]) -> None:
        self._observe_reading(task)
        prompt_length = len(task.generation.prompt)
        generated = sum(isinstance(event, Token) and event.position >= prompt_length for event in events)
        if not generated:
            return
        now = self._clock()
        if task.last_token_at is None:
            self._observer.first_token(now - task.submitted_at)
            # Who joins others takes as many steps as they do, and may have more than one at once: a step for each.
            if generated > 1:
                assert task.text is not None
                self._observer.later_tokens(generated - 1, (generated - 1) * task.text.step_seconds)
        else:
            self._observer.later_tokens(generated, now - task.last_token_at)
        task.last_token_at = now

    def _observe_reading(self, task: Task) -> None:
        """Tell what was read of the prompt since the last time: a long one takes a while, and may not be finished."""
        if task.text is not None and (tokens := task.text.prompt_tokens_read - task.prompt_tokens_told):
            task.prompt_tokens_told += tokens
            self._observer.prompt_read(tokens)

    def _fail(self, task: Task, error: Exception) -> None:
        logger.error("A generation of %s failed", task.generation.model.name, exc_info=error)
        self._end(task, "error", error)

    def _end(self, task: Task, outcome: Outcome, error: Exception | None) -> None:
        with self._changed:
            if task in self._active:
                self._active.remove(task)
            self._report_load()
        if task.text is not None:
            self._observe_reading(task)
            # Whoever still reads its events keeps the task, and must not keep the model with it.
            text, task.text = task.text, None
            self._batches[task.generation.model].leave(text)
            self._let_go(task.generation.model)
        if task.started_at is not None and outcome in ("stop", "length"):
            seconds = self._clock() - task.started_at
            self._seconds_per_answer = 0.8 * (self._seconds_per_answer or seconds) + 0.2 * seconds
        self._observer.ended(outcome)
        self._deliver(task, error)

    def _let_go(self, model: ServedModel) -> None:
        """Forget the batch of a model that nobody waits for, so that a model which is no longer served can go."""
        if model in self._batches and not len(self._batches[model]):
            del self._batches[model]

    def _deliver(self, task: Task, delivery: Delivery) -> None:
        try:
            task.deliver(delivery)
        except Exception:
            # A receiver that is gone must not take the others' engine with it.
            logger.exception("A receiver of %s failed", task.generation.model.name)
            task.give_up("cancelled")

    def _seconds_until_a_place_is_free(self) -> float:
        """Return about how long until one more may wait: answers end one after the other, `max_active` at a time."""
        return self._seconds_per_answer / self._max_active

    def _report_load(self) -> None:
        self._observer.load_changed(len(self._waiting), len(self._active))
