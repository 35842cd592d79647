"""Random small models of every family, and strict arithmetic."""

from collections.abc import Iterator

import jax
import pytest

from functions.llm.models import FAMILIES, LSTMConfig, MinGRUConfig, RecurrentLM

SMALL = {
    "lstm": LSTMConfig(vocab_size=11, emb=6, hid=8, layers=2),
    "mingru": MinGRUConfig(vocab_size=11, width=8, hidden=12, layers=2, conv=3, mlp=2),
}


@pytest.fixture(autouse=True)
def _no_silent_promotion() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(params=sorted(FAMILIES), scope="session")
def model(request: pytest.FixtureRequest) -> RecurrentLM:
    """One of each family; a family without a small configuration here fails."""
    family = FAMILIES[request.param]
    return family(SMALL[request.param], family.init_params(SMALL[request.param], jax.random.key(3)))
