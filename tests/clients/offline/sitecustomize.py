"""Nothing leaves this machine: what a Python program asks of another one is refused, and noted in $HUGINN_ASKED."""

import os
import sys
from pathlib import Path

# What is asked for, among the arguments of each event that the interpreter tells of.
PLACES = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}
# The proxy that the tests name for everything else; nothing listens there.
NOWHERE = 9
HERE = {"localhost", "127.0.0.1", "::1", "", "None"}


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Let only what stays here through."""
    if event not in PLACES:
        return
    address = arguments[PLACES[event]]
    # A socket of the file system has a name instead of host and port.
    host = address[0] if isinstance(address, tuple) else "" if event == "socket.connect" else address
    host = host.decode() if isinstance(host, bytes) else str(host)
    asks_the_proxy = isinstance(address, tuple) and address[1] == NOWHERE
    if host not in HERE or asks_the_proxy:
        with Path(os.environ["HUGINN_ASKED"]).open("a", encoding="utf-8") as asked:
            asked.write(f"{event} {host}\n")
        raise ConnectionRefusedError(f"the tests are offline, and this asks for {host}")


sys.addaudithook(refuse)
