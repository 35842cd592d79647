"""What a training is told."""

import math
from dataclasses import dataclass

# Found by short runs on tiny Shakespeare; both families train stably from these.
LEARNING_RATES = {"mingru": 3e-3, "lstm": 2e-3}


class OptionError(ValueError):
    """An option of the training is out of range; the message names it."""


@dataclass(frozen=True)
class TrainingOptions:
    """How long and how fast to learn.

    Args:
        steps: updates of the parameters.
        batch: rows an update.
        length: T, tokens a row, read from an empty memory.
        learning_rate: AdamW's, after the warm-up.
        min_learning_rate: at the last step; a cosine leads there.
        warmup: steps in which the rate rises from 0.
        weight_decay: of the matrices; vectors do not decay.
        clip: largest norm of a gradient.
        seed: of parameters, batches and dropout.
        dtype: precision of the matrix products, float32 or bfloat16; the parameters stay in float32.
        validation: share of each corpus, at its end, that is not trained on.
        eval_every: steps between evaluations.
    """

    steps: int = 1000
    batch: int = 32
    length: int = 256
    learning_rate: float = 3e-3
    min_learning_rate: float = 1e-4
    warmup: int = 50
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    dtype: str = "float32"
    validation: float = 0.1
    eval_every: int = 50

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "length", "eval_every"):
            self._require(name, at_least=1)
        for name in ("warmup", "seed", "weight_decay", "learning_rate", "min_learning_rate"):
            self._require(name, at_least=0)
        if not self.clip > 0:
            raise OptionError(f"clip is {self.clip}; it must be above 0")
        if not 0 < self.validation < 1:
            raise OptionError(f"validation is {self.validation}; it must be between 0 and 1, both excluded")
        if self.dtype not in ("float32", "bfloat16"):
            raise OptionError(f"dtype is {self.dtype!r}; it must be float32 or bfloat16")

    def _require(self, name: str, *, at_least: float) -> None:
        value = getattr(self, name)
        if not at_least <= value < math.inf:
            raise OptionError(f"{name} is {value}; it must be at least {at_least}")
