"""What stands on OpenAI's library, or beside it, works with this API: litellm, langchain-openai, llm, inspect-ai."""

import json

import pytest
import yaml

from tests.clients.conftest import HERE, expect_ready
from tests.clients.environments import BUILD, python_of

PROMPT = "ROMEO:"


@pytest.fixture(scope="session")
def ours(api):
    """The greedy texts of our own API, and that of a conversation by a request that no library has written."""
    return {
        "romeo": api.generate(PROMPT, max_tokens=40)["text"],
        "juliet": api.generate("JULIET:", max_tokens=40)["text"],
        "chat": api.chat(PROMPT, max_tokens=40),
    }


def test_litellm(run_program, ours):
    """Completions and conversations, whole, streamed and at once."""
    # It would ask a server of its own for what models cost.
    seen = run_program("openai2", "litellm_calls.py", LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False")
    assert seen["completion"] == seen["completion_streamed"] == ours["romeo"]
    assert seen["chat"] == seen["chat_streamed"] == ours["chat"]
    assert seen["concurrent"] == [ours["chat"]] * 3
    assert seen["usage"]["completion_tokens"] > 0
    assert seen["refused"] == "NotFoundError"
    assert seen["more_tokens"] == seen["more_characters"] == ["ContextWindowExceededError"] * 3


def test_langchain(run_program, ours):
    """Both of its models, in chains and batches, whole and streamed."""
    seen = run_program("openai3", "langchain_calls.py")
    assert seen["completion"] == seen["completion_streamed"] == ours["romeo"]
    assert seen["batch"] == seen["generated"] == [ours["romeo"], ours["juliet"]]
    assert seen["chat"] == seen["chat_streamed"] == seen["chat_async"] == seen["chain"] == ours["chat"]
    assert seen["usage"]["total_tokens"] == seen["usage"]["input_tokens"] + seen["usage"]["output_tokens"]
    assert seen["finish_reason"] in {"stop", "length"}
    assert seen["with_system"]
    tokens = seen["with_logprobs"]["content"]
    assert "".join(token["token"] for token in tokens).startswith(ours["chat"])
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)
    assert seen["refused"] == "OpenAIModelNotFoundError"


def test_llm(client, api, ours):
    """The command `llm`, told of the API by the file that its manual names: streamed and whole, and kept in its log."""
    expect_ready("openai3")
    place = {"model_name": api.model, "api_base": f"{api.url}/v1"}
    models = [{"model_id": "raven", **place}, {"model_id": "scribe", "completion": True, **place}]
    (client.folder / "extra-openai-models.yaml").write_text(yaml.safe_dump(models), "utf-8")

    def llm(*arguments: str) -> str:
        return client([BUILD / "openai3" / "bin" / "llm", *arguments], LLM_USER_PATH=str(client.folder))

    options = ["-o", "max_tokens", "40", "-o", "temperature", "0"]
    # It ends what it prints with a line's end of its own.
    assert llm("-m", "scribe", *options, PROMPT).removesuffix("\n") == ours["romeo"]
    assert llm("-m", "raven", "--no-stream", *options, PROMPT).removesuffix("\n") == ours["chat"]
    logged = json.loads(llm("logs", "--json", "-n", "2"))
    assert {each["response"] for each in logged} == {ours["romeo"], ours["chat"]}


def test_inspect(client, api, ours):
    """An evaluation over conversations finds the answer that is there, and not the one that is not.

    A prompt that is too long is told from one that a policy forbids.
    """
    expect_ready("openai3")
    program = [python_of("openai3"), HERE / "programs" / "inspect_task.py", api.url, api.model, ours["chat"]]
    found = json.loads(client(program).splitlines()[-1])
    assert (found["status"], found["error"]) == ("success", None)
    assert found["answers"] == [ours["chat"]] * 2
    assert found["accuracy"] == 0.5
    assert found["too_long"] == ["model_length"] * 2
    assert found["usage"][0]["output_tokens"] > 0
