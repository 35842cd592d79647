"""The two generating routes over real sockets: what a client of the API sees."""

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from functions.backend.settings import Settings
from tests.undisturbed import undisturbed

STREAM = "/api/llm/stream"
GENERATE = "/api/llm/generate"
LATE = b'event: error\ndata: {"code":"deadline_exceeded","message":"It was given up after 600 s.","retryable":true}\n\n'
PROMPT = {"prompt": "ROMEO:"}
AS_JSON = {"content-type": "application/json"}
AS_EVENTS = {"accept": "text/event-stream"}

FIRST = b'event: token\ndata: {"i":6,"id":1,"text":" Ra"}\n\n'
SECOND = 'event: token\ndata: {"i":7,"id":9,"text":"ù 🐦‍⬛"}\n\n'.encode()
DONE = (
    b'event: done\ndata: {"finish_reason":"length","usage":{"prompt_tokens":6,"completion_tokens":2,"total_tokens":8,'
    b'"cached_prompt_tokens":5,"cpu_seconds":0.25},"seed":42,"model":"muninn-char"}\n\n'
)
FAILED = b'event: error\ndata: {"code":"internal","message":"It broke: see the log.","retryable":true}\n\n'


def says(*frames):
    """Give a service that answers these frames to everybody."""

    async def script(exchange):
        await exchange.answer(b"".join(frames))

    return script


def expect_error(response, status, code, field=None):
    """Check the one form of all errors."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"code", "message", "field", "retryable"}
    assert (error["code"], error["field"]) == (code, field)
    assert len(error["message"]) > 20
    return error


@pytest.mark.parametrize("accept", [None, "*/*", "text/plain", "text/*;q=0.5, image/png"])
def test_text_is_the_usual_form(backend, llm, accept):
    """Plain text is the tokens' text and nothing else."""
    llm.script = says(FIRST, SECOND, DONE)
    response = backend.post(STREAM, json=PROMPT, headers={"accept": accept} if accept else {})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert response.text == " Raù 🐦‍⬛"


def test_events_are_told_as_they_were(backend, llm):
    """An event stream through the backend is byte for byte what the model service says."""
    llm.script = says(FIRST, SECOND, DONE)
    response = backend.post(STREAM, json=PROMPT, headers=AS_EVENTS)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.content == FIRST + SECOND + DONE


@pytest.mark.parametrize("accept", ["text/plain", "text/event-stream"])
def test_every_token_is_sent_when_it_is_made(backend, llm, signal, accept):
    """The model service makes a token only after the client has the one before: nothing on the way waits for more."""
    first_seen, second_seen = signal(), signal()

    async def script(exchange):
        await exchange.start()
        await exchange.send(FIRST)
        await first_seen.wait()
        await exchange.send(SECOND[:30])  # cut in the middle of a frame
        await exchange.send(SECOND[30:])
        await second_seen.wait()
        await exchange.send(DONE)
        await exchange.end()

    llm.script = script
    with backend.stream("POST", STREAM, json=PROMPT, headers={"accept": accept}) as response:
        chunks = response.iter_bytes()
        assert " Ra" in next(chunks).decode()
        first_seen.give()
        assert "ù" in next(chunks).decode()
        second_seen.give()
        assert ("done" in b"".join(chunks).decode()) == (accept == "text/event-stream")


@pytest.mark.parametrize("route", [STREAM, GENERATE])
@pytest.mark.parametrize("tokens", [b"", FIRST], ids=["before the first token", "after it"])
def test_a_client_that_leaves_ends_the_generation(backend, llm, signal, route, tokens):
    """The model service sees its own client leave, at whatever moment ours did."""
    begun, left = signal(), signal()

    async def script(exchange):
        await exchange.start()
        await exchange.send(tokens)
        begun.give()
        await exchange.until_client_leaves()
        left.give()

    llm.script = script
    if route == STREAM and tokens:
        with backend.stream("POST", route, json=PROMPT) as response:
            assert next(response.iter_bytes()) == b" Ra"
    else:
        with socket.create_connection((backend.base_url.host, backend.base_url.port)) as connection:
            head = (
                f"POST {route} HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n"
            )
            connection.sendall(head.encode() + b'{"prompt": "a"}')
            assert begun.given()
    assert left.given()


