"""Strict arithmetic."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def _no_silent_promotion() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield
