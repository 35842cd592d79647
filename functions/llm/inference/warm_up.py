"""Load and compile before somebody waits."""

import logging
import threading
from collections.abc import Iterator
from typing import Literal

from functions.llm.checkpoints.checkpoint import Checkpoint, CheckpointError
from functions.llm.inference.decoder import PREFILL_PIECES
from functions.llm.inference.generation import Generation, GenerationRequest
from functions.llm.inference.model_store import ModelStore
from functions.llm.inference.sampling import SamplingOptions

logger = logging.getLogger(__name__)


def warm_up(checkpoint: Checkpoint) -> Iterator[None]:
    """Compile every shape that a plain request meets, one at a time, by generating with each."""
    request = GenerationRequest(
        prompt=(0,) * (sum(PREFILL_PIECES) + 1),
        max_tokens=1,
        sampling=SamplingOptions(),
        seed=0,
        ignore_eos=True,
    )
    for _ in Generation(checkpoint, request).events():
        yield


class DefaultModel:
    """The model that is served first, loaded and warmed up in the background."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._state: Literal["cold", "loading", "ready"] = "cold"
        self._failure: str | None = None
        self._stopping = False

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
            if self._state != "cold" or self._stopping:
                return
            self._state = "loading"
            self._thread = threading.Thread(target=self._prepare, name="warm-up", daemon=True)
            self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for an attempt that is under way."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def stop(self, timeout_s: float = 60.0) -> None:
        """Give up, once what is being compiled is: a process that ends under the compiler is aborted by it."""
        with self._lock:
            self._stopping = True
        self.join(timeout_s)

    def _prepare(self) -> None:
        try:
            for _ in warm_up(self._store.get()):
                if self._stopping:
                    return
        except CheckpointError as error:
            # It is asked for again and again; the log hears of each reason once.
            if self._failure != str(error):
                logger.error("The model %s cannot be loaded: %s", self.name, error)
            self._failure, self._state = str(error), "cold"
        except Exception as error:
            logger.exception("The model %s cannot be prepared", self.name)
            self._failure, self._state = f"{type(error).__name__}: {error}", "cold"
        else:
            self._failure, self._state = None, "ready"
            logger.info("The model %s is ready", self.name)
