"""Whether the model answers, and whether its tokens come one after the other or all together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.llm_function import Chunk, LlmError, LlmFunction

NAMESPACE = "Huginn/Canary"

# Long enough for several chunks of any engine's, at a price of a few milliseconds.
REQUEST = {"prompt": "The raven said: ", "max_tokens": 96, "temperature": 0, "ignore_eos": True}

# What was collected on the way arrives within microseconds of each other; what was generated takes longer.
APART_S = 0.001


@dataclass(frozen=True)
class Observation:
    """What one visit has shown.

    Args:
        streamed: whether the text came in pieces, apart in time.
        first_chunk_ms: from the request to the first piece; None if there was none.
        chunks: how many pieces.
        problem: what was wrong, in words; empty if nothing was.
    """

    streamed: bool
    first_chunk_ms: float | None
    chunks: int
    problem: str = ""


def observe(function: LlmFunction) -> Observation:
    """Give what the function does when it is asked for a text."""
    chunks: list[Chunk] = []
    try:
        chunks.extend(function.stream(REQUEST))
    except LlmError as error:
        return Observation(False, chunks[0].at_s * 1000 if chunks else None, len(chunks), f"{error.code}: {error}")
    return judge(chunks)


def judge(chunks: Sequence[Chunk]) -> Observation:
    """Say whether pieces that came at these times were streamed."""
    if not chunks:
        return Observation(False, None, 0, "The answer is empty.")
    first_ms = chunks[0].at_s * 1000
    if len(chunks) == 1:
        return Observation(False, first_ms, 1, "The text came in one piece.")
    if chunks[-1].at_s - chunks[0].at_s < APART_S:
        return Observation(False, first_ms, len(chunks), "The pieces came at the same time.")
    return Observation(True, first_ms, len(chunks))


def metric_line(observation: Observation, function_name: str, epoch_ms: int) -> str:
    """Give the log line that CloudWatch takes metrics from (the embedded metric format).

    So the canary needs no permission to write metrics, which AWS knows for all namespaces together only.
    """
    values: Mapping[str, Any] = {
        "Function": function_name,
        "Streamed": int(observation.streamed),
        "Chunks": observation.chunks,
        "Problem": observation.problem,
    }
    metrics = [{"Name": "Streamed", "Unit": "None"}]
    if observation.first_chunk_ms is not None:
        metrics.append({"Name": "FirstChunkMs", "Unit": "Milliseconds"})
        values = {**values, "FirstChunkMs": round(observation.first_chunk_ms, 3)}
    directive = {"Namespace": NAMESPACE, "Dimensions": [["Function"]], "Metrics": metrics}
    return json.dumps({"_aws": {"Timestamp": epoch_ms, "CloudWatchMetrics": [directive]}, **values})
