"""The overhead of a token is what streaming takes more than drawing, in the same round."""

import json
import os
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from benchmarks.costless import CostlessModel, CostlessPrograms
from benchmarks.token_overhead import Cost, OverheadReport, _processor_s
from functions.llm.checkpoints.checkpoint import load_checkpoint
from functions.llm.inference.batch import generate
from functions.llm.inference.generation import Done, Generation, GenerationRequest
from functions.llm.inference.sampling import SamplingOptions

BUNDLED = Path(__file__).parents[2] / "ckpts" / "muninn-char"


def report() -> OverheadReport:
    """Two rounds; the machine was slower in the second, for both."""
    return OverheadReport(
        direct={"muninn-char": {1: [Cost(100, 100), Cost(200, 200)]}},
        streamed={"muninn-char": {1: [Cost(108, 120), Cost(212, 240)]}},
    )


def test_overheads_are_taken_round_by_round():
    """8 and 12 microseconds, though the medians alone would say the same of slower and faster rounds mixed."""
    assert report().overheads("muninn-char", 1) == [8, 12]
    assert "| muninn-char | 1 | 150 | 160 | 10.0 | 8.00 to 12.0 | 180 |" in report().as_text()


def test_all_forms_are_there():
    """JSON has every round; what noise made negative is nothing in the picture."""
    (case,) = json.loads(json.dumps(report().as_json()))["cases"]
    assert case["overheads_us"] == [8, 12]
    faster = OverheadReport(direct={"m": {1: [Cost(9, 9)]}}, streamed={"m": {1: [Cost(8, 8)]}})
    (bar,) = (e for e in ET.fromstring(faster.as_svg()).iter() if e.get("class") == "bar")
    assert float(bar.get("width", "")) == 0


def test_a_processor_s_time_is_read_from_the_system():
    """What this process burns is seen; where there is no /proc it is not a number."""
    before, until = _processor_s(os.getpid()), time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert _processor_s(os.getpid()) - before == pytest.approx(0.1, abs=0.05)
    assert np.isnan(_processor_s(2**22 + 1))


def test_a_model_that_costs_nothing_answers_like_any_other():
    """As many tokens as were asked for, so what the engine does around them is what it always does."""
    model = CostlessModel.of(load_checkpoint(BUNDLED))
    assert isinstance(model.programs, CostlessPrograms)
    request = GenerationRequest(prompt=(1,) * 40, max_tokens=50, sampling=SamplingOptions(), seed=0, ignore_eos=True)
    events = [event for made in generate(Generation(model, request)) for event in made]
    assert len(events) == 51
    assert isinstance(events[-1], Done)
