"""Kept logs of a run, and an AWS on this machine."""

import json
from collections.abc import Iterator

import pytest

from local.logs.kept_log import KeptLog, logs_folder
from tests.local.deploy.conftest import aws, moto_url, no_aws_of_the_user  # noqa: F401 - fixtures

LINES = [
    {"time": f"2026-11-23T02:00:0{second}.000Z", "tier": tier, "level": "info", "request_id": request, **fields}
    for second, tier, request, fields in (
        (3, "frontend", "raven-1", {"event": "request", "method": "POST", "path": "/api/llm/stream", "status": 200}),
        (1, "llm", "raven-1", {"event": "request", "method": "POST", "path": "/generate/stream", "status": 200}),
        (2, "backend", "raven-1", {"event": "request", "method": "POST", "path": "/api/llm/stream", "status": 200}),
        (4, "llm", "raven-2", {"message": "another"}),
    )
]


@pytest.fixture
def lines() -> list[dict]:
    """One request through three tiers, not in order, and another."""
    return LINES


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Iterator[list[dict]]:
    """Those lines, of a `huginn up` that runs, in a state folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = logs_folder({"XDG_STATE_HOME": str(tmp_path)})
    with KeptLog(folder) as log:
        for line in LINES:
            log.write(json.dumps(line))
        log.write("no JSON at all")
        yield LINES
