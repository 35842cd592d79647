"""GET /status tells what the metrics tell."""

import asyncio
from itertools import pairwise

import httpx

from functions.llm.app import build_app
from functions.llm.settings import Settings


def status_of(service):
    response = service.http.get("/status")
    assert response.status_code == 200
    return response.json()


def test_what_is_generated_stands_in_the_status(service):
    """Differences between two looks are what was done in between."""
    prompt = "a raven looks on, " * 20
    before = status_of(service)
    for _ in range(3):
        service.http.post("/generate", json={"prompt": prompt, "max_tokens": 9, "ignore_eos": True, "seed": 1})
    service.http.post("/generate", json={"prompt": ""})
    service.wait_for("huginn_llm_requests_total", before["llm"]["requests"]["length"] + 3, outcome="length")
    after = status_of(service)
    done = {"tokens_generated": 27, "prompt_tokens": 3 * len(prompt), "cache_hits": 2, "cache_misses": 1}
    assert {name: after["llm"][name] - before["llm"][name] for name in done} == done
    # The second and the third prompt were read before, but for their last pieces.
    assert 0 < after["llm"]["cached_prompt_tokens"] - before["llm"]["cached_prompt_tokens"] < 2 * len(prompt)
    requests = {
        outcome: count - before["llm"]["requests"].get(outcome, 0)
        for outcome, count in after["llm"]["requests"].items()
    }
    assert {outcome: count for outcome, count in requests.items() if count} == {"length": 3, "invalid_prompt": 1}
    assert after["instance"] == before["instance"]
    assert "tiny-char" in after["models"]
    assert after["llm"]["cpu_seconds"] > before["llm"]["cpu_seconds"]
    assert after["time"] > before["time"]
    assert after["uptime_s"] > before["uptime_s"]


def test_a_histogram_counts_upwards_to_all_there_were(service):
    """Every first token is in the first one, every later one in the other; the bounds ascend."""
    service.http.post("/generate", json={"prompt": "a", "max_tokens": 5, "ignore_eos": True})
    llm = status_of(service)["llm"]
    first, later = llm["time_to_first_token_s"], llm["inter_token_s"]
    for histogram in (first, later):
        assert len(histogram["counts"]) == len(histogram["bounds"]) + 1
        assert all(low <= high for low, high in pairwise(histogram["counts"]))
        assert all(low < high for low, high in pairwise(histogram["bounds"]))
        assert histogram["sum"] > 0
    assert first["counts"][-1] + later["counts"][-1] == llm["tokens_generated"]


def test_the_limits_are_those_of_the_settings():
    """And so is what a CPU is taken to draw."""
    settings = Settings(metrics_port=0, max_active=3, max_queue=5, watts_per_cpu=12.5)
    llm = asyncio.run(ask(settings)).json()["llm"]
    assert (llm["slots"], llm["max_queue"], llm["watts_per_cpu"]) == (3, 5, 12.5)


def test_on_lambda_there_is_none():
    """The next answer would be another instance's."""
    assert asyncio.run(ask(Settings(metrics_port=0, lambda_name="llm"))).status_code == 404


async def ask(settings):
    transport = httpx.ASGITransport(build_app(settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://llm") as http:
        return await http.get("/status")
