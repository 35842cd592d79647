"""The kernel, built if it is not."""

from collections.abc import Iterator

import pytest

from functions.llm.native import build
from functions.llm.native.library import Kernel, load_kernel


@pytest.fixture(scope="session")
def built() -> None:
    """The library of these sources stands beside them; without a compiler there is nothing to test."""
    if build.main([]) != 0:
        pytest.skip("the kernel could not be built")


@pytest.fixture
def kernel(built: None) -> Iterator[Kernel]:
    """The kernel in use, whose settings are as before afterwards."""
    loaded = load_kernel()
    chosen, threads = loaded.instruction_set, loaded.threads
    yield loaded
    loaded.use_instruction_set(chosen)
    loaded.use_threads(threads)
