"""Contenders that take turns, each in a process of its own so that no thread pool meets another's."""

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

# A contender's module-level function: it prepares, then yields the figure of one turn each time it is resumed.
Contender = Callable[..., Iterator[Any]]


def take_turns(contenders: Mapping[str, tuple[Contender, tuple[Any, ...]]], rounds: int) -> dict[str, list[Any]]:
    """Return each contender's figures, one a round: A B C A B C ..., while the others wait."""
    found: dict[str, list[Any]] = {name: [] for name in contenders}
    with ExitStack() as stack:
        turns = {name: stack.enter_context(_worker(make, args)) for name, (make, args) in contenders.items()}
        for round_number in range(rounds):
            for name, turn in turns.items():
                found[name].append(turn())
                print(f"round {round_number + 1}/{rounds}  {name}: {found[name][-1]}", file=sys.stderr)
    return found


@contextmanager
def _worker(make: Contender, args: tuple[Any, ...]) -> Iterator[Callable[[], Any]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(make, args, theirs), daemon=True)
    process.start()
    theirs.close()

    def turn() -> Any:
        ours.send("turn")
        return ours.recv()

    try:
        ours.recv()  # prepared
        yield turn
    finally:
        ours.close()
        process.join(timeout=10)
        process.kill()


def _serve(make: Contender, args: tuple[Any, ...], connection: Connection) -> None:
    figures = make(*args)
    next(figures)
    connection.send("prepared")
    try:
        while connection.recv():
            connection.send(next(figures))
    except EOFError:
        return
