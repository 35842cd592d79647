"""What is counted is what readers receive, however many are written together."""

import threading
from pathlib import Path

import pytest

from functions.llm.checkpoints.checkpoint import load_checkpoint
from functions.llm.inference import served_model
from functions.llm.inference.engine import Engine
from functions.llm.inference.generation import Done, Generation, GenerationRequest, Token
from functions.llm.inference.prompt_cache import PromptCache
from functions.llm.inference.sampling import SamplingOptions
from functions.llm.inference.served_model import ServedModel
from functions.llm.metrics import Metrics
from tests.llm.conftest import prepared
from tests.llm.native.conftest import built, kernel  # noqa: F401 - fixtures

WAIT_S = 120
TEXTS = 16
BUNDLED = Path(__file__).parents[2] / "ckpts/muninn-char"
SPOKEN = "First Citizen: Before we proceed any further, hear me speak. " * 8


class Inbox:
    """One reader's deliveries; `end` is set by the last one."""

    def __init__(self):
        self.deliveries, self.end = [], threading.Event()

    def __call__(self, delivery):
        if isinstance(delivery, list):
            self.deliveries.append(delivery)
        else:
            self.end.set()

    @property
    def sizes(self):
        """How many tokens each delivery brought."""
        sizes = [sum(isinstance(event, Token) for event in events) for events in self.deliveries]
        return [size for size in sizes if size]

    @property
    def usage(self):
        """The last thing that was said."""
        assert self.end.wait(WAIT_S)
        done = self.deliveries[-1][-1]
        assert isinstance(done, Done)
        return done


@pytest.fixture(scope="module", params=["kernel", "no kernel"])
def model(request):
    """The bundled model with all its programs compiled."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "kernel":
            request.getfixturevalue("built")
        else:
            patch.setattr(served_model, "accelerated", lambda _: None)
        return prepared(ServedModel.of(load_checkpoint(BUNDLED)))


def samples(metrics):
    """The samples without labels, by name, less our prefix."""
    found = {
        each.name: each.value for metric in metrics.registry.collect() for each in metric.samples if not each.labels
    }
    return {name.removeprefix("huginn_llm_"): value for name, value in found.items()}


def asked(model, length, max_tokens, seed):
    request = GenerationRequest(SPOKEN[:length], max_tokens, SamplingOptions(), seed, ignore_eos=True)
    return Generation(model, request)


def written_together(model, metrics, generations):
    """What the readers of these hear, all of whom come before the first of them is begun."""
    engine = Engine(max_active=TEXTS, cache=PromptCache(1 << 20, metrics), observer=metrics)
    held, inboxes = threading.Event(), [Inbox() for _ in generations]

    def hold(delivery):
        assert held.wait(WAIT_S)

    engine.submit(asked(model, 1, 1, 0), hold)
    for generation, inbox in zip(generations, inboxes, strict=True):
        engine.submit(generation, inbox)
    held.set()
    for inbox in inboxes:
        assert inbox.end.wait(WAIT_S)
    engine.stop()
    return inboxes


@pytest.mark.parametrize("max_tokens", [3, 40])
def test_as_many_tokens_are_counted_as_are_received(model, max_tokens):
    """Whoever joins others gets several at once; each is counted, and has its time but for every text's first."""
    metrics = Metrics()
    generations = [asked(model, 1 + 7 * index % 40, max_tokens + index, index) for index in range(TEXTS)]
    inboxes = written_together(model, metrics, generations)
    received = 1 + sum(sum(inbox.sizes) for inbox in inboxes)
    assert received == 1 + sum(inbox.usage.completion_tokens for inbox in inboxes)
    found, texts = samples(metrics), 1 + TEXTS
    assert found["generated_tokens_total"] == received
    assert found["time_to_first_token_seconds_count"] == texts
    assert found["inter_token_seconds_count"] == received - texts
    assert found["inter_token_seconds_sum"] > 0
    if model.programs.model.rows_are_independent:
        assert max(inbox.sizes[0] for inbox in inboxes) > 1


def test_prompt_tokens_are_counted_while_they_are_read(model):
    """Many long prompts are read in turn: the counter grows before anybody has a token, and ends at what usage says."""
    metrics = Metrics()
    looks = []

    class Looking(PromptCache):
        """Is told of every piece that was read, and looks at the counters before the next one."""

        def keep(self, *known):
            found = samples(metrics)
            looks.append([found[name] for name in ("prompt_tokens_total", "cached_prompt_tokens_total")])
            super().keep(*known)

    engine = Engine(max_active=TEXTS, cache=Looking(1 << 24, metrics), observer=metrics)
    beginning = SPOKEN[:128]
    prompts = [beginning + SPOKEN[index:] for index in (0, *range(TEXTS))]
    inboxes = [Inbox() for _ in prompts]
    for inbox, prompt in zip(inboxes, prompts, strict=True):
        engine.submit(Generation(model, GenerationRequest(prompt, 2, SamplingOptions(), 0, ignore_eos=True)), inbox)
        if inbox is inboxes[0]:
            assert inbox.end.wait(WAIT_S)
    usages = [inbox.usage for inbox in inboxes]
    engine.stop()
    found = samples(metrics)
    assert found["prompt_tokens_total"] == sum(usage.prompt_tokens for usage in usages) == sum(map(len, prompts))
    assert found["cached_prompt_tokens_total"] == sum(usage.cached_prompt_tokens for usage in usages) >= TEXTS * 128
    read = [tokens for tokens, _ in looks]
    assert sorted(set(read)) == read
    assert len(read) > 3 * TEXTS
    assert all(cached <= tokens for tokens, cached in looks)


def test_of_a_prompt_that_is_given_up_as_much_is_counted_as_was_read(model):
    """To the piece: it is neither nothing nor all."""
    metrics = Metrics()
    inbox, pieces = Inbox(), []

    class Leaving(PromptCache):
        """Its reader leaves when two pieces were read."""

        def keep(self, model, tokens, state):
            pieces.append(len(tokens))
            if len(pieces) == 2:
                engine.cancel(task)

    begun = threading.Event()
    engine = Engine(cache=Leaving(1, metrics), observer=metrics)
    engine.submit(asked(model, 1, 1, 0), lambda _: begun.wait(WAIT_S))
    task = engine.submit(asked(model, 400, 5, 0), inbox)
    begun.set()
    assert inbox.end.wait(WAIT_S)
    engine.stop()
    assert inbox.deliveries == []
    assert samples(metrics)["prompt_tokens_total"] == 1 + pieces[1]
