"""Load and compile before somebody waits."""

import logging
import threading
from typing import Literal

from functions.llm.checkpoints.checkpoint import Checkpoint, CheckpointError
from functions.llm.inference.decoder import PREFILL_PIECES
from functions.llm.inference.generation import Generation, GenerationRequest
from functions.llm.inference.model_store import ModelStore
from functions.llm.inference.sampling import SamplingOptions

logger = logging.getLogger(__name__)


def warm_up(checkpoint: Checkpoint) -> None:
    """Compile every shape that a plain request meets, by generating with each."""
    request = GenerationRequest(
        prompt=(0,) * (sum(PREFILL_PIECES) + 1),
        max_tokens=1,
        sampling=SamplingOptions(),
        seed=0,
        ignore_eos=True,
    )
    for _ in Generation(checkpoint, request).events():
        pass


class DefaultModel:
    """The model that is served first, loaded and warmed up in the background."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._state: Literal["cold", "loading", "ready"] = "cold"
        self._failure: str | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self._store.default_name

    @property
    def ready(self) -> bool:
        """Whether the next request is answered at full speed."""
        return self._state == "ready"

    @property
    def failure(self) -> str | None:
        """Why the last attempt to load it failed."""
        return self._failure

    def begin(self) -> None:
        """Begin to load, unless that has begun or is done; after a failure, try again."""
        with self._lock:
            if self._state != "cold":
                return
            self._state = "loading"
            self._thread = threading.Thread(target=self._prepare, name="warm-up", daemon=True)
            self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for an attempt that is under way."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _prepare(self) -> None:
        try:
            warm_up(self._store.get())
        except CheckpointError as error:
            self._failure, self._state = str(error), "cold"
            logger.error("The model %s cannot be loaded: %s", self.name, error)
        except Exception as error:
            self._failure, self._state = f"{type(error).__name__}: {error}", "cold"
            logger.exception("The model %s cannot be prepared", self.name)
        else:
            self._failure, self._state = None, "ready"
            logger.info("The model %s is ready", self.name)
