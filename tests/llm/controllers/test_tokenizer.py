"""The routes that tell of tokens, and prompts that are conversations, over a real server."""

import pytest

TALK = {"messages": [{"role": "user", "content": "ab"}]}


def test_tokens_put_together_are_the_text(service):
    """Law: detokenize(tokenize(text)) == text; the pieces are the tokens' bytes."""
    for text in ("", "a", "Où est le corbeau ?\n"):
        answer = service.http.post("/tokenize", json={"prompt": text, "model": "tiny-byte"}).json()
        assert answer["model"] == "tiny-byte"
        assert bytes.fromhex("".join(answer["pieces"])).decode() == text
        back = service.http.post("/detokenize", json={"tokens": answer["tokens"], "model": "tiny-byte"}).json()
        assert back == {"model": "tiny-byte", "text": text}


def test_a_conversation_is_cut_as_it_is_generated_from(service):
    """What /tokenize says of it is what /generate reads."""
    tokens = service.http.post("/tokenize", json={"prompt": TALK, "model": "tiny-byte"}).json()["tokens"]
    assert bytes(tokens) == b"User: ab\nAssistant:"
    body = {"model": "tiny-byte", "max_tokens": 3, "seed": 1}
    said = service.http.post("/generate", json=body | {"prompt": TALK}).json()
    assert said["usage"]["prompt_tokens"] == len(tokens)
    assert said["text"] == service.http.post("/generate", json=body | {"prompt": tokens}).json()["text"]


def test_what_there_is_to_know_of_a_tokenizer(service):
    """Marks, vocabulary, template; of the default model where none is named."""
    info = service.http.get("/tokenizer_info").json()
    assert info["model"] == "tiny-char"
    named = service.http.get("/tokenizer_info", params={"model": "tiny-byte"}).json()
    assert (named["kind"], named["vocab_size"], named["max_prompt_tokens"]) == ("byte", 256, 32_768)
    assert named["bos_token"] is named["eos_token"] is None
    assert named["special_tokens"] == {}
    assert "messages" in named["chat_template"]


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/tokenize", {"prompt": 5}, 422, "prompt"),
        ("/tokenize", {"prompt": {"messages": []}}, 422, "prompt"),
        ("/tokenize", {"prompt": {"messages": [{"content": "a"}]}}, 422, "prompt"),
        ("/tokenize", {"text": "a"}, 422, "prompt"),
        ("/tokenize", {"prompt": "a", "model": "ghost"}, 404, "model"),
        ("/detokenize", {"tokens": [256], "model": "tiny-byte"}, 422, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, 422, "tokens"),
        ("/generate", {"prompt": {"messages": TALK["messages"], "tools": [{"type": "function"}]}}, 422, "tools"),
    ],
)
def test_what_cannot_be_served_is_named(service, path, body, status, field):
    """The field, and what was expected."""
    response = service.http.post(path, json=body)
    assert (response.status_code, response.json()["error"]["field"]) == (status, field)


def test_prompts_are_limited_by_their_tokens(served_folder, serving):
    """One more than the limit is refused, in any form, before anything is read."""
    from functions.llm.settings import Settings

    with serving(Settings(ckpt_path=served_folder / "tiny-byte", max_prompt_tokens=5)) as service:
        assert service.http.post("/generate", json={"prompt": "abcde", "max_tokens": 1}).status_code == 200
        for prompt in ("abcdef", "éé\n\n", [1] * 6, [1] * 200_000, TALK):
            for path, body in (
                ("/generate", {"prompt": prompt, "max_tokens": 1}),
                ("/check", {"prompts": ["a", prompt]}),
            ):
                response = service.http.post(path, json=body)
                assert (response.status_code, response.json()["error"]["code"]) == (413, "prompt_too_long")
        assert "maximum context length is 5 tokens" in response.json()["error"]["message"]


@pytest.mark.parametrize("bad", [[256], [-1], "", "a" * 100_001, {"messages": []}])
def test_prompts_are_checked_without_being_read(service, bad):
    """What would be refused by a generation is refused here, and of what is good nothing is made."""
    before = service.http.get("/status").json()["llm"]["prompt_tokens"]
    good = ["a", [255], TALK]
    checked = service.http.post("/check", json={"prompts": good, "model": "tiny-byte"})
    assert (checked.status_code, checked.json()) == (200, {"model": "tiny-byte"})
    refused = service.http.post("/check", json={"prompts": [*good, bad], "model": "tiny-byte"})
    assert refused.status_code == 422
    assert service.http.post("/generate", json={"prompt": bad, "model": "tiny-byte"}).status_code == 422
    assert service.http.get("/status").json()["llm"]["prompt_tokens"] == before
