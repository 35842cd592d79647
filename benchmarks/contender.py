"""Contenders that take turns, each in a process of its own so that no thread pool meets another's."""

import multiprocessing
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

# A contender's module-level function: it prepares, then yields the figure of one turn each time it is resumed.
Contender = Callable[..., Generator[Any, None, None]]


class ContenderError(RuntimeError):
    """A contender could not take its turn; the message names it and has its traceback."""


@dataclass(frozen=True)
class _Figure:
    figure: Any


@dataclass(frozen=True)
class _Failure:
    report: str


def take_turns(contenders: Mapping[str, tuple[Contender, tuple[Any, ...]]], rounds: int) -> dict[str, list[Any]]:
    """Return each contender's figures, one a round: A B C A B C ..., while the others wait."""
    found: dict[str, list[Any]] = {name: [] for name in contenders}
    with ExitStack() as stack:
        turns = {name: stack.enter_context(_worker(name, make, args)) for name, (make, args) in contenders.items()}
        for round_number in range(rounds):
            for name, turn in turns.items():
                found[name].append(turn())
                print(f"round {round_number + 1}/{rounds}  {name}: {found[name][-1]!s:.160}", file=sys.stderr)
    return found


@contextmanager
def _worker(name: str, make: Contender, args: tuple[Any, ...]) -> Iterator[Callable[[], Any]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(make, args, theirs), daemon=True)
    process.start()
    theirs.close()

    def receive() -> Any:
        try:
            answer = ours.recv()
        except EOFError:
            raise ContenderError(f"{name}: its process has ended") from None
        if isinstance(answer, _Failure):
            raise ContenderError(f"{name}: {answer.report}")
        return answer.figure

    def turn() -> Any:
        ours.send("turn")
        return receive()

    try:
        receive()  # prepared
        yield turn
    finally:
        ours.close()
        process.join(timeout=30)
        process.kill()


def _serve(make: Contender, args: tuple[Any, ...], connection: Connection) -> None:
    try:
        # Closed at the end, and with it whatever it has opened, such as a server.
        with closing(make(*args)) as figures:
            next(figures)
            connection.send(_Figure(None))
            while connection.recv():
                connection.send(_Figure(next(figures)))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception:  # noqa: BLE001 - it travels to the parent, which raises it
        connection.send(_Failure(traceback.format_exc()))
