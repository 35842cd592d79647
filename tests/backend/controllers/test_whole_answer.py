"""Whole answers: written while their tokens come, sent in pieces, and no larger than there is room for."""

import asyncio
import gc
import json
import time
from itertools import accumulate, pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.backend.app import build_app
from functions.backend.controllers.openai.chat_answer import ChatText, chat_answer, chat_logprobs
from functions.backend.controllers.openai.completion_answer import (
    CompletionText,
    completion_answer,
    completion_logprobs,
)
from functions.backend.controllers.openai.heading import Heading
from functions.backend.controllers.openai.usage import openai_usage
from functions.backend.controllers.whole_answer import MAX_SCORES, WholeAnswer, expect_fitting
from functions.backend.controllers.wire import WholeText, done_body, token_body
from functions.backend.controllers.written_list import WrittenList
from functions.backend.domain.conversation import Conversation
from functions.backend.domain.errors import InvalidRequest
from functions.backend.domain.events import Alternative, Done, Logprobs, Token, Usage
from functions.backend.domain.generation import Generation
from functions.backend.domain.prompt import Prompt, PromptLimits, SamplingOptions
from functions.backend.settings import Settings

HEADING = Heading("chatcmpl-1", 7, "né")
CHAT, COMPLETIONS, GENERATE = "/v1/chat/completions", "/v1/completions", "/api/llm/generate"

texts = st.sampled_from(["", "a", " th", "é", "漢", "🙂", '"\n'])
raws = st.sampled_from([None, b"\xc3", b"<s>", "é".encode()])
scores = st.floats(-20, 0)
alternatives = st.lists(st.builds(Alternative, st.integers(0, 9), texts, scores, raws), max_size=3).map(tuple)
scored = st.tuples(texts, st.builds(Logprobs, scores, alternatives, raws))


@st.composite
def generated(draw):
    """The tokens of a text, from the prompt's first one or from the first new one, and its end."""
    prompt = draw(st.integers(1, 3))
    first = draw(st.sampled_from([0, prompt]))
    new = draw(st.integers(0, 4))
    tokens = [Token(at, at % 9, *draw(scored)) for at in range(first, prompt + new)]
    return tokens, Done(draw(st.sampled_from(["stop", "length"])), Usage(prompt, new, prompt + new), 3, "né")


def told(text, tokens):
    for token in tokens:
        text.take(token)
    return text


def read(pieces):
    return json.loads(b"".join(pieces))


def said(tokens):
    return "".join(token.text for token in tokens)


def placed(tokens):
    """Each token with the place where it begins."""
    return list(zip(tokens, accumulate((len(token.text) for token in tokens), initial=0), strict=False))


def of_the_text(tokens):
    """Those of the placed tokens which are in the text."""
    return [(token, offset) for token, offset in placed(tokens) if offset < len(said(tokens))]


def usage_of(ends, made):
    return openai_usage([done.usage for done in ends], made)


@given(st.lists(st.lists(st.none() | st.integers() | texts | st.lists(texts), max_size=3)))
def test_a_list_is_the_same_however_it_came(parts):
    """In one piece, element by element, or not at all."""
    written = WrittenList()
    for part in parts:
        written.add(*part)
    assert read(written.pieces()) == [element for part in parts for element in part]


@given(st.lists(generated(), min_size=1, max_size=3), st.booleans())
def test_a_chat_answer_is_that_of_all_its_tokens(made, with_logprobs):
    """What is written token by token is what all tokens together are."""
    ends = [done for _, done in made]
    whole = [told(ChatText(with_logprobs=with_logprobs), tokens) for tokens, _ in made]
    assert read(chat_answer(HEADING, whole, ends, frozenset())) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "né",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": said(tokens), "refusal": None},
                "logprobs": chat_logprobs(of_the_text(tokens)) if with_logprobs else None,
                "finish_reason": done.finish_reason,
            }
            for index, (tokens, done) in enumerate(made)
        ],
        "usage": usage_of(ends, len(made)),
    }


