"""Whether the model answers, and whether its tokens come one after the other or all together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.llm_function import Chunk, LlmError, LlmFunction

NAMESPACE = "Huginn/Canary"

# Several chunks of any engine's, at a price of milliseconds. A small model is through with them so soon that a client
# may read them all at once: then a text is asked for that takes it long enough, too.
LENGTHS = (96, 1536)

# What was collected on the way is read within microseconds; what was generated meanwhile takes longer.
APART_S = 0.001

TOGETHER = "The pieces came at the same time."


@dataclass(frozen=True)
class Observation:
    """What one visit has shown.

    Args:
        streamed: whether the text came in pieces, apart in time; None if there was no place free to find out.
        first_chunk_ms: from the request to the first piece; None if there was none.
        chunks: how many pieces.
        problem: what was wrong, in words; empty if nothing was.
    """

    streamed: bool | None
    first_chunk_ms: float | None
    chunks: int
    problem: str = ""


def observe(function: LlmFunction) -> Observation:
    """Give what the function does when it is asked for a text."""
    for length in LENGTHS:
        observation = _observe(function, length)
        if observation.problem != TOGETHER:
            break
    return observation


def _observe(function: LlmFunction, length: int) -> Observation:
    # The prompt is a token's id, for who knows what characters a vocabulary has.
    request = {"prompt": [0], "max_tokens": length, "temperature": 0, "ignore_eos": True}
    chunks: list[Chunk] = []
    try:
        chunks.extend(function.stream(request))
    except LlmError as error:
        # Busy is not broken: LlmThrottles tells of it.
        streamed = None if error.code == "throttled" else False
        return Observation(streamed, chunks[0].at_s * 1000 if chunks else None, len(chunks), f"{error.code}: {error}")
    return judge(chunks)


def judge(chunks: Sequence[Chunk]) -> Observation:
    """Say whether pieces that came at these times were streamed."""
    if not chunks:
        return Observation(False, None, 0, "The answer is empty.")
    first_ms = chunks[0].at_s * 1000
    if len(chunks) == 1:
        return Observation(False, first_ms, 1, "The text came in one piece.")
    if chunks[-1].at_s - chunks[0].at_s < APART_S:
        return Observation(False, first_ms, len(chunks), TOGETHER)
    return Observation(True, first_ms, len(chunks))


def metric_line(observation: Observation, function_name: str, epoch_ms: int) -> str:
    """Give the log line that CloudWatch takes metrics from (the embedded metric format).

    So the canary needs no permission to write metrics, which AWS knows for all namespaces together only.
    """
    values: Mapping[str, Any] = {
        "Function": function_name,
        "Chunks": observation.chunks,
        "Problem": observation.problem,
    }
    metrics = []
    if observation.streamed is not None:
        metrics.append({"Name": "Streamed", "Unit": "None"})
        values = {**values, "Streamed": int(observation.streamed)}
    if observation.first_chunk_ms is not None:
        metrics.append({"Name": "FirstChunkMs", "Unit": "Milliseconds"})
        values = {**values, "FirstChunkMs": round(observation.first_chunk_ms, 3)}
    directive = {"Namespace": NAMESPACE, "Dimensions": [["Function"]], "Metrics": metrics}
    directives = [directive] if metrics else []
    return json.dumps({"_aws": {"Timestamp": epoch_ms, "CloudWatchMetrics": directives}, **values})
