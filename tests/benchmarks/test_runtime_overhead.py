"""The overhead of the runtime is what it takes more than uvicorn, in the same round, as one reader sees both."""

import json
import xml.etree.ElementTree as ET
from contextlib import closing

import pytest

from benchmarks import runtime_overhead
from benchmarks.chunks_app import CHUNK
from benchmarks.runtime_overhead import RUNTIME, UVICORN, RuntimeReport, Turn, by_runtime, by_uvicorn
from benchmarks.runtime_peer import Record


def test_overheads_are_taken_round_by_round():
    """A machine that is slower for both in one round changes nothing."""
    report = RuntimeReport(
        {UVICORN: [Turn(200, 100, 6), Turn(400, 200, 12)], RUNTIME: [Turn(300, 90, 7), Turn(520, 230, 15)]}
    )
    assert report.overheads("first") == [100, 120]
    assert report.overheads("delay") == [-10, 30]
    assert "| overhead | 110 | 100 to 120 | 10.0 | -10.0 to 30.0 | 2.00 | 1.00 to 3.00 |" in report.as_text()
    assert json.loads(json.dumps(report.as_json()))["overheads_us"]["burst"] == [1, 3]
    assert sum(element.get("class") == "bar" for element in ET.fromstring(report.as_svg()).iter()) == 6


def test_every_chunk_is_found_however_it_is_read():
    """One that came in two reads came with the second; the framing around them is neither counted nor needed."""
    wire = b"".join(b"%x\r\n%b\r\n" % (len(CHUNK % 0), CHUNK % sent) for sent in range(1, 4))
    for cut in range(len(wire)):
        record = Record(0, [(10, wire[:cut]), (20, wire[cut:])])
        sent, came = zip(*record.chunks(), strict=True)
        assert sent == (1, 2, 3)
        assert list(came) == sorted(came)


@pytest.mark.parametrize("contender", [by_uvicorn, by_runtime])
def test_a_turn_of_each(contender, monkeypatch):
    """Both serve the app to the end, and each figure is a time."""
    for name, value in {"FIRSTS": 2, "PACED": 3, "BURST": 50}.items():
        monkeypatch.setattr(runtime_overhead, name, value)
    with closing(contender()) as turns:
        assert next(turns) is None
        turn = next(turns)
    assert all(0 < figure < 10_000_000 for figure in (turn.first, turn.delay, turn.burst))
