"""OpenAI's library for Node reads this API as it reads OpenAI's."""

PROMPT = "ROMEO:"


def test_the_library_gets_what_our_own_api_gives(run_program, api):
    """Whole and streamed, the text of /api/llm/generate; refusals are the library's own errors."""
    seen = run_program("node", "openai_sdk.mjs")
    text = api.generate(PROMPT, max_tokens=40)["text"]
    assert seen["models"] == [api.model]
    assert seen["whole"]["choices"][0]["text"] == text
    assert seen["request_id"]
    assert seen["streamed"]["text"] == text
    assert seen["streamed"]["end"] == "length"
    assert seen["streamed"]["usage"]["total_tokens"] == seen["whole"]["usage"]["total_tokens"] == len(PROMPT) + 40
    assert seen["chat"] == [api.chat(PROMPT, max_tokens=40)] * 3
    assert seen["left"]
    assert seen["refused"]["model"] == {
        "class": "NotFoundError",
        "status": 404,
        "code": "model_not_found",
        "param": "model",
    }
    assert (seen["refused"]["suffix"]["class"], seen["refused"]["suffix"]["param"]) == ("BadRequestError", "suffix")
    assert seen["refused"]["embeddings"]["class"] == "NotFoundError"
