"""POST /v1/completions, as OpenAI's own client meets it."""

import asyncio
import json

import openai
import pytest

from tests.backend.controllers.openai.conftest import frames, says

ASK = {"model": "muninn-char", "prompt": "ROMEO:"}
NAMES = {"a": 0, "b": 1}


def asked(llm):
    """Give the bodies that the model service was sent."""
    return [json.loads(exchange.body) for exchange in llm.exchanges]


def scored(place, token_id, text, logprob, top, **more):
    return {"i": place, "id": token_id, "text": text, "logprob": logprob, "top": top, **more}


def test_a_text_is_what_the_model_said(sdk, llm):
    """Text, reason, usage; and the defaults are OpenAI's, not those of our own API."""
    llm.script = says(" Nay", ",", cached=2)
    answer = sdk.completions.create(**ASK)
    assert answer.object == "text_completion"
    assert answer.model == "muninn-char"
    [choice] = answer.choices
    assert (choice.index, choice.text, choice.finish_reason, choice.logprobs) == (0, " Nay,", "length", None)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 2, 5)
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    assert answer.usage.cpu_seconds == 0.5
    assert asked(llm) == [{"prompt": "ROMEO:", "max_tokens": 16, "temperature": 1.0, "model": "muninn-char"}]


def test_a_prompt_is_taken_as_it_is(sdk, llm):
    """A space at its end is a token, and no business of ours."""
    llm.script = says("x")
    sdk.completions.create(**ASK | {"prompt": " \n a "})
    assert asked(llm)[0]["prompt"] == " \n a "


def test_every_option_reaches_the_model(sdk, llm):
    """OpenAI's, and what other servers added to them."""
    llm.script = says("x")
    sdk.completions.create(
        **ASK,
        max_tokens=7, temperature=0.5, top_p=0.9, presence_penalty=0.1, frequency_penalty=0.2, logit_bias={"5": -100},
        stop=["\n", "FIN"], seed=11, logprobs=2, echo=True, user="me",
        extra_body={"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1, "penalty_decay": 0.9, "stop_token_ids": [4],
                    "ignore_eos": True, "metadata": {"a": "b"}, "store": False},
    )  # fmt: skip
    assert asked(llm) == [
        ASK | {
            "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "presence_penalty": 0.1, "frequency_penalty": 0.2,
            "logit_bias": {"5": -100.0}, "stop": ["\n", "FIN"], "seed": 11, "logprobs": 2, "echo": True, "top_k": 3,
            "min_p": 0.1, "repetition_penalty": 1.1, "penalty_decay": 0.9, "stop_token_ids": [4], "ignore_eos": True,
        }
    ]  # fmt: skip


def test_seeds_below_0_and_a_top_p_of_0_are_taken(sdk, llm):
    """OpenAI's are int64; the model service's seeds begin at 0."""
    llm.script = says("x")
    for seed in (-1, -(2**63), 2**63 - 1):
        sdk.completions.create(**ASK, seed=seed, top_p=0)
    assert [(body["seed"], body["top_p"]) for body in asked(llm)] == [(2**63 - 1, 0), (0, 0), (2**63 - 1, 0)]


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([5, 6], [[5, 6]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
    ],
)
def test_the_four_forms_of_a_prompt(sdk, llm, prompt, prompts):
    """Each prompt is a generation of its own, answered in the order of the request."""

    async def script(exchange):
        await exchange.answer(frames(str(json.loads(exchange.body)["prompt"])))

    llm.script = script
    answer = sdk.completions.create(model="m", prompt=prompt)
    assert [(choice.index, choice.text) for choice in answer.choices] == list(enumerate(map(str, prompts)))
    assert answer.usage.prompt_tokens == 3 * len(prompts)


def test_several_texts_of_each_prompt(sdk, llm):
    """With a seed each text of a prompt has one of its own, and the prompt counts once."""

    async def script(exchange):
        body = json.loads(exchange.body)
        await exchange.answer(frames(f"{body['prompt']}{body['seed']}"))

    llm.script = script
    answer = sdk.completions.create(model="m", prompt=["a", "b"], n=2, seed=2**63 - 1)
    last = 2**63 - 1
    assert [choice.text for choice in answer.choices] == [f"a{last}", "a0", f"b{last}", "b0"]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 4)


