"""What reads the first token of a server that has just been started."""

import socket
import threading

import pytest

from benchmarks.cold_start import _first_of_body

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
    with pytest.raises(RuntimeError, match="503 Service Unavailable"):
        first_of(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}")


def test_a_connection_that_ends_early_is_not_a_token():
    """Nor one that ends."""
    with pytest.raises(RuntimeError, match="ended before the first token"):
        first_of(HEAD, b"2\r\n")
