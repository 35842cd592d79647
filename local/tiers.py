"""The three tiers as they run on one machine: what each one is, and what its environment says there."""

from dataclasses import dataclass
from pathlib import Path

from functions.backend.settings import is_loopback
from local.ports import Ports


@dataclass(frozen=True)
class Tier:
    """One function, served by uvicorn."""

    name: str  # as in `functions.<name>.handler:app`
    listener: str  # its field in Ports


LLM = Tier("llm", "llm")
BACKEND = Tier("backend", "api")
FRONTEND = Tier("frontend", "page")
# The order of a token's way to the reader: who is asked comes before who asks.
TIERS = (LLM, BACKEND, FRONTEND)
# What uvicorn speaks, for its `--http`: as in the Dockerfiles.
HTTP_PROTOCOL = "functions.server.timed_http:TimedHttpProtocol"


def base_url(host: str, port: int) -> str:
    """Give the address at which somebody on this machine reaches `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def inner_host(host: str) -> str:
    """Give the address on which the model and its metrics listen, who ask nobody for a key: never one of a network."""
    return host if is_loopback(host) else "127.0.0.1"


def tier_environment(host: str, ports: Ports, checkpoint: Path) -> dict[str, str]:
    """Give the variables with which the tiers find each other, their model and where their metrics are."""
    return {
        "LLM_URL": base_url(inner_host(host), ports.llm) + "/generate/stream",
        "BACKEND_URL": base_url(host, ports.api),
        "METRICS_HOST": inner_host(host),
        "METRICS_PORT": str(ports.metrics),
        "CKPT_PATH": str(checkpoint),
    }
