"""The kernel under the address and undefined-behaviour sanitizers."""

import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from functions.llm.native import build

DRIVER = Path(__file__).with_name("sanitized.cpp")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ROUNDS = 150


@pytest.mark.minutes
def test_random_shapes_read_and_write_nothing_else(built, tmp_path):
    """On every instruction set, with one thread and two, and in a forked child."""
    compiler = build.find_compiler(os.environ)
    flags = (*(flag for flag in build.FLAGS if flag != "-O3"), "-O1", "-g1", "-I", str(build.SOURCES), *SANITIZERS)
    sets = build.INSTRUCTION_SETS.get(platform.machine(), {"portable": ()})
    # The portable pass as machines have it that are neither x86 nor anything else we have intrinsics for.
    jobs = [
        (build.SOURCES / "forward.cpp", name, (f"-DHUGINN_ISA={name}", "-DHUGINN_NO_INTRINSICS", *extra))
        for name, extra in sets.items()
    ]
    jobs += [(build.SOURCES / f"{name}.cpp", name, ()) for name in ("run", "pack", "team")]
    jobs += [(DRIVER, "driver", ())]

    def compile_one(job):
        source, name, extra = job
        made = tmp_path / f"{name}.o"
        subprocess.run([compiler, *flags, *extra, "-c", source, "-o", made], check=True)
        return made

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, jobs))
    program = tmp_path / "driver"
    subprocess.run([compiler, *SANITIZERS, "-pthread", *objects, "-o", program], check=True)
    done = subprocess.run([program, str(ROUNDS)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ROUNDS} shapes\n", "")