def test_the_best_of_several(sdk, llm):
    """The likeliest per token, which need not be the likeliest in all; what was made for nothing counts, too."""
    texts = {0: [-1.0], 1: [-0.5, -0.75], 2: [-3.0]}

    async def script(exchange):
        seed = json.loads(exchange.body).get("seed", 0)
        tokens = [scored(3 + i, i, f"{seed}", logprob, []) for i, logprob in enumerate(texts[seed])]
        await exchange.answer(frames(*tokens))

    llm.script = script
    answer = sdk.completions.create(model="m", prompt="a", n=2, best_of=3, seed=0)
    assert [(choice.index, choice.text, choice.logprobs) for choice in answer.choices] == [
        (0, "11", None),
        (1, "0", None),
    ]
    assert answer.usage.completion_tokens == 4
    assert [body["logprobs"] for body in asked(llm)] == [0, 0, 0]


ECHOED = [
    scored(0, 40, "R", None, []),
    scored(1, 195, "", -0.5, [[195, "\ufffd", -0.5, "c3"], [7, "x", -1.5]], bytes="c3"),
    scored(2, 185, "ù", -0.25, [[7, "x", -0.125]], bytes="b9"),
    scored(3, 9, "!", -2.0, [[9, "!", -2.0], [8, "!", -2.5]]),
]


def test_log_probabilities_of_an_echo(sdk, llm):
    """Of the first token there is none; the chosen one is always among the likeliest; no two names are alike."""
    llm.script = says(*ECHOED)
    [choice] = sdk.completions.create(**ASK, echo=True, logprobs=1, max_tokens=1).choices
    assert choice.text == "Rù!"
    assert choice.logprobs.tokens == ["R", "bytes:\\xc3", "bytes:\\xb9", "!"]
    assert choice.logprobs.token_logprobs == [None, -0.5, -0.25, -2.0]
    assert choice.logprobs.text_offset == [0, 1, 1, 2]
    assert choice.logprobs.top_logprobs == [
        None,
        {"bytes:\\xc3": -0.5, "x": -1.5},
        {"x": -0.125, "bytes:\\xb9": -0.25},
        {"!": -2.0},
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_alone(sdk, llm, stream):
    """With no new token wanted, the prompt's scores are the answer."""
    llm.script = says(*ECHOED)
    answer = sdk.completions.create(
        **ASK, echo=True, logprobs=1, max_tokens=0, stream=stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    )  # fmt: skip
    chunks = list(answer) if stream else [answer]
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.text for choice in choices) == "Rù"
    scores = [score for choice in choices if choice.logprobs for score in choice.logprobs.token_logprobs]
    assert scores == [None, -0.5, -0.25]
    offsets = [offset for choice in choices if choice.logprobs for offset in choice.logprobs.text_offset]
    assert offsets == [0, 1, 1]
    assert choices[-1].finish_reason == "length"
    assert (chunks[-1].usage.completion_tokens, chunks[-1].usage.total_tokens) == (0, 3)
    assert asked(llm)[0]["max_tokens"] == 1


def test_a_stream_is_told_in_chunks(sdk, llm, signal):
    """What has been written is there before the rest is."""
    seen = signal()

    async def script(exchange):
        await exchange.start()
        await exchange.send(frames(" Nay", done=False))
        await seen.wait()
        await exchange.send(frames(" Nay", ", sir", reason="stop").partition(b"\n\n")[2])
        await exchange.end()

    llm.script = script
    stream = sdk.completions.create(**ASK, stream=True)
    first = next(stream)
    seen.give()
    rest = list(stream)
    assert first.choices[0].text == " Nay"
    assert [(chunk.choices[0].text, chunk.choices[0].finish_reason) for chunk in rest] == [
        (", sir", None),
        ("", "stop"),
    ]
    assert {chunk.id for chunk in rest} == {first.id}
    assert not any(chunk.usage for chunk in rest)


def test_the_frames_of_a_stream(backend, llm):
    """Data alone, [DONE] last; the usage has a chunk of its own, and is null in the others."""
    llm.script = says("é\n")
    response = backend.post("/v1/completions", json=ASK | {"stream": True, "stream_options": {"include_usage": True}})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-request-id"]
    *data, done, nothing = response.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    text, end, usage = [json.loads(frame.removeprefix("data: ")) for frame in data]
    assert text["choices"] == [{"text": "é\n", "index": 0, "logprobs": None, "finish_reason": None}]
    assert text["usage"] is end["usage"] is None
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 4


def test_a_stream_of_several_texts(sdk, llm):
    """Each chunk says whose it is; each text ends once."""

    async def script(exchange):
        await exchange.answer(frames(json.loads(exchange.body)["prompt"], "!"))

    llm.script = script
    texts, ends = {0: "", 1: "", 2: ""}, []
    for chunk in sdk.completions.create(model="m", prompt=["a", "b", "c"], stream=True):
        [choice] = chunk.choices
        texts[choice.index] += choice.text
        ends += [choice.index] if choice.finish_reason else []
    assert texts == {0: "a!", 1: "b!", 2: "c!"}
    assert sorted(ends) == [0, 1, 2]


