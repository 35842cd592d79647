"""Streams over a real socket: they arrive as they are made, and they end as they should."""

import json
import socket
import threading

import httpx
import pytest

from functions.llm.settings import Settings
from tests.undisturbed import undisturbed

LONG = {"prompt": "once", "model": "slow", "max_tokens": 4096, "seed": 1}


def events(body: str) -> list[tuple[str, dict]]:
    """The events of a stream, by the format's own rules."""
    found = []
    for frame in body.split("\n\n")[:-1]:
        name, data = frame.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_tokens_arrive_while_later_ones_are_made(service):
    """The first chunks are here when most of the text is not: nothing on the way waits for the whole."""
    before = service.metric("huginn_llm_generated_tokens_total")
    with service.stream("text/plain", **LONG) as response:
        chunks = response.iter_raw()
        arrived = [next(chunks) for _ in range(3)]
        made = service.metric("huginn_llm_generated_tokens_total") - before
        assert service.metric("huginn_llm_active_streams") == 1
    assert all(arrived)
    assert len(b"".join(arrived)) < 4096
    assert made < 4096
    service.wait_for("huginn_llm_active_streams", 0)


def test_both_forms_and_the_whole_answer_are_one_text(service):
    """The same request has one text, however it is sent, and whatever Accept asks for is what comes."""
    asked = {"prompt": "the raven é", "max_tokens": 40, "seed": 5}
    with service.stream("text/event-stream", **asked) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        body = response.read().decode()
    with service.stream("*/*", **asked) as response:
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        plain = response.read().decode()
    whole = service.http.post("/generate", json=asked).json()
    *tokens, (last, done) = events(body)
    assert {name for name, _ in tokens} == {"token"}
    assert "".join(token["text"] for _, token in tokens) == plain == whole["text"]
    assert last == "done"
    assert whole["usage"].pop("cpu_seconds") > 0
    assert done["usage"].pop("cpu_seconds") > 0
    assert {name: value for name, value in whole.items() if name != "text"} == done
    assert done["usage"] == {
        "prompt_tokens": 11,
        "completion_tokens": 40,
        "total_tokens": 51,
        "cached_prompt_tokens": 0,
    }
    assert (done["seed"], done["model"], done["finish_reason"]) == (5, "tiny-char", "length")


@undisturbed
def test_chunks_never_split_a_character(service):
    """Of a model that speaks arbitrary bytes each chunk is UTF-8 by itself."""
    asked = {"prompt": "é", "model": "tiny-byte", "max_tokens": 300, "temperature": 3, "seed": 2}
    with service.stream("text/plain", **asked) as response:
        chunks = list(response.iter_raw())
    assert len(chunks) > 3
    assert "".join(chunk.decode() for chunk in chunks)


def test_logprobs_and_echo_come_in_both_answers(service):
    """`tokens` of the whole answer are the token events of the stream."""
    asked = {"prompt": "ab", "max_tokens": 3, "seed": 5, "logprobs": 2, "echo": True}
    with service.stream(**asked) as response:
        tokens = [data for name, data in events(response.read().decode()) if name == "token"]
    assert service.http.post("/generate", json=asked).json()["tokens"] == tokens
    assert [token["i"] for token in tokens] == [0, 1, 2, 3, 4]
    assert (tokens[0]["logprob"], tokens[0]["top"]) == (None, [])
    assert all(len(token["top"]) == 2 and token["logprob"] <= token["top"][0][2] for token in tokens[1:])


def test_without_a_seed_one_is_drawn_and_told(service):
    """Two answers differ, and each can be had again."""
    first, second = (service.http.post("/generate", json={"prompt": "a", "max_tokens": 30}).json() for _ in range(2))
    assert first["seed"] != second["seed"]
    assert first["text"] != second["text"]
    again = service.http.post("/generate", json={"prompt": "a", "max_tokens": 30, "seed": first["seed"]}).json()
    assert (again["text"], again["seed"]) == (first["text"], first["seed"])


@pytest.mark.parametrize("accept", ["text/plain", "text/event-stream"])
def test_a_client_that_leaves_a_stream_ends_its_generation(service, accept):
    """Long before max_tokens; the metrics show it."""
    cancelled = service.metric("huginn_llm_requests_total", outcome="cancelled")
    made = service.metric("huginn_llm_generated_tokens_total")
    with service.stream(accept, **LONG) as response:
        next(response.iter_raw())
    service.wait_for("huginn_llm_requests_total", cancelled + 1, outcome="cancelled")
    assert service.metric("huginn_llm_active_streams") == 0
    assert service.metric("huginn_llm_generated_tokens_total") - made < 4096


def test_a_client_that_leaves_while_it_waits_for_the_whole_ends_its_generation(service):
    """POST /generate watches its client too."""
    cancelled = service.metric("huginn_llm_requests_total", outcome="cancelled")
    with pytest.raises(httpx.ReadTimeout):
        service.http.post("/generate", json=LONG, timeout=0.3)
    service.wait_for("huginn_llm_requests_total", cancelled + 1, outcome="cancelled")


def test_an_error_in_midstream_is_the_last_event(service):
    """The stream ends properly, its last event says why, and the next request is served."""
    with service.stream(prompt="a", model="breaking", temperature=0, max_tokens=100) as response:
        assert response.status_code == 200
        *tokens, (last, error) = events(response.read().decode())
    assert "".join(token["text"] for _, token in tokens) == "bcdef"
    assert last == "error"
    assert (error["code"], error["retryable"]) == ("internal", True)
    assert response.headers["x-request-id"] in error["message"]
    assert service.http.post("/generate", json={"prompt": "a", "max_tokens": 2}).status_code == 200


