"""Pickles read as data: a small interpreter that can build containers and nothing else.

A pickle is a program, and Python's own unpickler calls what the program names. This one has no way to call or
import: names stay names (`Name`), and what they may be applied to is decided by the functions it is given.
"""

import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field


class PickleError(ValueError):
    """The pickle is damaged, or asks for something that data does not need."""


@dataclass(frozen=True, slots=True)
class Name:
    """What a pickle calls a global, such as collections.OrderedDict: its name only."""

    dotted: str


Builders = Mapping[str, Callable[..., object]]


def read_pickle(
    source: bytes, builders: Builders, names: frozenset[str], persistent: Callable[[object], object]
) -> object:
    """The value that the pickle describes: dict, list, tuple, str, int, float, bool, None, and what builders make.

    It knows the opcodes with which torch.save writes (protocol 2), and refuses all others by name.

    Args:
        source: the pickle.
        builders: what may be called, by dotted name: each gets the pickle's arguments, and must check them.
        names: further globals that may be named, as arguments of builders.
        persistent: makes the value of a persistent id.

    Raises:
        PickleError: names the opcode or the global that was refused; nothing of it has run.
    """
    machine = _Machine(builders, frozenset(names | builders.keys()), persistent)
    for opcode, argument, position in _opcodes(source):
        if opcode == "STOP":
            return machine.result()
        if opcode not in _ACTIONS:
            raise PickleError(
                f"has opcode {opcode} at byte {position}, which torch.save (pickle protocol 2) does not write; refused"
            )
        _ACTIONS[opcode](machine, argument)
    raise PickleError("is damaged: it has no end")


def _opcodes(source: bytes) -> Iterator[tuple[str, object, int | None]]:
    try:
        for opcode, argument, position in pickletools.genops(source):
            yield opcode.name, argument, position
    except ValueError as error:
        raise PickleError(f"is damaged: {error}") from error


@dataclass
class _Machine:
    """The stack and the memo of a pickle. A mark is a new stack on top of the old ones."""

    builders: Builders
    names: frozenset[str]
    persistent: Callable[[object], object]
    stacks: list[list[object]] = field(default_factory=lambda: [[]])
    memo: dict[object, object] = field(default_factory=dict)

    def push(self, value: object) -> None:
        self.stacks[-1].append(value)

    def pop(self) -> object:
        self.top()
        return self.stacks[-1].pop()

    def top(self) -> object:
        if not self.stacks[-1]:
            raise PickleError("is damaged: it takes a value from an empty stack")
        return self.stacks[-1][-1]

    def mark(self) -> None:
        self.stacks.append([])

    def pop_to_mark(self) -> list[object]:
        if len(self.stacks) == 1:
            raise PickleError("is damaged: it goes back to a mark that is not there")
        return self.stacks.pop()

    def result(self) -> object:
        if len(self.stacks) != 1 or len(self.stacks[0]) != 1:
            raise PickleError("is damaged: it does not end with one value")
        return self.stacks[0][0]

    def push_tuple(self, size: int) -> None:
        items = [self.pop() for _ in range(size)]
        self.push(tuple(reversed(items)))

    def append(self, items: list[object]) -> None:
        target = self.top()
        if type(target) is not list:
            raise PickleError(f"appends to a {type(target).__name__}, expected a list")
        target.extend(items)

    def set_items(self, items: list[object]) -> None:
        target = self.top()
        if type(target) is not dict:
            raise PickleError(f"sets items of a {type(target).__name__}, expected a dict")
        if len(items) % 2:
            raise PickleError("is damaged: it sets a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # A tuple as a key would be hashed to its depth, which may be deeper than Python's own stack.
            if not isinstance(key, str | int):
                raise PickleError(f"has a dict key of type {type(key).__name__}, expected a string or a whole number")
            target[key] = value

    def remember(self, place: object) -> None:
        self.memo[place] = self.top()

    def recall(self, place: object) -> None:
        if place not in self.memo:
            raise PickleError(f"is damaged: it recalls value {place}, which it never remembered")
        self.push(self.memo[place])

    def push_name(self, spelled: object) -> None:
        # genops gives "module name"; a module's name has no spaces.
        dotted = str(spelled).replace(" ", ".", 1)
        if dotted not in self.names:
            raise PickleError(f"asks for {dotted[:80]!a}, which no checkpoint needs; refused, nothing of it was run")
        self.push(Name(dotted))

    def call(self) -> None:
        arguments, called = self.pop(), self.pop()
        if not isinstance(called, Name) or called.dotted not in self.builders:
            found = called.dotted if isinstance(called, Name) else f"a {type(called).__name__}"
            raise PickleError(f"calls {found}, which is nothing to call")
        if not isinstance(arguments, tuple):
            raise PickleError(f"calls {called.dotted} with a {type(arguments).__name__}, expected a tuple")
        self.push(self.builders[called.dotted](*arguments))

    def drop_attributes(self) -> None:
        """A state dict carries _metadata, versions of torch modules: nobody here reads them. All else is refused."""
        attributes, target = self.pop(), self.top()
        if type(target) is not dict or type(attributes) is not dict or attributes.keys() != {"_metadata"}:
            raise PickleError(f"sets attributes of a {type(target).__name__}, expected only a state dict's _metadata")


Action = Callable[[_Machine, object], None]
_ACTIONS: Mapping[str, Action] = {
    "PROTO": lambda *_: None,
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), _Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "MARK": lambda machine, _: machine.mark(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.recall),
    "GLOBAL": _Machine.push_name,
    "BINPERSID": lambda machine, _: machine.push(machine.persistent(machine.pop())),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.drop_attributes(),
}
