"""How many threads are worth starting."""

import os

from functions.llm.native.cpus import available_cpus


def test_a_quota_counts_as_so_many_cpus(tmp_path):
    """A container's share of the CPUs, where it has one."""
    limit = tmp_path / "cpu.max"
    free = available_cpus(tmp_path / "missing")
    assert 1 <= free <= (os.cpu_count() or 1)
    for text, expected in {
        "max 100000\n": free,
        "100000 100000\n": 1,
        "50000 100000\n": 1,
        "6400000 100000\n": free,
        "nonsense\n": free,
    }.items():
        limit.write_text(text, "ascii")
        assert available_cpus(limit) == expected
