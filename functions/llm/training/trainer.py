"""One update after another: the Flax module, the optimizer, and their state on disk."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from functions.llm.array_types import Array, Float, Params, PRNGKey, Tokens
from functions.llm.checkpoints.checkpoint import CheckpointError, replace_files
from functions.llm.models import ModelConfig, RecurrentLM, build_model, family_of
from functions.llm.ops.cross_entropy import cross_entropy
from functions.llm.training.options import TrainingOptions

STATE_FILE = "state.safetensors"


class TrainableLM(nnx.Module):
    """A recurrent language model that owns its parameters, for any family."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        drawn = family_of(config).init_params(config, rngs.params())
        self.config = config
        self.params = nnx.Dict({name: nnx.Param(value) for name, value in drawn.items()})

    def model(self, dtype: Any = jnp.float32) -> RecurrentLM:
        """Return the model over the present parameters, its matrices in ``dtype``."""
        params = {name: param[...] for name, param in self.params.items()}
        return family_of(self.config)(self.config, _matrices_in(dtype, params))


def _matrices_in(dtype: Any, params: Params) -> Params:
    return {name: value.astype(dtype) if value.ndim > 1 else value for name, value in params.items()}


class Trainer:
    """A training at some step; `update` brings it to the next."""

    def __init__(self, config: ModelConfig, options: TrainingOptions) -> None:
        self._options = options
        self._module = TrainableLM(config, nnx.Rngs(options.seed))
        self._optimizer = nnx.Optimizer(self._module, _optimizer(options), wrt=nnx.Param)
        # The graph is traversed once here; nnx.jit would do it again at every step.
        self._graph, self._variables = nnx.split((self._module, self._optimizer))
        # Another stream of draws than the parameters' own.
        self._dropout_key = jax.random.fold_in(jax.random.key(options.seed), 1)
        self.config = config
        self.step = 0

    def update(self, inputs: Any, targets: Any) -> float:
        """Learn from one batch, both (B, T) int32; return its loss before the update, in nats per token."""
        key = jax.random.fold_in(self._dropout_key, self.step)
        loss, self._variables = _update(
            self._graph, self._variables, jnp.asarray(inputs), jnp.asarray(targets), key, self._options.dtype
        )
        self.step += 1
        return float(loss)

    def model(self) -> RecurrentLM:
        """Return the model as it is now, over a copy of the parameters."""
        module, _ = nnx.merge(self._graph, self._variables)
        params = {name: jnp.array(param[...], copy=True) for name, param in module.params.items()}
        return build_model(self.config, params)

    def save(self, folder: Path, notes: str) -> None:
        """Write all that `restore` needs to ``folder``, with the caller's ``notes``, whole or not at all."""
        replace_files(folder, {STATE_FILE: save(self._named(), {"step": str(self.step), "notes": notes})})

    def restore(self, folder: Path) -> str:
        """Go on from where `save` was called; return its notes."""
        file = folder / STATE_FILE
        try:
            with safe_open(file, framework="numpy") as stored:
                metadata = stored.metadata()
                saved = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file}: cannot be read ({error})") from error
        now = self._named()
        if {name: value.shape for name, value in saved.items()} != {name: value.shape for name, value in now.items()}:
            raise CheckpointError(f"{file}: holds the training of another model")
        leaves = [jnp.asarray(saved[name]) for name in now]
        self._variables = jax.tree.unflatten(jax.tree.structure(self._variables), leaves)
        self.step = int(metadata["step"])
        return str(metadata["notes"])

    def _named(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return every parameter and moment by its path."""
        leaves = jax.tree.leaves_with_path(self._variables)
        return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def _optimizer(options: TrainingOptions) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=options.learning_rate,
        warmup_steps=min(options.warmup, options.steps - 1),
        decay_steps=options.steps,
        end_value=min(options.min_learning_rate, options.learning_rate),
    )
    decays = partial(jax.tree.map, lambda value: value.ndim > 1)
    # b2 of 0.99 instead of 0.999: a short training has few steps to average over.
    return optax.chain(
        optax.clip_by_global_norm(options.clip),
        optax.adamw(rate, b1=0.9, b2=0.99, weight_decay=options.weight_decay, mask=decays),
    )


@partial(jax.jit, static_argnums=(0, 5), donate_argnums=1)
def _update(
    graph: Any, variables: Any, inputs: Tokens, targets: Tokens, dropout_key: PRNGKey, dtype: str
) -> tuple[Float[Array, ""], Any]:
    module, optimizer = nnx.merge(graph, variables)

    def loss_of(module: TrainableLM) -> Float[Array, ""]:
        model = module.model(jnp.dtype(dtype))
        logits, _ = model.scan(inputs, model.init_state(inputs.shape[0]), dropout_key)
        return cross_entropy(logits, targets).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(module)
    optimizer.update(module, gradients)
    return loss, nnx.split((module, optimizer))[1]
