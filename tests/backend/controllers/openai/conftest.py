"""What a scripted model service says to those who ask in OpenAI's way."""

import json

import openai
import pytest


def frames(*tokens, reason="length", prompt=3, cached=0, model="muninn-char", seed=0, done=True):
    """Give the stream of some tokens: texts, or whole events."""
    events = []
    for place, token in enumerate(tokens):
        event = {"i": prompt + place, "id": place, "text": token} if isinstance(token, str) else token
        events.append(("token", event))
    generated = sum(event["i"] >= prompt for _, event in events)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "cached_prompt_tokens": cached,
        "cpu_seconds": 0.5,
    }
    if done:
        events.append(("done", {"finish_reason": reason, "usage": usage, "seed": seed, "model": model}))
    return b"".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode() for kind, data in events)


def says(*tokens, **how):
    """Give a service that answers everybody with these tokens."""

    async def script(exchange):
        await exchange.answer(frames(*tokens, **how))

    return script


@pytest.fixture
def sdk(backend):
    """OpenAI's own client of the backend, which tries once."""
    with openai.OpenAI(base_url=f"{backend.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client
