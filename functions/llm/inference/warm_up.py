"""Load and compile before somebody waits."""

import logging
import threading
from typing import Literal

from functions.llm.checkpoints.checkpoint import CheckpointError
from functions.llm.inference.model_store import ModelStore
from functions.llm.inference.programs import FIRST_PROGRAMS

# What is at hand without compiling is only tried out, and a request that comes with the start has the machine first.
PEACE_S = 1.0

WARM_UP = "warm-up"
"""The name of the thread that prepares a model."""

logger = logging.getLogger(__name__)


class DefaultModel:
    """The model that is served first, loaded and warmed up in the background."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._state: Literal["cold", "loading", "ready"] = "cold"
        self._failure: str | None = None
        self._beyond_the_first = threading.Event()
        self._stopping = threading.Event()

    @property
    def store(self) -> ModelStore:
        """Where it is kept, with the others."""
        return self._store

    @property
    def name(self) -> str:
        """Its name."""
        return self._store.default_name

    @property
    def ready(self) -> bool:
        """Whether the next request is answered at full speed."""
        return self._state == "ready" and self._store.damage() is None

    @property
    def failure(self) -> str | None:
        """Why the last attempt to load it failed, or why what was loaded is served no more."""
        return self._store.damage() or self._failure

    def begin_early(self) -> None:
        """Begin to load, and prepare what the first request needs; the rest waits for `begin`.

        For a process that is still busy with its imports, and whose first request may be waiting.
        """
        with self._lock:
            if self.ready or self._state == "loading" or self._stopping.is_set():
                return
            self._state = "loading"
            self._thread = threading.Thread(target=self._prepare, name=WARM_UP, daemon=True)
            self._thread.start()

    def begin(self) -> None:
        """Begin to load and prepare all, unless that has begun or is done; after a failure, try again."""
        self._beyond_the_first.set()
        self.begin_early()

    def complete(self) -> None:
        """Return when all that serving it needs is loaded and compiled.

        Raises:
            RuntimeError: it cannot be; the message says why.
        """
        self.begin()
        self.join(None)
        if not self.ready:
            raise RuntimeError(f"The model {self.name} cannot be served: {self.failure or 'it was stopped'}")

    def join(self, timeout_s: float | None) -> None:
        """Wait for an attempt that is under way."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    @property
    def stopped(self) -> bool:
        """Whether it has been given up."""
        return self._stopping.is_set()

    def stop(self, timeout_s: float = 60.0) -> None:
        """Give up, once what is being compiled is: a process that ends under the compiler is aborted by it.

        Args:
            timeout_s: how long to wait for that; a compiler cannot be interrupted.
        """
        with self._lock:
            self._stopping.set()
            self._beyond_the_first.set()
        self.join(timeout_s)

    def _prepare(self) -> None:
        try:
            programs = self._store.get().programs
            for prepared, _ in enumerate(programs.prepare(), 1):
                # What is prepared after that serves those who come together, and those who ask for more.
                if prepared == (1 if programs.at_hand else FIRST_PROGRAMS):
                    self._failure, self._state = None, "ready"
                    logger.info("The model %s is ready", self.name)
                self._beyond_the_first.wait()
                if self._stopping.wait(PEACE_S if prepared == 1 and programs.at_hand else 0):
                    return
        except CheckpointError as error:
            # It is asked for again and again; the log hears of each reason once.
            if self._failure != str(error):
                logger.error("The model %s cannot be loaded: %s", self.name, error)
            self._failure, self._state = str(error), "cold"
        except Exception as error:
            logger.exception("The model %s cannot be prepared", self.name)
            # Once it is ready it answers; what could not be compiled ahead is compiled, or fails, at its use.
            if not self.ready:
                self._failure, self._state = f"{type(error).__name__}: {error}", "cold"
