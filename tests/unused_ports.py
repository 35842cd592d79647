"""Ports that nobody listens on, for those who have to be told one before they bind it."""

import itertools
import os
import socket

# Below those that Linux (from 32768) and others (from 49152) give to whoever asks for any. One of theirs, once let go
# of, is soon given to a connection of another test. Above what browsers refuse to open.
_FIRST, _LAST = 12_000, 32_000
# Processes that run at the same time have numbers near each other, and begin far from each other.
_STRIDE = 200
_ports = itertools.count(os.getpid() * _STRIDE)


def unused_port() -> int:
    """A port of the loopback that is nobody's, and that no test of this process is given soon again."""
    for place in _ports:
        port = _FIRST + place % (_LAST - _FIRST)
        with socket.socket() as probe:
            try:
                # On all addresses: some servers take them all.
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("the count has no end")


def unused_address() -> str:
    """An address where nobody answers."""
    return f"http://127.0.0.1:{unused_port()}"
