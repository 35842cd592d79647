"""What reads the first token of a server that has just been started, and how large the models are."""

import math
import socket
import threading

import jax
import pytest

from benchmarks.cold_start import LARGE, NotReadyError, _first_of_body
from benchmarks.cold_start_files import _rwkv_shapes
from functions.llm.models import MinGRU, MinGRUConfig

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def first_of(*pieces: bytes) -> str:
    """The first chunk of a body that comes in ``pieces``, after which the connection ends."""
    server, client = socket.socketpair()

    def send():
        with server:
            for piece in pieces:
                server.sendall(piece)

    sender = threading.Thread(target=send)
    with client:
        sender.start()
        try:
            return _first_of_body(client)
        finally:
            sender.join()


def test_the_first_chunk_is_read_however_it_is_cut():
    """Byte by byte, or all at once with what follows."""
    whole = HEAD + "2\r\né\r\n1\r\nx\r\n0\r\n\r\n".encode()
    assert first_of(whole) == first_of(*(whole[n : n + 1] for n in range(len(whole)))) == "é"


def test_a_refusal_is_not_a_token():
    """A contender that fails quickly has not won."""
    with pytest.raises(RuntimeError, match="500 Internal Server Error") as refused:
        first_of(b"HTTP/1.1 500 Internal Server Error\r\n\r\n{}")
    assert not isinstance(refused.value, NotReadyError)


def test_a_server_that_still_loads_is_told_apart():
    """It is asked again."""
    with pytest.raises(NotReadyError, match="503 Service Unavailable"):
        first_of(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}")


def test_a_connection_that_ends_early_is_not_a_token():
    """Nor one that ends."""
    with pytest.raises(RuntimeError, match="ended before the first token"):
        first_of(HEAD, b"2\r\n")


@pytest.mark.parametrize("sizes", [LARGE, {"vocab_size": 65, "width": 192, "hidden": 384, "layers": 4}])
def test_the_other_architecture_is_as_large(sizes):
    """Within the 1% that the table claims."""
    config = MinGRUConfig(dropout=0.0, **sizes)
    params = jax.eval_shape(lambda key: MinGRU.init_params(config, key), jax.random.key(0))
    ours = sum(array.size for array in jax.tree.leaves(params))
    theirs = sum(math.prod(shape) for _, shape in _rwkv_shapes(config.vocab_size, config.width, config.layers))
    assert theirs == pytest.approx(ours, rel=0.01)