def test_a_broken_event_stream_says_so(backend, llm):
    """A model service that dies in the middle is an error event, and the stream itself is complete."""

    async def die(exchange):
        await exchange.start()
        await exchange.send(FIRST)

    llm.script = die
    response = backend.post(STREAM, json=PROMPT, headers=AS_EVENTS)
    assert response.content.startswith(FIRST + b"event: error\ndata: ")
    error = json.loads(response.text.splitlines()[-2].removeprefix("data: "))
    assert (error["code"], error["retryable"]) == ("llm_disconnected", True)


@pytest.mark.parametrize("dies", [True, False], ids=["dies", "says that it failed"])
def test_a_broken_text_is_cut_off(backend, llm, dies):
    """Plain text has no place for an error, so its last line says it and the transfer stays incomplete."""

    async def script(exchange):
        await exchange.start()
        await exchange.send(FIRST, b"" if dies else FAILED)
        if not dies:
            await exchange.end()

    llm.script = script
    received = []
    with (
        pytest.raises(httpx.RemoteProtocolError, match="incomplete"),
        backend.stream("POST", STREAM, json=PROMPT) as response,
    ):
        received.extend(response.iter_text())
    text, line, rest = "".join(received).split("\n")
    assert (text, rest) == (" Ra", "")
    assert line.startswith("[huginn error] ")
    assert ("It broke: see the log." in line) != dies


@pytest.mark.parametrize("route", [STREAM, GENERATE])
@pytest.mark.parametrize("accept", ["text/plain", "text/event-stream"])
def test_an_error_before_the_first_token_is_an_answer_of_its_own(backend, llm, route, accept):
    """As long as nothing was sent, a failure has a status."""
    llm.script = says(FAILED)
    response = backend.post(route, json=PROMPT, headers={"accept": accept})
    error = expect_error(response, 502, "internal")
    assert (error["message"], error["retryable"]) == ("It broke: see the log.", True)


def test_the_whole_text(backend, llm):
    """Text, end and usage in one JSON; the tokens only where logprobs are asked for."""
    llm.script = says(FIRST, SECOND, DONE)
    assert backend.post(GENERATE, json=PROMPT).json() == {
        "model": "muninn-char",
        "text": " Raù 🐦‍⬛",
        "finish_reason": "length",
        "usage": {
            "prompt_tokens": 6,
            "completion_tokens": 2,
            "total_tokens": 8,
            "cached_prompt_tokens": 5,
            "cpu_seconds": 0.25,
        },
        "seed": 42,
    }
    llm.script = says(b'event: token\ndata: {"i":6,"id":1,"text":"R","logprob":-1.5,"top":[[1,"R",-1.5]]}\n\n', DONE)
    with_logprobs = backend.post(GENERATE, json=PROMPT | {"logprobs": 1}).json()
    assert with_logprobs["tokens"] == [{"i": 6, "id": 1, "text": "R", "logprob": -1.5, "top": [[1, "R", -1.5]]}]


def test_what_the_client_asked_for_is_asked_for(backend, llm):
    """Every option passes through, the prompt trimmed, a lone stop string as a list."""
    llm.script = says(FIRST, DONE)
    request = {
        "prompt": "  Où ?\n",
        "max_tokens": 3,
        "temperature": 0,
        "top_k": 4,
        "top_p": 0.5,
        "min_p": 0.1,
        "repetition_penalty": 1.5,
        "presence_penalty": -1.0,
        "frequency_penalty": 2.0,
        "penalty_decay": 0.5,
        "logit_bias": {"0": -100.0, "64": 1.0},
        "stop_token_ids": [0, 5],
        "seed": 2**63 - 1,
        "logprobs": 0,
        "echo": True,
        "ignore_eos": True,
        "model": "muninn-char",
    }
    assert backend.post(STREAM, json=request | {"stop": "FIN"}).status_code == 200
    assert json.loads(llm.exchanges[0].body) == request | {"prompt": "Où ?", "stop": ["FIN"]}


