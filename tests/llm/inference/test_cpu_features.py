"""What a processor has, and what a program asks for."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.serialize_executable import serialize

from functions.llm.inference.cpu_features import cpu_features, required_features


def listed(*features: str) -> bytes:
    """The list in an executable, between other things."""
    return b"\x7fELF..\x1a\x12" + ",".join(["+64bit", *features]).encode() + b"R\x01e-m:e"


def test_this_machine_runs_what_it_compiles():
    """The two sides of the comparison speak of the same things, whatever the machine."""
    compiled = jax.jit(lambda x, w: jnp.tanh(x @ w)).lower(np.ones((4, 8), np.float32), np.ones((8, 8), np.float32))
    assert required_features(serialize(compiled.compile())[0]) <= cpu_features()


def test_nothing_is_had_that_nobody_vouches_for():
    """A feature that numpy does not know of is missing; what every x86-64 has is there."""
    assert cpu_features({}) == {"64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2"}
    assert {"avx2", "fma", "sse4.1"} <= cpu_features({"AVX2": True, "FMA3": True, "SSE41": True, "AVX512F": False})
    assert "avx512f" not in cpu_features({"AVX2": True, "AVX512F": False})


def test_all_that_is_allowed_is_required_but_for_what_cannot_be_there():
    """Of cryptography, tuning and the like nothing is; a feature that nobody has heard of is."""
    found = required_features(listed("+avx2", "+sha", "+vaes", "+prefer-no-gather", "+novelty", "-avx512f", "+sse2"))
    assert found == {"avx2", "novelty"}


def test_an_executable_of_two_minds_needs_both():
    """Each of its modules has a list."""
    assert required_features(listed("+avx2", "-avx512f") + listed("+avx512f")) == {"avx2", "avx512f"}


@pytest.mark.parametrize(
    ("feature", "instruction"),
    [
        ("gfni", "660f3ace c10a"),  # gf2p8affineqb xmm0, xmm1, 10
        ("gfni", "66450f38cf c1"),  # gf2p8mulb xmm8, xmm9
        ("gfni", "c4e3f1ce c20a"),  # vgf2p8affineqb xmm0, xmm1, xmm2, 10
        ("gfni", "62f3f548ce c20a"),  # vgf2p8affineqb zmm0, zmm1, zmm2, 10
        ("sse4a", "f20f2b07"),  # movntsd [rdi], xmm0
        ("sse4a", "660f79c1"),  # extrq xmm0, xmm1
        ("sse4a", "f2450f79c1"),  # insertq xmm8, xmm9
        ("avxvnni", "c4e27150 c2"),  # vpdpbusd xmm0, xmm1, xmm2, without AVX-512
    ],
)
def test_what_is_seldom_used_is_required_where_it_is_used(feature, instruction):
    """Whoever compiles on a processor that has it may still make a program for one that does not."""
    code = bytes.fromhex(instruction)
    assert required_features(listed("+avx2", f"+{feature}")) == {"avx2"}
    assert required_features(listed("+avx2", f"+{feature}") + code) == {"avx2", feature}
    assert required_features(listed("+avx2", f"-{feature}") + code) == {"avx2"}


def test_bytes_that_only_look_like_code_are_rare():
    """Else every program would seem to need everything."""
    found = [required_features(listed("+gfni", "+sse4a", "+avxvnni") + os.urandom(1000)) for _ in range(200)]
    assert sum(map(bool, found)) <= 10


def test_what_does_not_say_what_it_is_for_is_refused():
    """As of another architecture."""
    with pytest.raises(ValueError, match="which processor"):
        required_features(b"+neon,+sve")
