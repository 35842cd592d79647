"""One thread, many generations: turns, limits, failures, ends."""

import asyncio
import threading
import time
import weakref
from types import SimpleNamespace

import pytest

from functions.llm.inference.batch import generate
from functions.llm.inference.engine import Engine
from functions.llm.inference.errors import DeadlineExceededError, EngineStoppedError, QueueFullError, SlowReaderError
from functions.llm.inference.generation import Done, Generation, GenerationRequest, Token
from functions.llm.inference.generation_stream import GenerationStream
from functions.llm.inference.prompt_cache import PromptCache
from functions.llm.inference.sampling import SamplingOptions
from tests.undisturbed import undisturbed

WAIT_S = 60


class Model:
    """Something with a name."""

    def __init__(self, name):
        self.name = name


class Script:
    """A generation that does what it is told, a step when it is let."""

    step_seconds = 0.5

    def __init__(self, name, steps, log=None, gate=None, model=None):
        self.model = model or Model(name)
        self.prompt = (1, 2)
        self.prompt_tokens_read = 0
        self._name, self._steps, self._log, self._gate = name, iter(steps), log, gate
        self.started = threading.Event()

    def step(self):
        self.started.set()
        if self._gate is not None:
            assert self._gate.wait(WAIT_S)
        if self._log is not None:
            self._log.append(self._name)
        self.prompt_tokens_read = 2
        return next(self._steps)


class ScriptBatch:
    """Lets each script of one model take a step a dispatch."""

    def __init__(self, model, cache):
        self._scripts = []

    def __len__(self):
        return len(self._scripts)

    def join(self, script):
        self._scripts.append(script)
        return script, []

    def leave(self, script):
        self._scripts.remove(script)

    def advance(self, *, hurried):
        for script in tuple(self._scripts):
            yield script, script.step()


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
        self.loads, self.first, self.later, self.read, self.ends = [], [], [], [], []

    def load_changed(self, waiting, active):
        self.loads.append((waiting, active))

    def first_token(self, seconds):
        self.first.append(seconds)

    def later_tokens(self, count, seconds):
        self.later.append((count, seconds))

    def prompt_read(self, tokens):
        self.read.append(tokens)

    def ended(self, outcome):
        self.ends.append(outcome)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def engine(recorder):
    engine = Engine(max_queue=2, max_active=2, observer=recorder, new_batch=ScriptBatch)
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
    assert sorted(recorder.ends) == ["error", "length"]
    assert "A generation of bad failed" in caplog.text


def test_a_batch_that_fails_is_told_to_those_in_it_and_the_engine_goes_on(recorder):
    """Whatever it was: who runs gets the error, who comes later an answer."""

    class Broken(ScriptBatch):
        def advance(self, *, hurried):
            if any(script.model.name == "bad" for script in self._scripts):
                raise MemoryError("no room")
            return super().advance(hurried=hurried)

    engine = Engine(max_active=1, observer=recorder, new_batch=Broken)
    failing, later = Inbox(), Inbox()
    engine.submit(Script("bad", tokens(3)), failing)
    engine.submit(Script("good", [done(0)]), later)
    assert isinstance(failing.wait()[-1], MemoryError)
    assert later.wait() == [done(0), None]
    engine.stop()
    assert recorder.ends == ["error", "length"]


def test_a_receiver_that_fails_hurts_no_other(engine, recorder):
    """A broken receiver counts as one that has left."""

    def broken(delivery):
        raise OSError("gone")

    fine = Inbox()
    engine.submit(Script("a", tokens(1000)), broken)
    engine.submit(Script("b", [*tokens(2), done(2)]), fine)
    assert fine.wait()[-1] is None
    assert "cancelled" in recorder.ends


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
    assert (recorder.ends, recorder.read) == (["cancelled"], [2])


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
    assert (recorder.ends, recorder.read) == (["cancelled"], [])
    gate.set()
    assert not waiting.started.is_set()


def test_stopping_tells_everybody(recorder):
    """What runs and what waits gets EngineStoppedError; nothing new is taken; the thread ends."""
    engine = Engine(max_active=1, observer=recorder, new_batch=ScriptBatch)
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
    assert recorder.ends == ["not_ready", "not_ready"]
    with pytest.raises(EngineStoppedError):
        engine.submit(Script("c", []), Inbox())
    assert not own & set(threading.enumerate())


