"""What a request took, as OpenAI counts it."""

from collections.abc import Iterable

from typing_extensions import TypedDict

from functions.backend.domain.events import Usage


class PromptTokensDetails(TypedDict):
    """Of the prompt's tokens."""

    cached_tokens: int


class OpenAIUsage(TypedDict):
    """How many tokens went in and came out, of all texts that were made."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


def openai_usage(usages: Iterable[Usage], made: int, *, generated: bool = True) -> OpenAIUsage:
    """Add up what the texts took; of `made` texts in a row the prompt is the same, and counts once."""
    usages = tuple(usages)
    prompt = sum(usage.prompt_tokens for usage in usages[::made])
    completion = sum(usage.completion_tokens for usage in usages) if generated else 0
    cached = sum(usage.cached_prompt_tokens for usage in usages[::made])
    return OpenAIUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
    )
