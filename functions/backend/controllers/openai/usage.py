"""What a request took, as OpenAI counts it."""

from collections.abc import Iterable
from typing import NotRequired

from typing_extensions import TypedDict

from functions.backend.domain.events import Usage


class PromptTokensDetails(TypedDict):
    """Of the prompt's tokens."""

    cached_tokens: int


class OpenAIUsage(TypedDict):
    """How many tokens went in and came out, of all texts that were made, and what that took.

    Not OpenAI's: the model's CPU seconds; and, for who has a key, what the request costs, about: the model's function
    in GB-seconds, and dollars.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    cpu_seconds: float
    gb_seconds: NotRequired[float]
    cost_usd: NotRequired[float]


def openai_usage(usages: Iterable[Usage], made: int, *, generated: bool = True) -> OpenAIUsage:
    """Add up what the texts took; of `made` texts in a row the prompt is the same, and counts once."""
    usages = tuple(usages)
    prompt = sum(usage.prompt_tokens for usage in usages[::made])
    completion = sum(usage.completion_tokens for usage in usages) if generated else 0
    cached = sum(usage.cached_prompt_tokens for usage in usages[::made])
    told = OpenAIUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
        cpu_seconds=round(sum(usage.cpu_seconds for usage in usages), 6),
    )
    # Each text tells what the request had cost when it ended: the last one tells all of it.
    costs = [(usage.gb_seconds or 0.0, usage.cost_usd or 0.0) for usage in usages if usage.cost_usd is not None]
    for gb_seconds, cost_usd in sorted(costs)[-1:]:
        told["gb_seconds"], told["cost_usd"] = round(gb_seconds, 6), round(cost_usd, 12)
    return told
