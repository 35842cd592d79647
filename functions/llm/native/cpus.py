"""How many CPUs this process may really use."""

import os
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def available_cpus(cgroup_limit: Path = CGROUP_LIMIT) -> int:
    """Return how many CPUs the affinity mask and a container's quota leave: at least 1.

    A thread that spins on a CPU of a quota of one takes it from the thread that it waits for.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cgroup_limit.read_text("ascii").split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, int(quota) // int(period)))
