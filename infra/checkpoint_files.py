"""Whether the files of a checkpoint in S3 fit each other, found out without the libraries that would run it.

What `functions.llm.checkpoints` checks when it loads a folder is checked here of a bucket: digest, names, shapes,
types, vocabulary. That needs jax there; the function that watches the bucket is small and has the standard library.
What is left to a model that really loads the checkpoint: whether the numbers are finite, and what text they make.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

FORMAT = 1
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}
SCALE = ".scale"
"""What the name of an int8 matrix's scales adds to its own."""

LENGTH_BYTES = 8
PIECE_BYTES = 1 << 20

# Of what is read whole into the memory of a small function. A header takes some 100 bytes a tensor.
MAX_CONFIG_BYTES = 1 << 20
MAX_TOKENIZER_BYTES = 32 << 20
MAX_HEADER_BYTES = 8 << 20

# What S3 answers where there is no object; 403 where the asking role may not know whether there is one.
ABSENT = frozenset({"NoSuchKey", "404"})
DENIED = frozenset({"AccessDenied", "403"})


class CheckpointRefused(ValueError):  # noqa: N818 - a verdict, which its caller writes down
    """A checkpoint must not be served.

    Args:
        reason: names the object, what was found in it and what was expected.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint in a bucket is, its files having been checked.

    Args:
        name: the model's name in the API, which is the last part of its prefix.
        family: "lstm", "mingru", ...
        vocab_size: V, tokens.
        tokenizer: "byte", "char" or "bpe".
        parameters: how many numbers the model has.
        size_bytes: size of model.safetensors.
        digest: SHA-256 of model.safetensors, hexadecimal.
    """

    name: str
    family: str
    vocab_size: int
    tokenizer: str
    parameters: int
    size_bytes: int
    digest: str


def check_files(s3_client: Any, bucket: str, prefix: str) -> CheckpointFacts:
    """Return what the checkpoint at ``prefix`` is, all of its weights having been read.

    Args:
        s3_client: boto3's or botocore's; it needs s3:GetObject and nothing else.
        bucket: the bucket's name.
        prefix: where config.json, tokenizer.json and model.safetensors are, with or without a slash at its end.

    Raises:
        CheckpointRefused: they do not fit each other, or one of them is not there or may not be read.
        botocore's errors: S3 did not answer, which says nothing of the checkpoint: ask again.
    """
    prefix = prefix.strip("/")
    name = prefix.rpartition("/")[2]
    if name in {"", ".", ".."}:
        raise CheckpointRefused(f"s3://{bucket}/{prefix} names no checkpoint; expected s3://bucket/prefix")
    objects = _Objects(s3_client, bucket, prefix)
    config = _config(_json(objects, "config.json", MAX_CONFIG_BYTES), objects.address("config.json"))
    tokenizer_json = objects.address("tokenizer.json")
    kind, tokens = _tokenizer(_json(objects, "tokenizer.json", MAX_TOKENIZER_BYTES), tokenizer_json)
    if kind != config.tokenizer:
        raise CheckpointRefused(f"{tokenizer_json} is {kind}, config.json says {config.tokenizer!r}")
    if tokens != config.sizes["vocab_size"]:
        raise CheckpointRefused(
            f"{tokenizer_json} has {tokens} tokens, the model's vocabulary {config.sizes['vocab_size']}"
        )
    with objects.open("model.safetensors") as weights:
        address = objects.address("model.safetensors")
        tensors = _tensors(weights, address)
        parameters = _check_tensors(config, tensors, address)
        digest = weights.digest()
    if digest != config.digest:
        raise CheckpointRefused(
            f"{address}: SHA-256 is {digest}, config.json says {config.digest}; "
            "it was changed or cut short, upload the checkpoint again, config.json last"
        )
    return CheckpointFacts(
        name, config.family, config.sizes["vocab_size"], kind, parameters, weights.size_bytes, digest
    )


