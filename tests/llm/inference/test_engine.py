"""One thread, many generations: turns, limits, failures, ends."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from functions.llm.inference.engine import Engine
from functions.llm.inference.errors import EngineStoppedError, QueueFullError
from functions.llm.inference.generation import Done, Generation, GenerationRequest, Token
from functions.llm.inference.generation_stream import GenerationStream
from functions.llm.inference.sampling import SamplingOptions

WAIT_S = 10


class Script:
    """A generation that does what it is told, a step when it is let."""

    def __init__(self, name, steps, log=None, gate=None):
        self.checkpoint = SimpleNamespace(name=name)
        self.prompt = (1, 2)
        self._steps, self._log, self._gate = steps, log, gate
        self.started = threading.Event()

    def events(self):
        for step in self._steps:
            self.started.set()
            if self._gate is not None:
                assert self._gate.wait(WAIT_S)
            if isinstance(step, Exception):
                raise step
            if self._log is not None:
                self._log.append(self.checkpoint.name)
            yield step


def tokens(count, start=2):
    return [[Token(start + index, 7, "x")] for index in range(count)]


def done(count):
    return [Done("length", 2, count, 0, "m")]


class Inbox:
    """Collects deliveries; `end` is set by the last one."""

    def __init__(self):
        self.items, self.end = [], threading.Event()

    def __call__(self, delivery):
        self.items.append(delivery)
        if not isinstance(delivery, list):
            self.end.set()

    def wait(self):
        assert self.end.wait(WAIT_S)
        return self.items


class Recorder:
    """An observer that remembers."""

    def __init__(self):
        self.loads, self.first, self.later, self.ends = [], [], [], []

    def load_changed(self, waiting, active):
        self.loads.append((waiting, active))

    def first_token(self, seconds):
        self.first.append(seconds)

    def later_tokens(self, count, seconds):
        self.later.append((count, seconds))

    def ended(self, outcome, prompt_tokens):
        self.ends.append((outcome, prompt_tokens))


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def engine(recorder):
    engine = Engine(max_queue=2, max_active=2, observer=recorder)
    yield engine
    engine.stop()


def test_generations_take_turns(engine):
    """Two that run together advance a step each, in turn."""
    log, gate, inboxes = [], threading.Event(), [Inbox(), Inbox()]
    for name, inbox in zip("ab", inboxes, strict=True):
        engine.submit(Script(name, [*tokens(3), done(3)], log, gate), inbox)
    gate.set()
    for inbox in inboxes:
        assert inbox.wait() == [*tokens(3), done(3), None]
    # Whoever came first may be a step ahead when the other one is let in.
    order = "".join(log).removeprefix("a")
    assert order.startswith(("bababab", "ababab"))


def test_who_waits_comes_in_when_another_leaves(engine, recorder):
    """At most two run; the third starts after one of them has ended."""
    gate, inboxes = threading.Event(), [Inbox() for _ in range(3)]
    scripts = [Script(str(index), [*tokens(1), done(1)], gate=gate) for index in range(3)]
    for script, inbox in zip(scripts, inboxes, strict=True):
        engine.submit(script, inbox)
    assert scripts[0].started.wait(WAIT_S)
    assert not scripts[2].started.is_set()
    gate.set()
    for inbox in inboxes:
        assert inbox.wait()[-1] is None
    assert max(active for _, active in recorder.loads) == 2
    assert recorder.loads[-1] == (0, 0)


def test_a_full_queue_refuses_and_says_how_many_wait(engine):
    """Two run and two wait; the fifth is told so."""
    gate, first = threading.Event(), Script("a", [done(0)])
    first._gate = gate
    inboxes = [Inbox() for _ in range(4)]
    engine.submit(first, inboxes[0])
    assert first.started.wait(WAIT_S)
    for inbox in inboxes[1:]:
        engine.submit(Script("b", [done(0)], gate=gate), inbox)
    # The thread is held in the first one's step, so the second still waits for its place, with the two behind it.
    with pytest.raises(QueueFullError, match="3 requests wait"):
        engine.submit(Script("c", []), Inbox())
    gate.set()
    for inbox in inboxes:
        inbox.wait()
    last = Inbox()
    engine.submit(Script("c", [done(0)]), last)
    assert last.wait() == [done(0), None]


def test_one_that_fails_hurts_no_other(engine, recorder, caplog):
    """Its own receiver gets the error, the log the traceback, and the others go on."""
    gate, failing, fine = threading.Event(), Inbox(), Inbox()
    error = RuntimeError("out of memory")
    engine.submit(Script("bad", [*tokens(1), error], gate=gate), failing)
    engine.submit(Script("good", [*tokens(5), done(5)], gate=gate), fine)
    gate.set()
    assert failing.wait() == [*tokens(1), error]
    assert fine.wait() == [*tokens(5), done(5), None]
    assert sorted(outcome for outcome, _ in recorder.ends) == ["error", "length"]
    assert "A generation of bad failed" in caplog.text


def test_a_receiver_that_fails_hurts_no_other(engine, recorder):
    """A broken receiver counts as one that has left."""

    def broken(delivery):
        raise OSError("gone")

    fine = Inbox()
    engine.submit(Script("a", tokens(1000)), broken)
    engine.submit(Script("b", [*tokens(2), done(2)]), fine)
    assert fine.wait()[-1] is None
    assert ("cancelled", 2) in recorder.ends


def test_cancelling_what_runs_ends_it_at_the_next_step(engine, recorder):
    """No further step is taken."""
    gate, inbox, log = threading.Semaphore(0), Inbox(), []
    script = Script("a", tokens(1000), log)
    script._gate = SimpleNamespace(wait=lambda timeout: gate.acquire(timeout=timeout))
    task = engine.submit(script, inbox)
    gate.release()
    assert script.started.wait(WAIT_S)
    engine.cancel(task)
    gate.release()
    inbox.wait()
    assert inbox.items[-1] is None
    assert len(log) <= 2
    assert recorder.ends == [("cancelled", 2)]


def test_cancelling_what_waits_frees_its_place_at_once(engine, recorder):
    """It is answered without waiting for its turn, and reads none of its prompt."""
    gate, inbox = threading.Event(), Inbox()
    held = [Script("a", [done(0)], gate=gate) for _ in range(2)]
    for script in held:
        engine.submit(script, Inbox())
    assert held[0].started.wait(WAIT_S)
    waiting = Script("b", tokens(1))
    engine.cancel(engine.submit(waiting, inbox))
    assert inbox.wait() == [None]
    assert recorder.ends == [("cancelled", 0)]
    gate.set()
    assert not waiting.started.is_set()


def test_stopping_tells_everybody(recorder):
    """What runs and what waits gets EngineStoppedError; nothing new is taken; the thread ends."""
    engine = Engine(max_active=1, observer=recorder)
    gate, inboxes = threading.Event(), [Inbox(), Inbox()]
    running = Script("a", tokens(10_000), gate=gate)
    before = set(threading.enumerate())
    engine.submit(running, inboxes[0])
    own = set(threading.enumerate()) - before
    assert own
    engine.submit(Script("b", tokens(1)), inboxes[1])
    assert running.started.wait(WAIT_S)
    gate.set()
    engine.stop()
    for inbox in inboxes:
        assert isinstance(inbox.wait()[-1], EngineStoppedError)
    with pytest.raises(EngineStoppedError):
        engine.submit(Script("c", []), Inbox())
    assert not own & set(threading.enumerate())


def test_stopping_what_never_started_is_nothing():
    """No request, no thread."""
    Engine().stop()


def test_times_are_measured_from_the_request_and_between_chunks(recorder):
    """With a clock that ticks at every look: first token since submission, later ones since the one before."""
    ticks = iter(range(100))
    engine = Engine(observer=recorder, clock=lambda: next(ticks))
    inbox = Inbox()
    echoed = [Token(0, 1, "a"), Token(1, 1, "b")]
    engine.submit(Script("a", [[], echoed, *tokens(1), [*tokens(1, 3)[0], *tokens(1, 4)[0]], done(3)]), inbox)
    inbox.wait()
    engine.stop()
    assert (recorder.first, recorder.later) == ([1], [(2, 1)])


def real(checkpoint, **fields):
    options = {"prompt": "the raven", "max_tokens": 40, "sampling": SamplingOptions(), "seed": 3}
    return Generation(checkpoint, GenerationRequest(**options | fields))


def test_streams_in_company_are_the_streams_alone(char_checkpoint, byte_checkpoint):
    """Ten at once, of two models, give what each gives alone."""
    asked = [real(model, seed=seed) for seed in range(5) for model in (char_checkpoint, byte_checkpoint)]

    async def all_at_once(engine):
        async def collect(generation):
            return [event async for batch in GenerationStream(engine, generation) for event in batch]

        return await asyncio.gather(*map(collect, asked))

    engine = Engine(max_active=4)
    together = asyncio.run(all_at_once(engine))
    engine.stop()
    assert together == [[event for batch in generation.events() for event in batch] for generation in asked]


def test_a_stream_raises_what_its_generation_failed_of(engine):
    """After the events that came before."""

    async def scenario():
        stream = GenerationStream(engine, Script("a", [*tokens(2), ValueError("broken")]))
        assert [await anext(stream), await anext(stream)] == tokens(2)
        with pytest.raises(ValueError, match="broken"):
            await anext(stream)
        assert [batch async for batch in stream] == []

    asyncio.run(scenario())


def test_a_cancelled_stream_ends(engine, recorder):
    """Whoever awaits the next events sees the end, and the engine is free."""

    async def scenario():
        stream = GenerationStream(engine, Script("a", tokens(100_000)))
        await anext(stream)
        stream.cancel()
        async for _ in stream:
            pass

    asyncio.run(scenario())
    engine.stop()
    assert recorder.ends == [("cancelled", 2)]


def test_a_loop_that_is_gone_ends_the_generation(engine, recorder):
    """An event loop that was closed with a stream open leaves nothing running."""
    gate = threading.Event()

    async def abandon():
        GenerationStream(engine, Script("a", tokens(100_000), gate=gate))

    asyncio.run(abandon())
    gate.set()
    inbox = Inbox()
    engine.submit(Script("b", [done(0)]), inbox)
    inbox.wait()
    for _ in range(1000):
        if ("cancelled", 2) in recorder.ends:
            break
        threading.Event().wait(0.01)
    assert ("cancelled", 2) in recorder.ends