@pytest.mark.parametrize("prompt", ["a", ["a", "b"]])
def test_a_stream_that_fails_says_so_and_ends(sdk, backend, llm, prompt):
    """The error is the last frame, and no [DONE] follows it."""
    failed = b'event: error\ndata: {"code":"internal","message":"It broke: see the log.","retryable":true}\n\n'

    async def script(exchange):
        await exchange.answer(frames("x", done=False) + failed)

    llm.script = script
    body = {"model": "m", "prompt": prompt, "stream": True}
    frames_ = backend.post("/v1/completions", json=body).text.split("\n\n")
    assert json.loads(frames_[-2].removeprefix("data: "))["error"]["code"] == "internal"
    assert frames_[-1] == ""
    with pytest.raises(openai.APIError, match="It broke"):
        list(sdk.completions.create(**body))


def test_a_text_of_several_that_fails_ends_the_others(sdk, llm, signal):
    """Nobody pays for what nobody gets."""
    left = signal()

    async def script(exchange):
        if json.loads(exchange.body)["prompt"] == "b":
            await exchange.answer({"error": {"code": "internal", "message": "No."}}, status=500)
        else:
            await exchange.start()
            await exchange.until_client_leaves()
            left.give()

    llm.script = script
    with pytest.raises(openai.InternalServerError):
        sdk.completions.create(model="m", prompt=["a", "b"])
    assert left.given()


def test_pings_come_while_there_is_nothing_to_tell(backend, llm, signal, monkeypatch):
    """The answer begins with a comment, and an error that comes late is still told, as the last frame."""
    monkeypatch.setattr("functions.backend.controllers.openai.chunk_response.PING_S", 0.05)
    pinged = signal()

    async def script(exchange):
        await pinged.wait()
        await exchange.answer(
            {"error": {"code": "model_not_found", "message": "No such.", "field": "model"}}, status=404
        )

    llm.script = script
    with backend.stream("POST", "/v1/completions", json=ASK | {"stream": True}) as response:
        lines = response.iter_lines()
        assert next(lines) == ": ping"
        pinged.give()
        told = [line for line in lines if line.startswith("data: ")]
    assert [json.loads(line.removeprefix("data: "))["error"]["code"] for line in told] == ["model_not_found"]


def test_a_client_that_leaves_ends_the_texts(backend, llm, signal):
    """All of them."""
    left = [signal(), signal()]

    async def script(exchange):
        await exchange.start()
        await exchange.send(frames("x", done=False))
        await exchange.until_client_leaves()
        left[json.loads(exchange.body)["prompt"] == "b"].give()

    llm.script = script
    with backend.stream(
        "POST", "/v1/completions", json={"model": "m", "prompt": ["a", "b"], "stream": True}
    ) as response:
        next(response.iter_lines())
    assert [one.given() for one in left] == [True, True]


def test_without_a_model_the_default_one_is_named(backend, llm):
    """The answer says who wrote it."""

    async def script(exchange):
        if exchange.path == "/models":
            card = {"name": "b", "family": "lstm", "vocab_size": 1, "tokenizer": "char", "parameters": 1}
            card |= {"size_bytes": 1, "digest": "", "default": True}
            await exchange.answer({"models": [card | {"name": "a", "default": False}, card]})
        else:
            await exchange.answer(frames("x"))

    llm.script = script
    assert backend.post("/v1/completions", json={"prompt": "a"}).json()["model"] == "b"


@pytest.mark.parametrize("stream", [False, True])
def test_all_texts_share_the_time_of_their_request(backend, llm, stream):
    """Those that wait for a place get what is left; who has none left is never begun."""

    async def script(exchange):
        await asyncio.sleep(0.4)
        await exchange.answer(frames("a"))

    llm.script = script
    body = {"model": "m", "prompt": "a", "n": 40, "stream": stream}
    response = backend.post("/v1/completions", json=body, headers={"x-huginn-timeout-s": "0.7"})
    assert response.status_code == (200 if stream else 504)
    assert "time was up" in response.text
    limits = [float(exchange.headers["x-huginn-timeout-s"]) for exchange in llm.exchanges]
    assert all(limit < min(limits[:8]) <= 0.7 for limit in limits[8:])
    assert len(limits) <= 16