@given(st.lists(generated(), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_a_completion_is_that_of_all_its_tokens(made, with_logprobs, best):
    """Also where only the likeliest text is given."""
    ends = [done for _, done in made]
    whole = [
        told(CompletionText(with_logprobs=with_logprobs, shows_new=True, ranked=best), tokens) for tokens, _ in made
    ]
    shown = [max(made, key=mean_logprob)] if best else made
    wanted = len(shown)
    assert read(completion_answer(HEADING, whole, ends, made=len(made), given=wanted, shows_new=True)) == {
        "id": "chatcmpl-1",
        "object": "text_completion",
        "created": 7,
        "model": "né",
        "choices": [
            {
                "text": said(tokens),
                "index": index,
                "logprobs": completion_logprobs(placed(tokens)) if with_logprobs else None,
                "finish_reason": done.finish_reason,
            }
            for index, (tokens, done) in enumerate(shown)
        ],
        "usage": usage_of(ends, len(made)),
    }


def mean_logprob(made):
    tokens, done = made
    chosen = [token.logprobs.token for token in tokens if token.position >= done.usage.prompt_tokens]
    return sum(chosen) / len(chosen) if chosen else 0.0


@given(generated())
def test_an_echo_alone_leaves_out_the_unwanted_token(made):
    """A model must be asked for a token, and may also make none."""
    tokens, done = made
    unwanted = [token for token in tokens if token.position >= done.usage.prompt_tokens][:1]
    prompt = [token for token in tokens if token.position < done.usage.prompt_tokens]
    text = told(CompletionText(with_logprobs=True, shows_new=False, ranked=False), [*prompt, *unwanted])
    [choice] = read(completion_answer(HEADING, [text], [done], made=1, given=1, shows_new=False))["choices"]
    assert (choice["text"], choice["logprobs"]) == (said(prompt), completion_logprobs(placed(prompt)))
    assert choice["finish_reason"] == "length"


@given(generated(), st.booleans())
def test_a_whole_text_is_that_of_all_its_tokens(made, with_tokens):
    """On the backend's own wire."""
    tokens, done = made
    answer = read(told(WholeText(with_tokens=with_tokens), tokens).answer(done))
    listed = json.loads(json.dumps([token_body(token) for token in tokens]))
    assert answer == {**done_body(done), "text": said(tokens)} | ({"tokens": listed} if with_tokens else {})


@pytest.mark.parametrize("pieces", [[b""], [b"{}"], [b"1" * 30_000] * 2, [b"[", b"1" * 1_000_000, b"]"]])
def test_an_answer_is_sent_in_pieces(pieces):
    """A small one in one; of a large one no more is on its way at a time than the server takes."""
    sent = []

    async def send(message):
        sent.append(message)

    answer = WholeAnswer(pieces, {"cache-control": "no-store"})
    asyncio.run(answer({"type": "http"}, None, send))
    start, *bodies = sent
    assert dict(start["headers"]) == {
        b"content-type": b"application/json",
        b"content-length": str(len(b"".join(pieces))).encode(),
        b"cache-control": b"no-store",
    }
    assert b"".join(message["body"] for message in bodies) == b"".join(pieces)
    assert [message["more_body"] for message in bodies] == [True] * (len(bodies) - 1) + [False]
    assert len(bodies) == 1 or len(bodies) > 5
    assert all(len(message["body"]) < 150_000 for message in bodies)


@pytest.fixture
def uncollected():
    """Python's collector, which looks through everything that all tests have, waits."""
    gc.disable()
    yield
    gc.enable()


class FastGateway:
    """Tells all tokens without letting anybody else run."""

    async def check(self, prompts, model, request_id):
        pass

    async def stream(self, generation, request_id, client="", timeout_s=None):
        top = tuple(Alternative(index, chr(65 + index), -1.0 - index) for index in range(20))
        for index in range(generation.options.max_tokens):
            yield Token(1 + index, 0, "A", Logprobs(-1.0, top))
        tokens = generation.options.max_tokens
        yield Done("length", Usage(1, tokens, tokens + 1), 0, "m")

    async def ready(self, request_id):
        return True


@pytest.mark.parametrize(
    ("path", "body", "tokens"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "a"}], "n": 2, "logprobs": True, "top_logprobs": 20}, 6000),
        (COMPLETIONS, {"prompt": ["a", "b"], "logprobs": 20}, 6000),
        (GENERATE, {"prompt": "a", "logprobs": 20}, 3000),
    ],
)
def test_a_large_answer_holds_nobody_up(uncollected, path, body, tokens):
    """However fast its tokens come, the others have their turn all the time until it is sent."""

    async def ask():
        app = build_app(Settings(), FastGateway())
        beats = []

        async def beat():
            while True:
                beats.append(time.thread_time())
                await asyncio.sleep(0)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            await client.post(path, json={"model": "m", "max_tokens": 1} | body)  # the first one finds much unmade
            beating = asyncio.create_task(beat())
            await asyncio.sleep(0)
            answer = await client.post(path, json={"model": "m", "max_tokens": 3000} | body)
            beats.append(time.thread_time())
            beating.cancel()
        return answer, beats

    answer, beats = asyncio.run(ask())
    assert answer.status_code == 200
    assert answer.content.count(b"-20.0") == tokens
    # Of the processor's time, for a machine may be busy; nobody who beats between two pieces is without some.
    longest = max(after - before for before, after in pairwise(beats))
    assert longest < (beats[-1] - beats[0]) / 4
    assert len(beats) > tokens / 100


