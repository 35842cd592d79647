"""OpenAI's Python library, second and third version: prints what it has seen of an API at an address, as JSON."""

import asyncio
import json
import sys

import openai

url, model = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
PROMPT = "ROMEO:"
GREEDY = {"model": model, "max_tokens": 40, "temperature": 0}


def refused(call, **arguments):
    """What the library makes of a refusal."""
    try:
        call(**arguments)
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "type": error.type,
            "request_id": bool(error.request_id),
        }
    return None


def streamed(**arguments):
    """The texts by index, why they ended, and the usage."""
    texts, ends, usage, chunks = {}, {}, None, 0
    with client.completions.create(stream=True, stream_options={"include_usage": True}, **arguments) as stream:
        for chunk in stream:
            chunks += 1
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + choice.text
                ends[choice.index] = choice.finish_reason or ends.get(choice.index)
    return {"texts": texts, "ends": ends, "usage": usage.model_dump(), "chunks": chunks}


async def concurrent():
    """Several at once, with the library's other half."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as other:
        answers = await asyncio.gather(*(other.completions.create(prompt=PROMPT, **GREEDY) for _ in range(4)))
        stream = await other.completions.create(prompt=PROMPT, stream=True, **GREEDY)
        return [answer.choices[0].text for answer in answers], "".join([c.choices[0].text async for c in stream])


CHAT = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "temperature": 0}


def chat_streamed():
    """The text, its scored tokens, why it ended, and the usage."""
    text, tokens, end, usage = "", [], None, None
    asked = {**CHAT, "max_completion_tokens": 40, "logprobs": True, "top_logprobs": 2}
    for chunk in client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **asked):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            tokens += choice.logprobs.content if choice.logprobs else []
            end = choice.finish_reason or end
    scored = [(bytes(token.bytes).decode(), len(token.top_logprobs)) for token in tokens]
    return {"text": text, "scored": scored, "end": end, "usage": usage.model_dump()}


def chat_accumulated():
    """What the library's own helper makes of a stream that ends by itself."""
    with client.chat.completions.stream(max_completion_tokens=400, stop="\n", **CHAT) as stream:
        stream.until_done()
        return stream.get_final_completion().choices[0].message.content


def left_in_the_middle():
    """A reader who leaves is rid of the stream at once."""
    with client.completions.create(prompt=PROMPT, stream=True, **{**GREEDY, "max_tokens": 4096}) as stream:
        return next(iter(stream)).choices[0].text


raw = client.completions.with_raw_response.create(
    prompt=PROMPT, extra_headers={"x-request-id": "from-a-client"}, **GREEDY
)
whole = raw.parse()
many = client.completions.create(prompt=["ROMEO:", "JULIET:"], n=2, **GREEDY)
seeded = {"model": model, "prompt": PROMPT, "max_tokens": 40, "temperature": 1, "seed": 7}
print(
    json.dumps(
        {
            "version": openai.__version__,
            "models": [each.id for each in client.models.list()],
            "model": client.models.retrieve(model).model_dump(),
            "whole": whole.model_dump(),
            "request_id": raw.headers["x-request-id"],
            "streamed": streamed(prompt=PROMPT, **GREEDY),
            "streamed_many": streamed(prompt=["ROMEO:", "JULIET:"], n=2, **GREEDY),
            "many": [(choice.index, choice.text) for choice in many.choices],
            "seeded": [client.completions.create(**seeded).choices[0].text for _ in range(2)],
            "stopped": client.completions.create(
                prompt=PROMPT, stop=["\n\n"], **{**GREEDY, "max_tokens": 400}
            ).model_dump(),
            "echoed": client.completions.create(
                prompt=PROMPT, echo=True, logprobs=3, **{**GREEDY, "max_tokens": 0}
            ).model_dump(),
            "chat": client.chat.completions.create(max_completion_tokens=40, n=2, **CHAT).model_dump(),
            "chat_streamed": chat_streamed(),
            "chat_accumulated": chat_accumulated(),
            "concurrent": asyncio.run(concurrent()),
            "left": left_in_the_middle(),
            "refused": {
                "model": refused(client.completions.create, model="nobody", prompt=PROMPT),
                "retrieve": refused(client.models.retrieve, model="nobody"),
                "suffix": refused(client.completions.create, prompt=PROMPT, suffix="!", **GREEDY),
                "temperature": refused(client.completions.create, model=model, prompt=PROMPT, temperature=-1),
                "image": refused(
                    client.chat.completions.create,
                    model=model,
                    messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
                ),
                "responses": refused(client.responses.create, model=model, input=PROMPT),
                "embeddings": refused(client.embeddings.create, model=model, input="a"),
            },
        }
    )
)