@pytest.mark.parametrize("route", [STREAM, GENERATE])
def test_a_key_makes_a_client_and_stays_here(backend, llm, route):
    """The model service learns which requests are one client's, never the key; without one it learns nothing."""
    llm.script = says(FIRST, SECOND, DONE)
    for authorization in ("Bearer raven", "bearer  raven", "Bearer wolf", "Basic raven", "Bearer", None):
        backend.post(route, json=PROMPT, headers={"authorization": authorization} if authorization else {})
    clients = [exchange.headers.get("x-huginn-client") for exchange in llm.exchanges]
    assert clients[0] == clients[1] != clients[2]
    assert clients[3:] == [None] * 3
    assert all("authorization" not in exchange.headers for exchange in llm.exchanges)
    assert "raven" not in clients[0]


def test_nobody_takes_another_s_name(backend, llm):
    """The header that is between the tiers is the backend's to set: what a client says there goes no further."""
    llm.script = says(FIRST, DONE)
    for headers in ({}, {"authorization": "Bearer raven"}):
        backend.post(STREAM, json=PROMPT, headers={"x-huginn-client": "wolf", **headers})
    seen = [exchange.headers.get("x-huginn-client") for exchange in llm.exchanges]
    assert seen[0] is None
    assert seen[1] not in {None, "wolf"}


def test_a_request_keeps_its_name_on_the_way(backend, llm):
    """A sane x-request-id goes through to the model service and comes back; another one is replaced."""
    llm.script = says(FIRST, DONE)
    response = backend.post(STREAM, json=PROMPT, headers={"x-request-id": "a-1"})
    assert response.headers["x-request-id"] == "a-1"
    assert llm.exchanges[0].headers["x-request-id"] == "a-1"
    for bad in ["x" * 129, "a b", 'a"b', "a\tb"]:
        made = backend.post(STREAM, json=PROMPT, headers={"x-request-id": bad}).headers["x-request-id"]
        assert made != bad
        assert len(made) == 36
        assert llm.exchanges[-1].headers["x-request-id"] == made