def generations(*prompts, count=1, **options):
    """Give what is asked for of each prompt."""
    return [Generation(prompt, SamplingOptions(**options)) for prompt in prompts for _ in range(count)]


LIMITS = PromptLimits(8000)


def ids(count):
    return Prompt((60,) * count, LIMITS)


def text(said):
    return Prompt(said, LIMITS, trimmed=False)


@pytest.mark.parametrize(
    "asked",
    [
        generations(*[ids(2048)] * 128, max_tokens=1, logprobs=1, echo=True),
        generations(*[ids(8000)] * 32, max_tokens=1, logprobs=1, echo=True),
        generations(*[text("a" * 8000)] * 32, max_tokens=1, logprobs=1, echo=True),
        generations(text("漢" * 8000), max_tokens=1, logprobs=20, echo=True),
        generations(Conversation(({"role": "user", "content": "a"},), LIMITS), count=6, max_tokens=4096, logprobs=20),
        generations(ids(8000), count=128, max_tokens=4096, echo=True),
    ],
)
def test_what_is_usual_is_within_the_limit(asked):
    """Evaluations' batches, the most that one conversation can ask of a few answers, and texts without scores."""
    expect_fitting(asked, "")


@pytest.mark.parametrize(
    ("prompt", "each"),
    [(ids(3), 3), (text("aé漢🙂"), 10), (Conversation(({"role": "user", "content": "a" * 99},), LIMITS), 0)],
)
@pytest.mark.parametrize("echo", [True, False])
def test_the_limit_counts_all_that_is_told(prompt, each, echo):
    """Each text's tokens, the echoed ones among them, each with its alternatives; text may be as many as its bytes."""
    tokens = 1000 + each * echo
    count = MAX_SCORES // (tokens * 3)
    expect_fitting(generations(prompt, count=count, max_tokens=1000, logprobs=2, echo=echo), "")
    with pytest.raises(InvalidRequest, match=f"could have {tokens * 3 * (count + 1)}"):
        expect_fitting(generations(prompt, count=count + 1, max_tokens=1000, logprobs=2, echo=echo), "")


MUCH_CHAT = {"messages": [{"role": "user", "content": "a"}], "n": 7, "max_tokens": 4096, "logprobs": True}


@pytest.mark.parametrize(
    ("path", "body", "status", "advice"),
    [
        (CHAT, MUCH_CHAT | {"top_logprobs": 20}, 400, "stream to true"),
        (COMPLETIONS, {"prompt": "a", "n": 7, "max_tokens": 4096, "logprobs": 20}, 400, "stream to true"),
        (COMPLETIONS, {"prompt": ["é" * 8000] * 40, "max_tokens": 1, "logprobs": 0, "echo": True}, 400, "fewer texts"),
        (GENERATE, {"prompt": "🙂" * 8000, "max_tokens": 1, "logprobs": 20, "echo": True}, 422, "/api/llm/stream"),
    ],
)
def test_more_than_there_is_room_for_is_refused_in_words(backend, llm, path, body, status, advice):
    """At once, by the field and the limit, and with what to do; as a stream it may be had."""
    answer = backend.post(path, json={"model": "m"} | body)
    error = answer.json()["error"]
    assert (answer.status_code, error.get("param", error.get("field"))) == (status, "logprobs")
    assert f"{MAX_SCORES} log-probabilities" in error["message"]
    assert advice in error["message"]
    assert llm.exchanges == []


@pytest.mark.parametrize(("path", "more"), [(CHAT, {"stream": True}), (CHAT, {"top_logprobs": 0}), (CHAT, {"n": 6})])
def test_less_or_a_stream_is_answered(backend, llm, path, more):
    """The advice is good."""

    async def script(exchange):
        usage = {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}
        done = {"finish_reason": "stop", "usage": usage, "seed": 0, "model": "m"}
        await exchange.answer(f"event: done\ndata: {json.dumps(done)}\n\n".encode())

    llm.script = script
    answer = backend.post(path, json={"model": "m"} | MUCH_CHAT | {"top_logprobs": 20} | more)
    assert answer.status_code == 200
