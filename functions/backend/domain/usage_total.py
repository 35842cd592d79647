"""What generations have used, as far as somebody pays for it."""

from dataclasses import dataclass

# AWS Lambda's price of a GB-second on x86 in us-east-1, from aws.amazon.com/lambda/pricing on 2026-11-22.
USD_PER_GB_SECOND = 0.0000166667
MB_PER_GB = 1024


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """A sum over requests; of one request, its own. Memory and dollars are an estimate: AWS's bill is what counts."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    cpu_seconds: float = 0.0
    gb_seconds: float = 0.0
    cost_usd: float = 0.0

    @property
    def tokens(self) -> int:
        """What counts against a quota."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "UsageTotal") -> "UsageTotal":
        return UsageTotal(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_prompt_tokens + other.cached_prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cpu_seconds + other.cpu_seconds,
            self.gb_seconds + other.gb_seconds,
            self.cost_usd + other.cost_usd,
        )
