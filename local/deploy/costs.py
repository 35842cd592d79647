"""What a deployment costs per month while nobody calls it, and per million tokens."""

from collections.abc import Mapping
from dataclasses import dataclass

from functions.backend.domain.account import RENEW_EVERY_S
from local.deploy import prices

SECONDS_PER_MONTH = 730 * 3600
MB_PER_GB = 1024
BYTES_PER_GB = 2**30

# Lambda polls a queue that nobody writes to by five readers, each of which waits twenty seconds for a message.
QUEUE_POLLS_PER_MONTH = 5 * SECONDS_PER_MONTH // 20
# What Lambda does not charge for in one response.
FREE_STREAM_BYTES = 6 * 2**20


@dataclass(frozen=True)
class Deployment:
    """What a stack holds, as far as it costs something: a size in MB is that of a function's memory."""

    llm_mb: int
    backend_mb: int
    canary_mb: int
    canary_runs_per_month: float
    alarms: int
    metrics: int
    queues: int
    snapshots: int
    image_bytes: int
    stored_bytes: int
    secrets: int = 0
    tables: int = 0

    def __post_init__(self) -> None:
        """Refuse what no deployment can be."""
        if min(self.llm_mb, self.backend_mb, self.canary_mb) <= 0:
            raise ValueError("a function's memory is more than nothing")
        if min(self.canary_runs_per_month, self.alarms, self.metrics, self.queues, self.snapshots) < 0:
            raise ValueError("nothing can be there less than not at all")


@dataclass(frozen=True)
class Traffic:
    """How the tokens are asked for. The rate is that of one text: an execution environment writes one at a time."""

    tokens_per_s: float
    tokens_per_request: float = 256
    # From the request to the first token, on an environment that is there: two functions, two signatures.
    overhead_s: float = 0.05
    # A token event with its framing; plain text takes a sixtieth of it.
    bytes_per_token: float = 90
    # Lambda's three lines of report, and the metrics, of both functions.
    log_bytes_per_request: float = 3_000
    # Requests for which a snapshot is restored, because every environment is busy or gone.
    cold_share: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what nothing can be divided by."""
        if self.tokens_per_s <= 0 or self.tokens_per_request <= 0:
            raise ValueError("tokens come at some rate, and at least one for a request")


Costs = Mapping[str, float]
"""Dollars by what they are for."""


def idle_costs(deployment: Deployment) -> Costs:
    """Give dollars per month while nobody calls: what stays, and the canary that looks after it."""
    # The canary waits while the model's function writes: both are paid for its two seconds.
    canary_s = deployment.canary_runs_per_month * 2
    canary_gb = (deployment.canary_mb + deployment.llm_mb) / MB_PER_GB
    return {
        "SnapStart's snapshots": (
            deployment.snapshots * deployment.llm_mb / MB_PER_GB * SECONDS_PER_MONTH * prices.SNAPSHOT_KEPT.usd
        ),
        "the canary": (
            canary_s * canary_gb * prices.LAMBDA_COMPUTE.usd
            + 2 * deployment.canary_runs_per_month * prices.LAMBDA_REQUEST.usd
        ),
        "alarms": deployment.alarms * prices.ALARM.usd,
        "metrics": deployment.metrics * prices.METRIC.usd,
        "secrets": deployment.secrets * prices.SECRET.usd,
        "polling the queues": deployment.queues * QUEUE_POLLS_PER_MONTH * prices.QUEUE_REQUEST.usd,
        "the image": deployment.image_bytes / BYTES_PER_GB * prices.ECR_STORED.usd,
        "checkpoints and code": deployment.stored_bytes / BYTES_PER_GB * prices.S3_STORED.usd,
    }


def costs_per_million_tokens(deployment: Deployment, traffic: Traffic) -> Costs:
    """Give dollars for a million tokens; the backend waits for, and is paid as long as, the model's function."""
    requests = 1_000_000 / traffic.tokens_per_request
    seconds = 1_000_000 / traffic.tokens_per_s + requests * traffic.overhead_s
    renewals = seconds / requests // RENEW_EVERY_S
    request_bytes = traffic.tokens_per_request * traffic.bytes_per_token
    paid_stream_bytes = 2 * requests * max(0.0, request_bytes - FREE_STREAM_BYTES)
    restored_gb = requests * traffic.cold_share * deployment.llm_mb / MB_PER_GB
    return {
        "the model's computing": seconds * deployment.llm_mb / MB_PER_GB * prices.LAMBDA_COMPUTE.usd,
        "the backend's waiting": seconds * deployment.backend_mb / MB_PER_GB * prices.LAMBDA_COMPUTE.usd,
        "requests": requests * (2 * prices.LAMBDA_REQUEST.usd + prices.CLOUDFRONT_REQUEST.usd),
        "streaming beyond 6 MB": paid_stream_bytes / BYTES_PER_GB * prices.LAMBDA_STREAMED.usd,
        "restoring snapshots": restored_gb * prices.SNAPSHOT_RESTORED.usd if deployment.snapshots else 0.0,
        "data to the readers": requests * request_bytes / BYTES_PER_GB * prices.CLOUDFRONT_OUT.usd,
        # Each request is admitted and settled, and renews its place while it runs.
        "quotas": requests * (2 + renewals) * prices.TABLE_WRITE.usd if deployment.tables else 0.0,
        "logs": requests * traffic.log_bytes_per_request / BYTES_PER_GB * prices.LOGS.usd,
    }


def total(costs: Costs) -> float:
    """Give the sum in dollars."""
    return sum(costs.values())


def table(title: str, costs: Costs) -> list[str]:
    """Give lines for a person: what costs at least a tenth of a cent, dearest first, below the sum."""
    shown = sorted(((usd, name) for name, usd in costs.items() if usd >= 0.001), reverse=True)
    rows = [(title, total(costs)), *((f"  {name}", usd) for usd, name in shown)]
    return [f"{name:<40}{f'${usd:,.3f}':>12}" for name, usd in rows]
