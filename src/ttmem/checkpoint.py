"""A trained model as one file: safetensors with its config and training facts as JSON beside the tensors."""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from .core.state import entries, refilled

FORMAT = "ttmem-checkpoint"
STATE = "ttmem-state"
VERSION = 1
LONGEST_HEADER = 100_000_000  # the limit of safetensors itself


class Checkpoint(NamedTuple):
    """What a checkpoint holds: the model's flat `config`, its weights, and facts about its training (`meta`)."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that name this model: equal for equal config and weights, whatever the facts."""
        return fingerprint(self.config, self.tensors)


def save_model(
    path: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None
) -> Path:
    """Write a checkpoint, whole or not at all; equal arguments give equal bytes.

    Args:
        path: the file, by custom `NAME.safetensors`; its folder is made where there is none.
        config: flat and of plain values, enough to build the model again.
        tensors: the model's `state_dict()`.
        meta: plain facts about the training: task, steps, seed, scores.
    """
    return write_file(path, tensors, FORMAT, {"config": dict(config), "meta": dict(meta or {})})


def load_model(path: str | Path) -> Checkpoint:
    """Read a checkpoint; the tensors come on the CPU.

    Raises FileNotFoundError for no file, ValueError for a file that is truncated, no checkpoint, or of a newer version.
    """
    tensors, said = read_file(path, FORMAT)
    if not all(isinstance(said.get(part), dict) for part in ("config", "meta")):
        raise ValueError(f"{path} is damaged: its {FORMAT} entry lacks config or meta; fetch it again")
    return Checkpoint(said["config"], tensors, said["meta"])


