"""What stands above every answer and every chunk of one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heading:
    """The answer's name, when it began (seconds since 1970), and the model that writes it."""

    id: str
    created: int
    model: str