def test_an_error_in_midstream_leaves_plain_text_incomplete(service):
    """After a last line the connection closes without the end of the body: no client takes the text for whole."""
    with service.stream("text/plain", prompt="a", model="breaking", temperature=0, max_tokens=100) as response:
        received = b""
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):  # noqa: PT012 - what came before counts
            for chunk in response.iter_raw():
                received += chunk
    text, _, last_line = received.decode().partition("\n")
    assert text == "bcdef"
    assert last_line.startswith("[huginn error] The request failed")


def test_an_error_before_the_first_token_has_a_status_of_its_own(service):
    """Nothing has been sent yet, so it is a plain 500."""
    for path in ("/generate", "/generate/stream"):
        response = service.http.post(path, json={"prompt": "l", "model": "breaking"})
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "internal"
        assert response.headers["x-request-id"] in response.json()["error"]["message"]


def test_a_full_queue_is_a_503_and_a_place_that_is_left_is_free(narrow_service):
    """One is answered and one waits; the third is told how many wait and when to try again; then there is room."""
    service, long = narrow_service, {**LONG, "model": None}
    with service.stream(**long) as first:
        chunks = first.iter_raw()
        next(chunks)
        # By hand: the response's head comes with its first token, and this one only waits.
        with socket.create_connection(("127.0.0.1", service.port)) as waiting:
            body = json.dumps(long).encode()
            waiting.sendall(
                b"POST /generate/stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
            service.wait_for("huginn_llm_queue_depth", 1)
            refused = service.http.post("/generate", json=long)
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["code"] == "queue_full"
            assert "1 requests wait" in refused.json()["error"]["message"]
            assert service.metric("huginn_llm_requests_total", outcome="queue_full") == 1
        service.wait_for("huginn_llm_queue_depth", 0)
        assert service.metric("huginn_llm_active_streams") == 1
        chunks.close()
    service.wait_for("huginn_llm_active_streams", 0)
    assert service.http.post("/generate", json={"prompt": "a", "max_tokens": 1}).status_code == 200


def test_a_client_with_many_requests_does_not_keep_another_waiting(serving, served_folder):
    """There is one place, and x-huginn-client says whose turn it is: the other client's, before anybody's second."""
    order, body = [], json.dumps({"prompt": "a", "max_tokens": 1})
    with serving(Settings(ckpt_path=served_folder / "slow", max_active=1, max_queue=10)) as service:

        def ask(client):
            headers = {"x-huginn-client": client, "content-type": "application/json"}
            service.http.post("/generate", content=body, headers=headers).raise_for_status()
            order.append(client)

        threads = [threading.Thread(target=ask, args=(client,)) for client in ("many", "many", "many", "one")]
        with service.stream(**LONG) as first:
            chunks = first.iter_raw()
            next(chunks)
            for waiting, thread in enumerate(threads, 1):
                thread.start()
                service.wait_for("huginn_llm_queue_depth", waiting)
            chunks.close()
        for thread in threads:
            thread.join(60)
    assert order.index("one") <= 2


@pytest.mark.parametrize("path", ["/generate", "/generate/stream"])
def test_a_request_that_takes_longer_than_it_may_is_told_so(service, path):
    """Before its first token by a status, after it by the last event; its place is free at once.

    The time is a small part of what the text takes with the kernel on a quiet machine.
    """
    headers = {"accept": "text/event-stream, application/json;q=0.5", "x-huginn-timeout-s": "0.02"}
    body = {**LONG, "model": "slow"}
    # Loading the model is another wait, with an answer of its own.
    service.http.post("/generate", json={**body, "max_tokens": 1})
    late = service.metric("huginn_llm_requests_total", outcome="deadline")
    response = service.http.post(path, json=body, headers=headers)
    if response.status_code == 200:
        event, data = response.text.strip().splitlines()[-2:]
        assert event == "event: error"
        error = json.loads(data.removeprefix("data: "))
    else:
        assert response.status_code == 504
        error = response.json()["error"]
    assert (error["code"], error["retryable"]) == ("deadline_exceeded", True)
    service.wait_for("huginn_llm_requests_total", late + 1, outcome="deadline")
    assert service.metric("huginn_llm_active_streams") == 0


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", ""])
def test_a_time_that_is_none_is_refused_by_name(service, seconds):
    """A limit that was meant and cannot be read must not become no limit."""
    response = service.http.post("/generate", json={"prompt": "a"}, headers={"x-huginn-timeout-s": seconds})
    assert response.status_code == 422
    assert response.json()["error"]["field"] == "x-huginn-timeout-s"


def test_a_shared_beginning_is_counted_as_read_before(service):
    """The second of two prompts with the same beginning needs only its own end read, and the metrics say so."""
    shared = "the raven and the wolf went to the wood. " * 4
    hits = service.metric("huginn_llm_prompt_cache_lookups_total", result="hit")
    cached = service.metric("huginn_llm_cached_prompt_tokens_total")
    for end in ("one", "two"):
        service.http.post("/generate", json={"prompt": shared + end, "max_tokens": 1}).raise_for_status()
    assert service.metric("huginn_llm_prompt_cache_lookups_total", result="hit") == hits + 1
    assert service.metric("huginn_llm_cached_prompt_tokens_total") == cached + 160
    assert service.metric("huginn_llm_prompt_cache_bytes") > 0


def test_streams_run_side_by_side(service):
    """A short request does not wait for a long one that came before it."""
    with service.stream(**LONG) as long:
        chunks = long.iter_raw()
        next(chunks)
        assert service.http.post("/generate", json={"prompt": "a", "max_tokens": 5}).status_code == 200
        # Its place is free a moment after its answer.
        service.wait_for("huginn_llm_active_streams", 1)
        chunks.close()
    service.wait_for("huginn_llm_active_streams", 0)