@pytest.mark.parametrize("places", [1, 2])
def test_a_place_goes_to_who_has_the_fewest(recorder, places):
    """One client's twenty requests do not keep another's single one waiting for all of them."""
    engine = Engine(max_queue=30, max_active=places, observer=recorder, new_batch=ScriptBatch)
    log, gate = [], threading.Semaphore(0)
    held = SimpleNamespace(wait=lambda timeout: gate.acquire(timeout=timeout))
    model, inboxes = Model("m"), []
    many = [Script(f"many {index}", [done(0)], log, held, model) for index in range(20)]
    one = Script("one", [done(0)], log, held, model)
    for script, client in [*((script, "many") for script in many), (one, "one")]:
        inboxes.append(Inbox())
        engine.submit(script, inboxes[-1], client=client)
        if script is many[0]:
            assert script.started.wait(WAIT_S)
    for _ in range(21):
        gate.release()
    for inbox in inboxes:
        inbox.wait()
    engine.stop()
    # It came last, when one or two of the twenty were running; the next free place was its own.
    assert log.index("one") <= 3
    assert [name for name in log if name != "one"] == [f"many {index}" for index in range(20)]


def test_a_full_queue_makes_room_for_who_has_less_in_it(recorder):
    """The client that fills it loses its latest request to another client's first; its own next one is refused."""
    engine = Engine(max_queue=4, max_active=1, observer=recorder, new_batch=ScriptBatch)
    gate, first, many = threading.Event(), Script("a", [done(0)]), [Inbox() for _ in range(4)]
    first._gate = gate
    engine.submit(first, Inbox(), client="first")
    assert first.started.wait(WAIT_S)
    for inbox in many:
        engine.submit(Script("b", [done(0)], gate=gate), inbox, client="many")
    with pytest.raises(QueueFullError):
        engine.submit(Script("c", []), Inbox(), client="many")
    one = Inbox()
    engine.submit(Script("d", [done(0)], gate=gate), one, client="one")
    assert isinstance(many[-1].wait()[-1], QueueFullError)
    gate.set()
    assert one.wait()[-1] is None
    assert [inbox.wait()[-1] for inbox in many[:-1]] == [None] * 3
    engine.stop()
    assert sorted(recorder.ends) == [*["length"] * 5, "queue_full"]


def test_a_model_that_nobody_uses_is_let_go(recorder):
    """An idle engine keeps no model alive, nor does a task whose events are still being read."""

    engine, model, inbox = Engine(observer=recorder, new_batch=ScriptBatch), Model("m"), Inbox()
    gone = weakref.ref(model)
    task = engine.submit(Script("a", [*tokens(1), done(1)], model=model), inbox)
    inbox.wait()
    last = Inbox()
    engine.submit(Script("b", [done(0)]), last)
    last.wait()
    assert task.text is None
    task.generation.model = None
    del model
    deadline = time.monotonic() + WAIT_S
    while gone() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    engine_kept = gone() is not None
    engine.stop()
    assert not engine_kept


def test_clients_share_the_places_equally(recorder):
    """Of four places, two clients that keep ten requests waiting each have two, always."""
    engine = Engine(max_queue=30, max_active=4, observer=recorder, new_batch=ScriptBatch)
    gate, inboxes, log = threading.Event(), [], []
    model = Model("m")
    first = Script("first", [*tokens(1), done(1)], gate=gate)
    inboxes.append(Inbox())
    engine.submit(first, inboxes[0], client="first")
    assert first.started.wait(WAIT_S)
    for client in "ab":
        for _ in range(10):
            inboxes.append(Inbox())
            engine.submit(Script(client, [*tokens(4), done(4)], log, model=model), inboxes[-1], client=client)
    gate.set()
    for inbox in inboxes:
        inbox.wait()
    engine.stop()
    halves = len(log) // 2
    assert abs(log[:halves].count("a") - log[:halves].count("b")) <= 10


def test_a_request_that_is_late_is_given_up(recorder):
    """Running or waiting, with an error that says after how long."""
    now = [0.0]
    engine = Engine(max_active=1, observer=recorder, new_batch=ScriptBatch, clock=lambda: now[0])
    gate, inboxes = threading.Semaphore(0), [Inbox(), Inbox()]
    running = Script("a", tokens(1000))
    running._gate = SimpleNamespace(wait=lambda timeout: gate.acquire(timeout=timeout))
    engine.submit(running, inboxes[0], timeout_s=5)
    engine.submit(Script("b", tokens(1000)), inboxes[1], timeout_s=4)
    assert running.started.wait(WAIT_S)
    now[0] = 6.0
    gate.release()
    gate.release()
    for inbox in inboxes:
        assert isinstance(inbox.wait()[-1], DeadlineExceededError)
    engine.stop()
    assert "6.0 s" in str(inboxes[0].items[-1])
    assert (recorder.ends, recorder.read) == (["deadline", "deadline"], [2])


