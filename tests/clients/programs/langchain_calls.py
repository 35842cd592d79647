"""langchain-openai: prints what it has seen of an API at an address, as JSON."""

import asyncio
import json
import sys

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI

url, model = sys.argv[1:]
PROMPT = "ROMEO:"
PLACE = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0, "temperature": 0, "max_tokens": 40}
chat = ChatOpenAI(model=model, **PLACE)
completion = OpenAI(model=model, **PLACE)

answer = chat.invoke(PROMPT)
try:
    ChatOpenAI(model="nobody", **PLACE).invoke(PROMPT)
    refused = None
except openai.APIStatusError as error:
    refused = type(error).__name__
print(
    json.dumps(
        {
            "completion": completion.invoke(PROMPT),
            "completion_streamed": "".join(completion.stream(PROMPT)),
            "batch": completion.batch([PROMPT, "JULIET:"]),
            "generated": [each[0].text for each in completion.generate([PROMPT, "JULIET:"]).generations],
            "chat": answer.content,
            "usage": answer.usage_metadata,
            "finish_reason": answer.response_metadata["finish_reason"],
            "chat_streamed": "".join(chunk.content for chunk in chat.stream(PROMPT)),
            "chat_async": asyncio.run(chat.ainvoke([HumanMessage(PROMPT)])).content,
            "chain": (ChatPromptTemplate.from_messages([("user", "{who}:")]) | chat).invoke({"who": "ROMEO"}).content,
            "with_system": chat.invoke([SystemMessage("Speak."), HumanMessage(PROMPT)]).content,
            "with_logprobs": chat.bind(logprobs=True, top_logprobs=2).invoke(PROMPT).response_metadata["logprobs"],
            "refused": refused,
        }
    )
)
