"""litellm: prints what it has seen of an API at an address, as JSON."""

import asyncio
import json
import sys

import litellm

url, model = sys.argv[1:]
PROMPT = "ROMEO:"
PLACE = {"api_base": f"{url}/v1", "api_key": "none", "max_retries": 0}
COMPLETION = {"model": f"text-completion-openai/{model}", "prompt": PROMPT, "max_tokens": 40, "temperature": 0, **PLACE}
CHAT = {
    "model": f"openai/{model}",
    "messages": [{"role": "user", "content": PROMPT}],
    "max_tokens": 40,
    "temperature": 0,
    **PLACE,
}


def refused(ask, asked, **fields):
    """What litellm makes of a refusal."""
    try:
        ask(**{**asked, **fields})
    except (litellm.exceptions.APIError, litellm.exceptions.BadRequestError, litellm.exceptions.NotFoundError) as error:
        return type(error).__name__
    return None


def too_long(length):
    """And of a prompt that is too long, in both of its forms."""
    messages = [{"role": "user", "content": "a" * length}]
    return [
        refused(litellm.text_completion, COMPLETION, prompt="a" * length),
        refused(litellm.completion, CHAT, messages=messages),
        refused(litellm.completion, CHAT, messages=messages, stream=True),
    ]


async def concurrent():
    """Several at once."""
    answers = await asyncio.gather(*(litellm.acompletion(**CHAT) for _ in range(3)))
    return [answer.choices[0].message.content for answer in answers]


whole = litellm.completion(**CHAT)
print(
    json.dumps(
        {
            "completion": litellm.text_completion(**COMPLETION).choices[0].text,
            "completion_streamed": "".join(
                chunk.choices[0].text or "" for chunk in litellm.text_completion(**COMPLETION, stream=True)
            ),
            "chat": whole.choices[0].message.content,
            "usage": whole.usage.model_dump(include={"prompt_tokens", "completion_tokens"}),
            "chat_streamed": "".join(
                chunk.choices[0].delta.content or "" for chunk in litellm.completion(**CHAT, stream=True)
            ),
            "concurrent": asyncio.run(concurrent()),
            "refused": refused(litellm.completion, CHAT, model="openai/nobody"),
            "more_tokens": too_long(40_000),
            "more_characters": too_long(100_001),
        }
    )
)
