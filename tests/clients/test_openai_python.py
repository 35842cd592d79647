"""OpenAI's Python library, in the second and the third version, reads this API as it reads OpenAI's."""

import pytest

PROMPT = "ROMEO:"


@pytest.fixture(params=["openai2", "openai3"])
def seen(request, run_program):
    """What the library has seen, by its first number."""
    return run_program(request.param, "openai_sdk.py") | {"environment": request.param}


def test_the_library_gets_what_our_own_api_gives(seen, api):
    """Whole, streamed, in company, several at a time: one request has one text, and it is that of /api/llm/generate."""
    assert seen["version"].startswith(f"{seen['environment'].removeprefix('openai')}.")
    ours = {prompt: api.generate(prompt, max_tokens=40)["text"] for prompt in (PROMPT, "JULIET:")}

    whole = seen["whole"]
    assert whole["object"] == "text_completion"
    assert whole["choices"][0]["text"] == ours[PROMPT]
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["prompt_tokens"] == len(PROMPT)
    assert whole["usage"]["completion_tokens"] == 40
    assert seen["request_id"] == "from-a-client"

    streamed = seen["streamed"]
    assert streamed["texts"] == {"0": ours[PROMPT]}
    assert streamed["ends"] == {"0": "length"}
    assert streamed["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
    assert streamed["chunks"] >= 3

    each = [ours[PROMPT], ours[PROMPT], ours["JULIET:"], ours["JULIET:"]]
    assert seen["many"] == [[index, text] for index, text in enumerate(each)]
    assert seen["streamed_many"]["texts"] == {str(index): text for index, text in enumerate(each)}
    assert seen["concurrent"] == [[ours[PROMPT]] * 4, ours[PROMPT]]
    assert len(set(seen["seeded"])) == 1

    said = api.chat(PROMPT, max_tokens=40)
    chat, streamed = seen["chat"], seen["chat_streamed"]
    assert [choice["message"]["content"] for choice in chat["choices"]] == [said, said]
    assert {choice["message"]["role"] for choice in chat["choices"]} == {"assistant"}
    assert streamed["text"] == said
    assert seen["chat_accumulated"] == api.chat(PROMPT, max_tokens=400).partition("\n")[0]
    assert streamed["end"] == chat["choices"][0]["finish_reason"]
    assert streamed["scored"][: len(said)] == [[character, 2] for character in said]
    assert streamed["usage"]["prompt_tokens"] == chat["usage"]["prompt_tokens"]

    stopped = seen["stopped"]["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert stopped["text"] == api.generate(PROMPT, max_tokens=400)["text"].partition("\n\n")[0]
    assert seen["left"]

    echoed = seen["echoed"]["choices"][0]
    assert echoed["text"] == PROMPT == "".join(echoed["logprobs"]["tokens"])
    assert echoed["logprobs"]["token_logprobs"][0] is None
    assert all(logprob < 0 for logprob in echoed["logprobs"]["token_logprobs"][1:])
    assert echoed["logprobs"]["text_offset"] == list(range(len(PROMPT)))

    assert seen["models"] == [api.model]
    assert seen["model"]["id"] == api.model

    def refusal(name: str) -> tuple[str, int, str, str | None]:
        return tuple(seen["refused"][name][key] for key in ("class", "status", "code", "param"))

    assert refusal("model") == ("NotFoundError", 404, "model_not_found", "model")
    assert refusal("retrieve") == ("NotFoundError", 404, "model_not_found", "model")
    assert refusal("suffix")[0] == refusal("temperature")[0] == "BadRequestError"
    assert (refusal("suffix")[3], refusal("temperature")[3]) == ("suffix", "temperature")
    assert (refusal("image")[0], refusal("image")[3]) == ("BadRequestError", "messages")
    assert refusal("embeddings")[0] == refusal("responses")[0] == "NotFoundError"
    assert all(each["request_id"] for each in seen["refused"].values())
