"""The checkpoints that may be served: found by name beside the first one, loaded at their first use."""

import logging
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import Protocol

from functions.llm.checkpoints.checkpoint import Checkpoint, CheckpointError, open_checkpoint, read_config
from functions.llm.inference.errors import ModelNotFoundError
from functions.llm.inference.programs import FIRST_PROGRAMS
from functions.llm.inference.served_model import ServedModel
from functions.llm.models import ConfigError, model_config

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelDescription:
    """A checkpoint, seen without loading its weights.

    Args:
        name: the folder's name.
        family: "lstm", "mingru", ...
        vocab_size: V, tokens.
        tokenizer: "byte", "char" or "bpe".
        parameters: how many numbers the model has.
        size_bytes: size of model.safetensors.
        digest: SHA-256 of model.safetensors, hexadecimal, as config.json says.
    """

    name: str
    family: str
    vocab_size: int
    tokenizer: str
    parameters: int
    size_bytes: int
    digest: str


def describe_checkpoint(path: Path) -> ModelDescription:
    """Return what the folder ``path`` holds; CheckpointError says why it is no checkpoint."""
    config = read_config(path)
    try:
        model = model_config(config["model"])
        size_bytes = (path / "model.safetensors").stat().st_size
    except ConfigError as error:
        raise CheckpointError(f"{path / 'config.json'}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{error.filename}: {error.strerror}") from error
    return ModelDescription(
        name=path.name,
        family=model.family,
        vocab_size=model.vocab_size,
        tokenizer=config["tokenizer"],
        parameters=sum(prod(shape) for shape in model.param_shapes().values()),
        size_bytes=size_bytes,
        digest=config["digest"],
    )


def checkpoint_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the checkpoint folders in ``folder``, sorted."""
    if not folder.is_dir():
        return ()
    # A hidden folder is a checkpoint that is still being written.
    return tuple(sorted(path.parent.name for path in folder.glob("*/config.json") if path.parent.name[0] != "."))


class StoreObserver(Protocol):
    """Hears which models are in memory."""

    def model_loaded(self, checkpoint: Checkpoint) -> None: ...
    def model_dropped(self, name: str) -> None: ...


class ModelStore:
    """Checkpoints by name; the ones used last stay in memory.

    Large weights are served while a thread still reads them for their digest: a cold start would wait for that longer
    than for all else of loading. If they are not what they should be, they are served no more, and the log says so.
    """

    def __init__(
        self,
        default: Path,
        *,
        max_loaded: int = 2,
        observer: StoreObserver | None = None,
        executables: Path | None = None,
        load: Callable[[Path], Checkpoint] = open_checkpoint,
    ) -> None:
        """Serve ``default`` first, and by name every checkpoint folder beside it.

        Args:
            default: the folder of the model that answers when none is asked for.
            max_loaded: how many models stay in memory.
            observer: see `observe`.
            executables: where programs that were compiled ahead are kept, if anywhere.
            load: reads a folder.
        """
        self._default = default.resolve()
        self._max_loaded = max_loaded
        self._observer = observer
        self._executables = executables
        self._load = load
        self._loaded: OrderedDict[str, ServedModel] = OrderedDict()
        self._damage: dict[str, str] = {}
        self._loaded_lock = threading.Lock()
        self._loading_lock = threading.Lock()

    def observe(self, observer: StoreObserver) -> None:
        """Tell ``observer`` which models are in memory already, and of every change from now on."""
        with self._loaded_lock:
            self._observer = observer
            loaded = list(self._loaded.values())
        for model in loaded:
            observer.model_loaded(model.checkpoint)

    @property
    def default_name(self) -> str:
        """The name of the model that answers when none is asked for."""
        return self._default.name

    def descriptions(self) -> list[ModelDescription]:
        """Return what can be served, sorted by name; a broken folder is left out."""
        descriptions = []
        for name in checkpoint_names(self._default.parent):
            try:
                descriptions.append(describe_checkpoint(self._default.parent / name))
            except CheckpointError:
                continue
        return descriptions

    def loaded(self, name: str | None = None) -> ServedModel | None:
        """Return a model if it is in memory already."""
        with self._loaded_lock:
            model = self._loaded.get(self.default_name if name is None else name)
            if model is not None:
                self._loaded.move_to_end(model.name)
            return model

    def damage(self, name: str | None = None) -> str | None:
        """Return why a model that was loaded is served no more, if so; it is loaded again once its file is whole."""
        with self._loaded_lock:
            return self._damage.get(self.default_name if name is None else name)

    def get(self, name: str | None = None) -> ServedModel:
        """Return a model, the default if ``name`` is None, loading it if need be.

        Raises:
            ModelNotFoundError: no checkpoint folder has the name.
            CheckpointError: it cannot be loaded.
        """
        if (model := self.loaded(name)) is not None:
            return model
        # One at a time: two requests for the same model load it once, and memory peaks at one more.
        with self._loading_lock:
            if (model := self.loaded(name)) is not None:
                return model
            checkpoint = self._load(self._path(name))
            if self.damage(name) is not None:
                checkpoint.verify()
            model = ServedModel.of(checkpoint, self._executables)
            if model.name != self.default_name and not model.programs.at_hand:
                # Here, where only those wait who asked for it, and not in the engine, where everybody would.
                for _ in islice(model.programs.prepare(), FIRST_PROGRAMS + 1):
                    pass
            self._keep(model)
            if not checkpoint.verified:
                threading.Thread(target=self._verify, args=(model,), name="verify", daemon=True).start()
            return model

    def _path(self, name: str | None) -> Path:
        if name is None or name == self.default_name:
            return self._default
        # The name is only ever compared with names that are there, so no name leads out of the folder.
        available = checkpoint_names(self._default.parent)
        if name not in available:
            raise ModelNotFoundError(name, available)
        return self._default.parent / name

    def _keep(self, model: ServedModel) -> None:
        with self._loaded_lock:
            self._loaded[model.name] = model
            self._damage.pop(model.name, None)
            dropped = [self._loaded.popitem(last=False)[0] for _ in range(len(self._loaded) - self._max_loaded)]
            observer = self._observer
        if observer is not None:
            observer.model_loaded(model.checkpoint)
            for name in dropped:
                observer.model_dropped(name)

    def _verify(self, model: ServedModel) -> None:
        _stand_back()
        try:
            model.checkpoint.verify()
        except Exception as error:  # noqa: BLE001 - what cannot be verified is not to be served
            logger.error("The model %s is served no more: %s", model.name, error)
            with self._loaded_lock:
                self._damage[model.name] = str(error)
                kept = self._loaded.get(model.name) is model
                if kept:
                    del self._loaded[model.name]
            if kept and self._observer is not None:
                self._observer.model_dropped(model.name)


def _stand_back() -> None:
    """Let every other thread go first; in Linux each has a niceness of its own."""
    if sys.platform == "linux":
        # 10 is a tenth of a processor where all are busy, and all of one where not. At 19 it may take half a minute.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