def save_state(path: str | Path, state: Any) -> Path:
    """Keep what a layer or a model carries, any nested state, as a file; its graph is not kept.

    It says nothing of who wrote it: `load_state` wants a state of the same form. A memory file (`save_memory`) does.

    >>> import tempfile, torch
    >>> from ttmem import LongTermMemory
    >>> memory, path = LongTermMemory(8, heads=2), Path(tempfile.mkdtemp()) / "a.state"
    >>> _, state = memory(torch.randn(3, 5, 8))
    >>> state = load_state(save_state(path, state), like=memory.start(3))
    """
    leaves = entries(state)
    held = {name: leaf.detach().clone() for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
    return write_file(path, held, STATE, {"facts": {name: leaf for name, leaf in leaves.items() if name not in held}})


def load_state(path: str | Path, like: Any) -> Any:
    """The state of a file, on the CPU, in the form of another, such as `memory.start(batch)`.

    Raises FileNotFoundError for no file, ValueError for one that is damaged, no state, or a state of another form.
    """
    held, said = read_file(path, STATE)
    leaves, wanted = held | dict(said.get("facts", {})), entries(like)
    shapes = [
        {name: tuple(leaf.shape) if isinstance(leaf, Tensor) else () for name, leaf in each.items()}
        for each in (leaves, wanted)
    ]
    if shapes[0] != shapes[1]:
        odd = [name for name in {**shapes[1], **shapes[0]} if shapes[0].get(name) != shapes[1].get(name)]
        raise ValueError(f"{path} is no state in the form of `like`: they differ in {brief(odd)}")
    return refilled(like, leaves)


def fill(model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path, may_lack: tuple[str, ...] = ()) -> None:
    """Put the weights of the file `path` into a model, in place.

    Raises ValueError where a tensor is missing, left over, or of another shape; the model is then unchanged. Tensors
    that `may_lack` names, or whose names begin with one of it and a dot, stay as they are where the file has none.
    """
    own = model.state_dict()
    for part in may_lack:
        of_part = {name for name in [*own, *tensors] if f"{name}.".startswith(f"{part}.")}
        own = own if of_part & tensors.keys() else {name: own[name] for name in own if name not in of_part}
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    wrong = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    if wrong:
        name = min(wrong)
        shapes = f"shape {list(tensors[name].shape)}, in the model {list(own[name].shape)}"
        raise ValueError(f"{path} does not fit the model: {name} has {shapes}; build the model from the file's config")
    if missing or extra:
        lacks = "; ".join(
            f"{what} {brief(names)}" for what, names in (("lacks", missing), ("has also", extra)) if names
        )
        raise ValueError(f"{path} does not fit the model: it {lacks}; build the model from the file's config")
    model.load_state_dict(dict(tensors), strict=not may_lack)


def neutral(model: nn.Module) -> tuple[str, ...]:
    """The names of those parts of a model that change nothing before they are trained, or little: its config says how
    much momentum and forgetting it begins with.

    A module names them as its `neutral`; `fill` may do without them.
    """
    owners = {prefix: getattr(module, "neutral", ()) for prefix, module in model.named_modules()}
    return tuple(f"{prefix}.{part}".lstrip(".") for prefix, parts in owners.items() for part in parts)


def fingerprint(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Twelve hex digits of the sha256 over config and weights, the same on every machine.

    >>> import torch
    >>> fingerprint({"dim": 2}, {"w": torch.zeros(2)}) == fingerprint({"dim": 2}, {"w": torch.ones(2)})
    False
    """
    return hashlib.sha256(packed(tensors, FORMAT, {"config": dict(config)})).hexdigest()[:12]


def write_file(path: str | Path, tensors: Mapping[str, Tensor], form: str, said: dict[str, Any]) -> Path:
    """A safetensors file of the format `form` with one JSON object `said` beside its tensors."""
    return replace_file(Path(path), packed(tensors, form, {"version": VERSION} | said))


def read_file(path: str | Path, form: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON object of a file that `write_file` wrote; raises what `load_model` raises."""
    content = read_bytes(path)
    said = description(path, header(path, content), form)
    try:
        return {name: tensor.clone() for name, tensor in load_tensors(content).items()}, said
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): fetch it again, or train it again") from error


def packed(tensors: Mapping[str, Tensor], form: str, said: dict[str, Any]) -> bytes:
    """The bytes of a file; equal for equal tensors and descriptions."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    return tensor_bytes(ready, {form: json.dumps(said, sort_keys=True, separators=(",", ":"))})


def read_bytes(path: str | Path, what: str = "checkpoint") -> bytes:
    """The bytes of a file that is to be a `what`; FileNotFoundError with the path for none, ValueError for a folder."""
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no {what} {path}: check the path")
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder, not a {what}: name a file in it")
    return Path(path).read_bytes()


def header(path: str | Path, content: bytes, what: str = "checkpoint") -> dict[str, Any]:
    """The JSON header of a safetensors file; ValueError where the bytes are none, or fewer than it promises."""
    size = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
    if not 2 <= size <= LONGEST_HEADER or content[8:9] not in (b"{", b""):
        raise ValueError(f"{path} is not a {what}: it does not begin like a safetensors file")
    check_length(path, content, 8 + size)
    try:
        head = json.loads(content[8 : 8 + size])
        about, entries = head.pop("__metadata__", None), head.values()
        ends = [int(entry["data_offsets"][1]) for entry in entries if isinstance(entry["shape"], list)]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its header is not that of a safetensors file; get it again") from error
    check_length(path, content, 8 + size + max(ends, default=0))
    return head | {"__metadata__": about if isinstance(about, dict) else {}}


def check_length(path: str | Path, content: bytes, promised: int) -> None:
    """Raise ValueError where the file is shorter than its header promises."""
    if len(content) < promised:
        raise ValueError(f"{path} is truncated: it has {len(content)} bytes of {promised}; write or fetch it again")


def description(path: str | Path, head: Mapping[str, Any], form: str) -> dict[str, Any]:
    """The JSON object in a header; ValueError for another format or a newer version."""
    metadata = head["__metadata__"]
    if form not in metadata:
        found = f"it is {brief(sorted(metadata))}" if metadata else "it says nothing about itself"
        raise ValueError(f"{path} is a safetensors file but no {form}: {found}")
    try:
        said = dict(json.loads(metadata[form]))
        version = version_of(said)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its {form} entry is not a JSON object with a version") from error
    if version > VERSION:
        raise ValueError(f"{path} has version {version} of {form}, this ttmem reads up to {VERSION}: upgrade ttmem")
    return said


def version_of(said: dict[str, Any]) -> int:
    """Take the version out of a description; ValueError for what is none."""
    version = said.pop("version")
    if type(version) is not int or version < 1:
        raise ValueError(f"version must be a whole number >= 1, got {version!r}")
    return version


def brief(names: list[str], most: int = 3) -> str:
    """The first few of many names.

    >>> brief(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shelf() -> Path:
    """Where the shipped checkpoints lie."""
    return Path(str(files("ttmem"))) / "checkpoints"


def start_file(where: str) -> Path:
    """The file that `train.start_from` means: a path, or the name of a shipped checkpoint.

    A shipped one may also be written with the path that it has in the repository, from wherever the run is started.
    """
    path = Path(where)
    named = path.name == where or path.parts[-3:-1] == ("ttmem", "checkpoints")
    shipped = shelf() / f"{path.name.removesuffix('.safetensors')}.safetensors"
    if not path.exists() and not (named and shipped.is_file()):
        raise FileNotFoundError(f"train.start_from: there is no checkpoint {where}, and none of that name is shipped")
    return path if path.exists() else shipped


def replace_file(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all: beside it first, then in its place; OSError with the path where that fails."""
    place = place_of(path)
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, place)
    except OSError as error:  # it names the file beside, which the user never heard of
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return path


def place_of(path: Path) -> Path:
    """The file that a write to the path replaces: where symbolic links lead; ValueError for what is no plain file."""
    place = Path(os.path.realpath(path))
    if place.is_dir():
        raise ValueError(f"{path} is a folder: name a file in it")
    if place.exists() and not place.is_file():
        raise ValueError(f"{path} is no plain file, and is not overwritten: name another")
    return place