class _Objects:
    """A checkpoint's objects."""

    def __init__(self, s3_client: Any, bucket: str, prefix: str) -> None:
        self._s3, self._bucket, self._prefix = s3_client, bucket, prefix

    def address(self, file: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}/{file}"

    def open(self, file: str) -> "_Content":
        address = self.address(file)
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{file}")
        except self._s3.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ABSENT:
                raise CheckpointRefused(
                    f"{address}: no such object; a checkpoint is whole with all its files"
                ) from error
            if code in DENIED:
                raise CheckpointRefused(
                    f"{address}: access denied; it is not there, or this function's role may not s3:GetObject it"
                ) from error
            raise
        return _Content(answer["Body"], answer["ContentLength"])

    def read(self, file: str, limit: int) -> bytes:
        with self.open(file) as content:
            if content.size_bytes > limit:
                raise CheckpointRefused(f"{self.address(file)}: {content.size_bytes} bytes, at most {limit} are read")
            return content.read(content.size_bytes)


class _Content:
    """An object that is read once from its beginning to its end, hashed as it goes by."""

    def __init__(self, body: Any, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._body = body
        self._hash = hashlib.sha256()

    def __enter__(self) -> "_Content":
        return self

    def __exit__(self, *_exception: object) -> None:
        # Else the connection would first deliver what nobody wants.
        self._body.close()

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        return b"".join(self._pieces(count))

    def digest(self) -> str:
        """Return the SHA-256 of the whole, after having read what is left."""
        for _ in self._pieces(self.size_bytes):
            pass
        return self._hash.hexdigest()

    def _pieces(self, count: int) -> Iterator[bytes]:
        while count and (piece := self._body.read(min(count, PIECE_BYTES))):
            self._hash.update(piece)
            count -= len(piece)
            yield piece


# config.json -----------------------------------------------------------------------------------------------------


Sizes = Mapping[str, int]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Family:
    """What config.json says of a family of models, and what model.safetensors must then hold.

    Args:
        defaults: the sizes that config.json may leave out; it must have ``vocab_size``.
        shapes: the parameters' shapes by name, from the sizes.
        int8: whether the parameter of this name and shape may be int8.
    """

    defaults: Sizes
    shapes: Callable[[Sizes], Shapes]
    int8: Callable[[str, tuple[int, ...]], bool]


def _lstm_shapes(sizes: Sizes) -> Shapes:
    V, E, H = sizes["vocab_size"], sizes["emb"], sizes["hid"]
    shapes: Shapes = {"emb.weight": (V, E)}
    for layer in range(sizes["layers"]):
        shapes[f"rnn.weight_ih_l{layer}"] = (4 * H, H if layer else E)
        shapes[f"rnn.weight_hh_l{layer}"] = (4 * H, H)
        shapes[f"rnn.bias_ih_l{layer}"] = (4 * H,)
        shapes[f"rnn.bias_hh_l{layer}"] = (4 * H,)
    return shapes | {"head.weight": (V, H), "head.bias": (V,)}


def _mingru_shapes(sizes: Sizes) -> Shapes:
    V, C, D, K, M = (sizes[name] for name in ("vocab_size", "width", "hidden", "conv", "mlp"))
    shapes: Shapes = {"embedding": (V, C)}
    for layer in range(sizes["layers"]):
        parts: Shapes = {
            "mixer.norm": (C,),
            "mixer.conv.taps": (K, C),
            "mixer.conv.bias": (C,),
            "mixer.gate.weight": (D, C),
            "mixer.gate.bias": (D,),
            "mixer.candidate.weight": (D, C),
            "mixer.out.weight": (C, D),
            "mlp.norm": (C,),
            "mlp.up.weight": (M * C, C),
            "mlp.down.weight": (C, M * C),
        }
        shapes |= {f"layers.{layer}.{part}": shape for part, shape in parts.items()}
    return shapes | {"norm": (C,), "head.weight": (V, C)}


# The families of functions.llm.models, said again where jax is not: a test holds the two to be the same.
FAMILIES = {
    "lstm": Family(
        {"emb": 256, "hid": 512, "layers": 2},
        _lstm_shapes,
        lambda name, shape: len(shape) == 2 and name != "emb.weight",
    ),
    "mingru": Family(
        {"width": 192, "hidden": 384, "layers": 4, "conv": 4, "mlp": 4},
        _mingru_shapes,
        lambda name, _shape: name.endswith(".weight"),
    ),
}


@dataclass(frozen=True)
class _Config:
    family: str
    sizes: Sizes
    tokenizer: str
    digest: str


def _config(config: Any, address: str) -> _Config:
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise CheckpointRefused(f"{address}: format is {_short(found)}, this version reads {FORMAT}")
    for name, kind in {"model": dict, "tokenizer": str, "digest": str}.items():
        if not isinstance(config.get(name), kind):
            raise CheckpointRefused(f"{address}: {name} is {_short(config.get(name))}, expected a {kind.__name__}")
    model = config["model"]
    name = model.get("family")
    if not isinstance(name, str) or name not in FAMILIES:
        raise CheckpointRefused(f"{address}: family is {_short(name)}; known are {', '.join(FAMILIES)}")
    known = {"vocab_size": None, **FAMILIES[name].defaults}
    for field in sorted(model.keys() - known.keys() - {"family", "dropout"}):
        raise CheckpointRefused(f"{address}: {_short(field)} is not a field of a {name}; known are {', '.join(known)}")
    sizes = {}
    for field, default in known.items():
        size = model.get(field, default)
        if type(size) is not int or size < 1:
            raise CheckpointRefused(f"{address}: {field} is {_short(size)}; it must be a whole number from 1")
        sizes[field] = size
    dropout = model.get("dropout", 0.0)
    if type(dropout) not in {int, float} or not 0 <= dropout < 1:
        raise CheckpointRefused(f"{address}: dropout is {_short(dropout)}; it must be from 0 to below 1")
    return _Config(name, sizes, config["tokenizer"], config["digest"])


# tokenizer.json --------------------------------------------------------------------------------------------------


def _tokenizer(description: Any, address: str) -> tuple[str, int]:
    """Return which tokenizer it is and how many tokens it has."""
    if not isinstance(description, dict):
        raise CheckpointRefused(f"{address}: holds a JSON {type(description).__name__}, expected an object")
    if "model" in description:
        return "bpe", _bpe_size(description, address)
    match description.get("type"):
        case "byte":
            return "byte", 256
        case "char":
            return "char", _char_size(description, address)
        case found:
            raise CheckpointRefused(f"{address}: type is {_short(found)}, expected 'byte' or 'char', or a BPE's model")


def _char_size(description: Mapping[str, Any], address: str) -> int:
    chars = description.get("chars")
    if not isinstance(chars, list) or not chars or not all(map(_is_character, chars)):
        raise CheckpointRefused(f"{address}: chars is no list of characters")
    if len(set(chars)) < len(chars):
        raise CheckpointRefused(f"{address}: chars holds a character more than once")
    if "fallback" in description and description["fallback"] not in chars:
        raise CheckpointRefused(f"{address}: fallback is {_short(description['fallback'])}, which is not in chars")
    return len(chars)


def _is_character(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 1 and not "\ud800" <= value <= "\udfff"


def _bpe_size(description: Mapping[str, Any], address: str) -> int:
    model, added = description["model"], description.get("added_tokens") or []
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict) or model.get("type", "BPE") != "BPE":
        raise CheckpointRefused(f"{address}: model is {_short(model)}, expected a BPE with its vocab")
    if not isinstance(added, list) or not all(
        isinstance(token, dict) and isinstance(token.get("content"), str) for token in added
    ):
        raise CheckpointRefused(f"{address}: added_tokens is no list of tokens")
    # A special token may be in the vocabulary too.
    return len(vocabulary.keys() | {token["content"] for token in added})


# model.safetensors -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _tensors(weights: _Content, address: str) -> dict[str, _Tensor]:
    """Return what the header says, each tensor beginning where the one before it ends, the last at the file's end."""
    header_bytes = int.from_bytes(weights.read(LENGTH_BYTES), "little")
    room = weights.size_bytes - LENGTH_BYTES
    if not 2 <= header_bytes <= min(room, MAX_HEADER_BYTES):
        raise CheckpointRefused(
            f"{address}: the header should have {header_bytes} bytes, the file has {weights.size_bytes}, "
            f"and at most {MAX_HEADER_BYTES} are read: no safetensors file, or cut short"
        )
    entries = _parsed(weights.read(header_bytes), f"{address}: the header")
    if not isinstance(entries, dict):
        raise CheckpointRefused(f"{address}: the header is a JSON {type(entries).__name__}, expected an object")
    entries.pop("__metadata__", None)
    tensors = {name: _tensor(entry, f"{address}: {_short(name)}") for name, entry in entries.items()}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != end:
            raise CheckpointRefused(f"{address}: {_short(name)} begins at byte {tensor.begin} of the data, not {end}")
        end = tensor.end
    if end != room - header_bytes:
        raise CheckpointRefused(
            f"{address}: the tensors have {end} bytes, the file has {room - header_bytes} for them: cut short?"
        )
    return tensors


def _tensor(entry: Any, where: str) -> _Tensor:
    if not isinstance(entry, dict):
        raise CheckpointRefused(f"{where} is {_short(entry)}, expected an object")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise CheckpointRefused(f"{where} has the dtype {_short(dtype)}; known are {', '.join(DTYPE_BYTES)}")
    shape, offsets = (_whole_numbers(entry.get(key), f"{where} has {key}") for key in ("shape", "data_offsets"))
    size = prod(shape) * DTYPE_BYTES[dtype]
    if len(offsets) != 2 or offsets[1] - offsets[0] != size:
        raise CheckpointRefused(
            f"{where} has data_offsets {_short(offsets)}, but {dtype} of shape {_short(shape)} has {size} bytes"
        )
    return _Tensor(dtype, shape, *offsets)


def _whole_numbers(values: Any, where: str) -> tuple[int, ...]:
    if (
        not isinstance(values, list)
        or len(values) > 64
        or not all(type(value) is int and 0 <= value < 1 << 63 for value in values)
    ):
        raise CheckpointRefused(f"{where} {_short(values)}, expected a list of sizes")
    return tuple(values)


def _check_tensors(config: _Config, tensors: Mapping[str, _Tensor], address: str) -> int:
    """Return how many parameters there are, each having the name, shape and type that config.json asks for."""
    family = FAMILIES[config.family]
    # Before anybody makes a list of so many layers.
    if config.sizes["layers"] > len(tensors):
        raise CheckpointRefused(f"{address}: {len(tensors)} tensors, config.json says {config.sizes['layers']} layers")
    expected = family.shapes(config.sizes)
    scales = {name + SCALE: tensor for name, tensor in tensors.items() if tensor.dtype == "I8"}
    for name in sorted(expected.keys() - tensors.keys()):
        raise CheckpointRefused(f"{address}: {name} is missing; config.json asks for it with shape {expected[name]}")
    for name in sorted(tensors.keys() - expected.keys() - scales.keys()):
        raise CheckpointRefused(f"{address}: {_short(name)} is not a parameter of this {config.family}")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise CheckpointRefused(f"{address}: {name} has shape {tensors[name].shape}, config.json says {shape}")
        if tensors[name].dtype == "I8" and not family.int8(name, shape):
            raise CheckpointRefused(f"{address}: {name} is int8, which it cannot be in a {config.family}")
    for name, values in scales.items():
        scale = tensors.get(name)
        if scale is None:
            raise CheckpointRefused(f"{address}: {name} is missing, the scales of an int8 matrix")
        if scale.dtype != "F32" or scale.shape != values.shape[:1]:
            raise CheckpointRefused(
                f"{address}: {name} is {scale.dtype} of shape {scale.shape}, expected F32 of shape {values.shape[:1]}"
            )
    return sum(map(prod, expected.values()))


# JSON ------------------------------------------------------------------------------------------------------------


def _json(objects: _Objects, file: str, limit: int) -> Any:
    return _parsed(objects.read(file, limit), objects.address(file))


def _parsed(content: bytes, where: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ValueError("a name stands there twice")
        return values

    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointRefused(f"{where} is not JSON ({_short(str(error))})") from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