def test_a_full_queue_says_when_a_place_is_free():
    """From how long answers took: of four places taken for eight seconds each, one is free every two."""
    now = [0.0]
    engine = Engine(max_queue=0, max_active=4, new_batch=ScriptBatch, clock=lambda: now[0])
    gate, inbox = threading.Event(), Inbox()
    first = Script("a", [done(0)], gate=gate)
    engine.submit(first, inbox)
    assert first.started.wait(WAIT_S)
    now[0] = 8.0
    gate.set()
    inbox.wait()
    gate.clear()
    for _ in range(4):
        engine.submit(Script("b", [done(0)], gate=gate), Inbox())
    with pytest.raises(QueueFullError, match="Try again in 2 s") as refused:
        engine.submit(Script("c", [done(0)]), Inbox())
    assert refused.value.retry_after_s == 2
    gate.set()
    engine.stop()


def test_stopping_what_never_started_is_nothing():
    """No request, no thread."""
    Engine().stop()


def test_times_are_measured_from_the_request_and_between_chunks(recorder):
    """With a clock that ticks at every look: first token since submission, later ones since the one before."""
    ticks = iter(range(100))
    engine = Engine(observer=recorder, clock=lambda: next(ticks), new_batch=ScriptBatch)
    inbox = Inbox()
    echoed = [Token(0, 1, "a"), Token(1, 1, "b")]
    engine.submit(Script("a", [[], echoed, *tokens(1), [*tokens(1, 3)[0], *tokens(1, 4)[0]], done(3)]), inbox)
    inbox.wait()
    engine.stop()
    first, (later,) = recorder.first, recorder.later
    assert (len(first), later[0]) == (1, 2)
    assert first[0] > later[1] > 0


def test_tokens_that_come_with_the_first_took_a_step_each(recorder):
    """Whoever joins others that are still reading draws several in one dispatch."""
    engine = Engine(observer=recorder, new_batch=ScriptBatch, clock=lambda: 0.0)
    inbox = Inbox()
    engine.submit(Script("a", [[Token(1, 1, "b"), *(each for [each] in tokens(3))], done(3)]), inbox)
    inbox.wait()
    engine.stop()
    assert (recorder.first, recorder.later) == ([0.0], [(2, 1.0)])


def real(checkpoint, **fields):
    options = {"prompt": "the raven " * 3, "max_tokens": 40, "sampling": SamplingOptions(), "seed": 3}
    return Generation(checkpoint, GenerationRequest(**options | fields))


def test_streams_in_company_are_the_streams_alone(char_model, byte_model):
    """Ten at once, of two models, give what each gives alone."""
    asked = [real(model, seed=seed) for seed in range(5) for model in (char_model, byte_model)]

    async def all_at_once(engine):
        async def collect(generation):
            return [event async for batch in GenerationStream(engine, generation) for event in batch]

        return await asyncio.gather(*map(collect, asked))

    engine = Engine(max_active=4, cache=PromptCache(1 << 20))
    together = asyncio.run(all_at_once(engine))
    engine.stop()
    assert together == [[event for batch in generate(generation) for event in batch] for generation in asked]


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
    assert recorder.ends == ["cancelled"]


def test_a_reader_who_is_too_far_behind_is_given_up(engine, recorder):
    """What waits for it is bounded; then the generation ends, and the error is the last thing it hears."""

    async def scenario():
        stream = GenerationStream(engine, Script("a", tokens(100_000)), max_unread=50)
        while "slow_reader" not in recorder.ends:  # noqa: ASYNC110 - it ends on another thread
            await asyncio.sleep(0.001)
        assert stream._deliveries.qsize() == 1
        with pytest.raises(SlowReaderError):
            await anext(stream)
        assert [batch async for batch in stream] == []
        stream.cancel()

    asyncio.run(asyncio.wait_for(scenario(), WAIT_S))
    assert recorder.ends == ["slow_reader"]


@undisturbed
def test_a_reader_who_takes_nothing_is_given_up_also_when_all_is_made(engine):
    """In time; one who waits for the engine is no slow reader."""

    async def scenario():
        gate = threading.Event()
        slow = GenerationStream(engine, Script("a", [*tokens(2), done(2)]), patience_s=0.1)
        await asyncio.sleep(0.05)
        waiting = GenerationStream(engine, Script("b", [*tokens(1), done(1)], gate=gate), patience_s=0.1)
        await asyncio.sleep(0.3)
        gate.set()
        with pytest.raises(SlowReaderError):
            await anext(slow)
        assert [batch async for batch in waiting] == [*tokens(1), done(1)]

    asyncio.run(asyncio.wait_for(scenario(), WAIT_S))


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
    deadline = time.monotonic() + WAIT_S
    while "cancelled" not in recorder.ends and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "cancelled" in recorder.ends