BAD_BODIES = [
    ("empty", b"", 400, "invalid_json", None),
    ("no JSON", b"prompt=hello", 400, "invalid_json", None),
    ("cut", b'{"prompt": "a', 400, "invalid_json", None),
    ("two", b'{"prompt": "a"} {}', 400, "invalid_json", None),
    ("not UTF-8", b'{"prompt": "\xff"}', 400, "invalid_json", None),
    ("UTF-16", '{"prompt": "a"}'.encode("utf-16"), 400, "invalid_json", None),
    ("half a surrogate pair", b'{"prompt": "\\ud83d"}', 400, "invalid_json", None),
    ("100,000 brackets", b"[" * 100_000, 400, "invalid_json", None),
    ("deep in the prompt", b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "invalid_json", None),
    ("number of 5,000 digits", b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", 400, "invalid_json", None),
    ("10 MB", b'{"prompt": "' + b"a" * 10_000_000 + b'"}', 413, "body_too_large", None),
    ("array", b"[]", 422, "invalid_request", None),
    ("null", b"null", 422, "invalid_request", None),
    ("no prompt", b"{}", 422, "invalid_prompt", "prompt"),
    ("empty prompt", b'{"prompt": ""}', 422, "invalid_prompt", "prompt"),
    ("blank prompt", b'{"prompt": " \\n\\u00a0\\t"}', 422, "invalid_prompt", "prompt"),
    ("empty ids", b'{"prompt": []}', 422, "invalid_prompt", "prompt"),
    ("prompt of a number", b'{"prompt": 1}', 422, "invalid_prompt", "prompt"),
    ("prompt of booleans", b'{"prompt": [true]}', 422, "invalid_prompt", "prompt"),
    ("prompt of a negative id", b'{"prompt": [-1]}', 422, "invalid_prompt", "prompt"),
    ("long prompt", b'{"prompt": "' + b"a" * 8001 + b'"}', 413, "prompt_too_long", "prompt"),
    ("many ids", b'{"prompt": [' + b"1," * 32_768 + b"1]}", 413, "prompt_too_long", "prompt"),
    ("unknown field", b'{"prompt": "a", "temprature": 1}', 422, "invalid_request", "temprature"),
    ("state", b'{"prompt": "a", "state": "s"}', 422, "invalid_request", "state"),
    ("text for a number", b'{"prompt": "a", "top_k": "4"}', 422, "invalid_request", "top_k"),
    ("fraction for a whole", b'{"prompt": "a", "max_tokens": 1.5}', 422, "invalid_request", "max_tokens"),
    ("boolean for a number", b'{"prompt": "a", "temperature": true}', 422, "invalid_request", "temperature"),
    ("number for a boolean", b'{"prompt": "a", "echo": 1}', 422, "invalid_request", "echo"),
    ("null for a number", b'{"prompt": "a", "top_p": null}', 422, "invalid_request", "top_p"),
    ("NaN", b'{"prompt": "a", "temperature": NaN}', 422, "invalid_request", "temperature"),
    ("infinity", b'{"prompt": "a", "temperature": 1e999}', 422, "invalid_request", "temperature"),
    ("too hot", b'{"prompt": "a", "temperature": 10.5}', 422, "invalid_request", "temperature"),
    ("none to make", b'{"prompt": "a", "max_tokens": 0}', 422, "invalid_request", "max_tokens"),
    ("huge seed", b'{"prompt": "a", "seed": 9223372036854775808}', 422, "invalid_request", "seed"),
    ("bias for a word", b'{"prompt": "a", "logit_bias": {"the": 1}}', 422, "invalid_request", "logit_bias"),
    ("bias for 01", b'{"prompt": "a", "logit_bias": {"01": 1}}', 422, "invalid_request", "logit_bias"),
    (
        "biases for 1001",
        json.dumps({"prompt": "a", "logit_bias": dict.fromkeys(map(str, range(1001)), 1)}).encode(),
        422,
        "invalid_request",
        "logit_bias",
    ),
    (
        "1001 stop tokens",
        json.dumps({"prompt": "a", "stop_token_ids": [1] * 1001}).encode(),
        422,
        "invalid_request",
        "stop_token_ids",
    ),
    ("bias too strong", b'{"prompt": "a", "logit_bias": {"1": 101}}', 422, "invalid_request", "logit_bias"),
    ("stop at nothing", b'{"prompt": "a", "stop": [""]}', 422, "invalid_request", "stop"),
    ("stop at everything", b'{"prompt": "a", "stop": ""}', 422, "invalid_request", "stop"),
    ("stop at a number", b'{"prompt": "a", "stop": [1]}', 422, "invalid_request", "stop"),
    ("model of a number", b'{"prompt": "a", "model": 1}', 422, "invalid_request", "model"),
]


@pytest.mark.parametrize("route", [STREAM, GENERATE])
@pytest.mark.parametrize(
    ("body", "status", "code", "field"), [case[1:] for case in BAD_BODIES], ids=[case[0] for case in BAD_BODIES]
)
def test_bad_input_is_refused_clearly_and_the_service_goes_on(backend, llm, route, body, status, code, field):
    """The model service is not asked, the fault is named, and the next request is served on the same connection."""
    response = backend.post(route, content=body, headers=AS_JSON)
    expect_error(response, status, code, field)
    assert not llm.exchanges
    llm.script = says(FIRST, DONE)
    assert backend.post(route, json=PROMPT).status_code == 200


def test_a_large_body_of_unknown_length_is_refused(backend):
    """A body in chunks announces no length, and is counted."""
    response = backend.post(STREAM, content=(b"x" * 100_000 for _ in range(30)), headers=AS_JSON)
    expect_error(response, 413, "body_too_large")


def test_a_body_up_to_the_limit_is_read(backend, llm):
    """A megabyte is a megabyte, whether it is announced or comes in chunks."""
    llm.script = says(FIRST, DONE)
    body = b'{"prompt": "a"}'.ljust(1_000_000)
    assert backend.post(STREAM, content=body, headers=AS_JSON).status_code == 200
    assert backend.post(STREAM, content=iter([body[:700_000], body[700_000:]]), headers=AS_JSON).status_code == 200


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "", None]
)
@pytest.mark.parametrize("route", [STREAM, GENERATE])
def test_what_another_site_may_send_unasked_is_not_json(backend, route, content_type):
    """A form, a text, or a body that does not say what it is: browsers send these for any page, and JSON for ours."""
    headers = {} if content_type is None else {"content-type": content_type}
    response = backend.post(route, content=b'{"prompt": "a"}', headers=headers)
    expect_error(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_is_taken_however_it_is_spelled(backend, llm, content_type):
    """In either case, with parameters or without."""
    llm.script = says(FIRST, DONE)
    headers = {"content-type": content_type}
    assert backend.post(STREAM, content=b'{"prompt": "a"}', headers=headers).status_code == 200


def test_an_accept_we_cannot_serve(backend):
    """Neither form allowed: said before anything is generated."""
    expect_error(backend.post(STREAM, json=PROMPT, headers={"accept": "image/png"}), 406, "not_acceptable")


@pytest.mark.parametrize("route", [STREAM, GENERATE])
def test_the_time_that_a_request_has_is_passed_on(backend, llm, route):
    """The model service is told the same limit; where the request has none, the API's own."""
    llm.script = says(FIRST, DONE)
    for headers in ({"x-huginn-timeout-s": "97.5"}, {}):
        assert backend.post(route, json=PROMPT, headers=headers).status_code == 200
    told = [float(exchange.headers["x-huginn-timeout-s"]) for exchange in llm.exchanges]
    # Less what has passed since the request came.
    assert [seconds < most for seconds, most in zip(told, (97.5001, 900.001), strict=True)] == [True, True]
    assert told[0] > 0
    assert told[1] > 800


@pytest.mark.parametrize("route", [STREAM, GENERATE])
@pytest.mark.parametrize("limit", ["soon", "0", "-1", "nan", ""])
def test_a_limit_that_is_none_is_refused(backend, llm, route, limit):
    """By name, and before the model service is asked."""
    response = backend.post(route, json=PROMPT, headers={"x-huginn-timeout-s": limit})
    expect_error(response, 422, "invalid_request", field="x-huginn-timeout-s")
    assert llm.exchanges == []


@pytest.mark.parametrize("route", [STREAM, GENERATE])
@undisturbed
def test_time_that_is_up_before_the_first_token(backend, llm, signal, route):
    """A model service that does not keep the limit is left, and the answer has a status."""
    left = signal()

    async def script(exchange):
        await exchange.until_client_leaves()
        left.give()

    llm.script = script
    response = backend.post(route, json=PROMPT, headers={"x-huginn-timeout-s": "0.5"})
    expect_error(response, 504, "time_limit_reached")
    assert left.given()


@undisturbed
def test_time_that_is_up_in_a_stream(backend, llm, signal):
    """The error is the last event; what came before is there, and the model service is left."""
    left = signal()

    async def script(exchange):
        await exchange.start()
        await exchange.send(FIRST)
        await exchange.until_client_leaves()
        left.give()

    llm.script = script
    response = backend.post(STREAM, json=PROMPT, headers={**AS_EVENTS, "x-huginn-timeout-s": "0.8"})
    assert response.content.startswith(FIRST + b"event: error\ndata: ")
    assert json.loads(response.text.splitlines()[-2].removeprefix("data: "))["code"] == "time_limit_reached"
    assert left.given()


@undisturbed
def test_the_model_service_says_better_why_time_was_up(backend, llm):
    """Its own last event, made at the limit, is waited for a moment."""

    async def script(exchange):
        await exchange.start()
        await exchange.send(FIRST)
        await asyncio.sleep(float(exchange.headers["x-huginn-timeout-s"]))
        await exchange.send(LATE)
        await exchange.end()

    llm.script = script
    response = backend.post(STREAM, json=PROMPT, headers={**AS_EVENTS, "x-huginn-timeout-s": "0.8"})
    assert response.content == FIRST + LATE.replace(b"deadline_exceeded", b"time_limit_reached")


def test_the_longest_that_a_request_may_take_is_no_limit_of_its_own(backend, llm):
    """However the model service comes to say so: whoever has asked for no limit, or for a longer one, reached none."""
    llm.script = lambda exchange: exchange.answer(FIRST + LATE)
    for headers in ({}, {"x-huginn-timeout-s": "97.5"}, {"x-huginn-timeout-s": "9000"}):
        response = backend.post(STREAM, json=PROMPT, headers={**AS_EVENTS, **headers})
        assert response.content == FIRST + LATE
        expect_error(backend.post(GENERATE, json=PROMPT, headers=headers), 504, "deadline_exceeded")


def test_an_unknown_model_is_the_client_s_to_mend(backend, llm):
    """The model service's refusal arrives with its status, words and field."""
    refusal = {"code": "model_not_found", "message": "There is no model 'ghost'.", "field": "model", "retryable": False}
    llm.script = lambda exchange: exchange.answer({"error": refusal}, 404)
    response = backend.post(STREAM, json=PROMPT | {"model": "ghost"})
    assert expect_error(response, 404, "model_not_found", "model") == refusal


def test_a_full_queue_says_when_to_come_back(backend, llm):
    """503 and Retry-After pass through."""
    refusal = {"code": "queue_full", "message": "The queue is full: 64 wait.", "field": None, "retryable": True}
    llm.script = lambda exchange: exchange.answer({"error": refusal}, 503, retry_after="3")
    response = backend.post(STREAM, json=PROMPT)
    assert expect_error(response, 503, "queue_full") == refusal
    assert response.headers["retry-after"] == "3"


@pytest.mark.parametrize("route", [STREAM, GENERATE])
def test_no_model_service(backend_with, unused_url, route):
    """503, when to ask again and what to do about it; the address of our service is for the log alone."""
    with backend_with(Settings(llm_url=unused_url)) as client:
        response = client.post(route, json=PROMPT)
        error = expect_error(response, 503, "llm_unavailable")
        assert int(response.headers["retry-after"]) > 0
        assert "LLM_URL" in error["message"]
        assert "127.0.0.1" not in error["message"]
        assert error["retryable"]


@pytest.mark.parametrize("route", [STREAM, GENERATE])
def test_a_silent_model_service(backend_with, llm, route):
    """504 before the first token; in a stream that began, the last event."""
    llm.script = lambda exchange: exchange.until_client_leaves()
    with backend_with(Settings(llm_url=llm.stream_url, llm_timeout_s=0.2)) as client:
        expect_error(client.post(route, json=PROMPT), 504, "llm_timeout")


@undisturbed
def test_a_stream_that_falls_silent_ends_with_a_word(backend_with, llm):
    """Never a silent end."""

    async def script(exchange):
        await exchange.start()
        await exchange.send(FIRST)
        await exchange.until_client_leaves()

    llm.script = script
    # Long enough for the first token to come in time on a machine that is busy with other work.
    with backend_with(Settings(llm_url=llm.stream_url, llm_timeout_s=2)) as client:
        response = client.post(STREAM, json=PROMPT, headers=AS_EVENTS)
    assert response.content.startswith(FIRST)
    assert '"code":"llm_timeout"' in response.text


def test_the_prompt_s_limit_is_a_setting(backend_with, llm):
    """MAX_PROMPT_CHARS counts after trimming."""
    llm.script = says(FIRST, DONE)
    with backend_with(Settings(llm_url=llm.stream_url, max_prompt_chars=3)) as client:
        assert client.post(STREAM, json={"prompt": "  abc  "}).status_code == 200
        expect_error(client.post(STREAM, json={"prompt": "abcd"}), 413, "prompt_too_long", "prompt")


def test_many_clients_at_once(backend, llm, signal):
    """Streams do not wait for each other: each gets its own text while all are open."""
    all_there = signal()

    async def script(exchange):
        text = json.loads(exchange.body)["prompt"]
        await exchange.start()
        await exchange.send(FIRST.replace(b" Ra", text.encode()))
        if len(llm.exchanges) == 20:
            all_there.give()
        await all_there.wait()
        await exchange.send(DONE)
        await exchange.end()

    llm.script = script
    with ThreadPoolExecutor(20) as pool:
        texts = list(pool.map(lambda n: backend.post(STREAM, json={"prompt": f"p{n}"}).text, range(20)))
    assert texts == [f"p{n}" for n in range(20)]
