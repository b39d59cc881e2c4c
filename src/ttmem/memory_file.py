"""A written memory as a file: safetensors with one JSON object beside the tensors (docs/memory-file.md)."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from .checkpoint import header, packed, read_bytes, replace_file, version_of
from .core.state import State, Tree, map_state, named

FORMAT = "ttmem-memory"
VERSION = 1
WHAT = "memory file"
COUNTING = ("seen", "place", "count")  # tokens, in a Titans state; all else is in floating point


class MemoryMismatch(ValueError):
    """A memory was given to a model that did not write it."""


@dataclass(frozen=True)
class Writer:
    """Which model a memory belongs to: its `name` and `fingerprint`, its kind of memory, the shapes of one memory."""

    name: str
    fingerprint: str
    kind: str
    shapes: dict[str, list[int]]

    @classmethod
    def of(cls, model: Any, name: str, fingerprint: str) -> "Writer":
        """The writer that a model is.

        >>> from ttmem.models import ModelConfig, build
        >>> Writer.of(build(ModelConfig(dim=16, layers=1)), "mine", "0f3a").shapes
        {'mem': [8, 16]}
        """
        kind = getattr(getattr(model, "memory", None), "kind", "") or type(model).__name__
        return cls(name, fingerprint, kind, shapes_of(by_row(model.start(1), 1)))


@dataclass(frozen=True)
class About:
    """What a memory file says about its memories, one per row.

    Args:
        writer: the model that wrote them.
        task: the task whose questions they answer.
        steps: gradient steps on each segment (a context without segments is one); 0: the model's write has no number.
        writes: how many writes went into each memory.
        losses: nats per token, a list per memory: before each step, segment after segment, or of each segment.
        digests, lengths: sha256 of each context's UTF-8 text, and its characters; the text itself is not kept.
        created: when, ISO 8601 in UTC.
        ttmem: the version of the library that wrote.
    """

    writer: Writer
    task: str
    steps: int
    losses: list[list[float]]
    digests: list[str]
    lengths: list[int]
    created: str
    ttmem: str
    writes: int = 1

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of the file."""
        return {"format": FORMAT, "version": VERSION} | asdict(self)


def describe(
    writer: Writer,
    task: str,
    texts: Sequence[str],
    losses: Tensor,
    created: str | None = None,
    steps: int | None = None,
) -> About:
    """What to say about memories that were just written from `texts`; `losses` is the write's log, `(steps, batch)`.

    `created` is now where it is left out; with it, equal memories give equal bytes. `steps` are those on each segment
    (`write_steps`); left out, as many as there are losses, which is so where contexts have one segment.
    """
    from . import __version__

    return About(
        writer=writer,
        task=task,
        steps=len(losses) if steps is None else steps,
        losses=losses.detach().double().T.tolist(),
        digests=[hashlib.sha256(text.encode()).hexdigest() for text in texts],
        lengths=[len(text) for text in texts],
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        ttmem=__version__,
    )


def write_steps(model: Any, asked: int | None = None) -> int:
    """Gradient steps on each segment of a write that was asked for so many; 0 where its write takes no number."""
    if not getattr(model, "takes_steps", False):
        return 0
    return int(model.config.steps if asked is None else asked)


def save_memory(path: str | Path, state: State, about: About) -> Path:
    """Write the file, whole or not at all; ValueError where state and description do not belong together."""
    if state.velocity:
        raise ValueError("this state is in the middle of a write: save what model.write gives back")
    fast = by_row(state, len(about.digests))
    check_fast(fast, about)
    if not all(leaf.isfinite().all() for leaf in fast.values()):
        raise ValueError(f"the write diverged, losses {about.losses}: take fewer steps")
    if field := unsound(asdict(about)):
        raise ValueError(f"the description has no sound {field}, got {getattr(about, field)!r:.60}")
    return replace_file(Path(path), packed(fast, FORMAT, replace(about, writes=state.step).as_dict()))


def check_fast(fast: Tree, about: About) -> None:
    """Raise ValueError where tensors are not those of the memories described."""
    rows, shapes = len(about.digests), about.writer.shapes
    if is_of(fast, about):
        return
    if all(len(leaf) == rows for leaf in fast.values()) and any(0 in shape for shape in shapes.values()):
        raise ValueError(f"{about.writer.kind} has no memory file: what it keeps grows with the text, which it holds")
    has = {name: list(leaf.shape) for name, leaf in sorted(fast.items())}
    raise ValueError(f"the state has {has}, the description {rows} memories of {shapes}: describe what was written")


def load_memory(path: str | Path, writer: Writer | None = None, like: State | None = None) -> tuple[State, About]:
    """The memories of a file, on the CPU, and what it says about them.

    With the `writer` that will read them, raises MemoryMismatch where another model wrote them. States that are more
    than tensors by name (Titans) are put together `like` one of the model, `model.start(1)`. Raises
    FileNotFoundError for no file, ValueError for a file that is truncated, damaged, no memory, or of a newer version.
    """
    content = read_bytes(path, WHAT)
    about = parse(path, header(path, content, WHAT))
    if writer is not None:
        check_writer(path, about.writer, writer)
    try:
        tensors = load_tensors(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): write it again") from error
    if not is_of(tensors, about):
        has = {name: list(leaf.shape) for name, leaf in sorted(tensors.items())}
        said = f"{len(about.digests)} memories of {about.writer.shapes}"
        raise ValueError(f"{path} is damaged: its tensors are {has}, it says {said}")
    check_numbers(path, tensors)
    return State(tensors if like is None else put_together(path, tensors, like), (), about.writes), about


def read_about(path: str | Path) -> About:
    """What a memory file says, without its tensors; raises what `load_memory` raises."""
    return parse(path, header(path, read_bytes(path, WHAT), WHAT))


def parse(path: str | Path, head: dict[str, Any]) -> About:
    """The description in a header; ValueError for another format, a newer version, and missing or unknown fields."""
    metadata = head["__metadata__"]
    if FORMAT not in metadata:
        raise ValueError(f"{path} is a safetensors file but no {FORMAT}: is it a checkpoint?")
    names = {field.name for field in fields(About)}
    try:
        said = {"writes": 1} | json.loads(metadata[FORMAT])
        form, version = said.pop("format"), version_of(said)
    except KeyError as error:
        raise ValueError(f"{path} is damaged: its description lacks {error.args[0]}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its description is not JSON, or has no version") from error
    if (form, version) != (FORMAT, VERSION):
        known = f"this ttmem reads up to {VERSION} of {FORMAT}: upgrade ttmem"
        raise ValueError(f"{path} has version {version} of {form}, {known}")
    if said.keys() != names:
        odd = ", ".join(sorted(said.keys() ^ names))
        raise ValueError(f"{path} is damaged: its description lacks, or has beyond what is known, {odd}")
    if field := unsound(said):
        raise ValueError(f"{path} is damaged: its description has no sound {field}, got {said[field]!r:.60}")
    return About(**said | {"writer": Writer(**said["writer"])})


def unsound(said: dict[str, Any]) -> str | None:
    """The first field of a description that is not as documented; None where all are."""
    writer = said["writer"] if isinstance(said["writer"], dict) else {}
    shapes = list(writer["shapes"].values()) if isinstance(writer.get("shapes"), dict) else [None]
    names = [writer.get(part) for part in ("name", "fingerprint", "kind")]
    rows, losses = (len(said[part]) if isinstance(said[part], list) else -1 for part in ("digests", "losses"))
    sound = {
        "writer": len(writer) == 4 and _texts(*names) and all(map(_counts, shapes)),
        "task": _texts(said["task"]),
        "steps": _counts([said["steps"]]),
        "writes": _counts([said["writes"]]),
        "digests": rows > 0 and _texts(*said["digests"]),
        "lengths": _counts(said["lengths"]) and len(said["lengths"]) == rows,
        "losses": losses == rows and all(map(_numbers, said["losses"])),
        "created": _is_date(said["created"]),
        "ttmem": _texts(said["ttmem"]),
    }
    return next((field for field, right in sound.items() if not right), None)


def _texts(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _numbers(values: Any, kinds: tuple[type, ...] = (int, float)) -> bool:
    return isinstance(values, list) and all(type(value) in kinds and math.isfinite(value) for value in values)


def _counts(values: Any) -> bool:
    return _numbers(values, (int,)) and min(values, default=0) >= 0


def _is_date(text: Any) -> bool:
    try:
        return bool(datetime.fromisoformat(text))
    except (TypeError, ValueError):
        return False


def check_numbers(path: str | Path, tensors: Tree) -> None:
    """Raise ValueError where a tensor is not of the documented type, or holds what is no number."""
    for name, leaf in sorted(tensors.items()):
        whole = name.rpartition(".")[2] in COUNTING
        if not (leaf.dtype == torch.int64 if whole else leaf.is_floating_point() and leaf.isfinite().all()):
            raise ValueError(f"{path} is damaged: {name}, in {leaf.dtype}, holds what no memory does; write it again")


def check_writer(path: str | Path, wrote: Writer, reads: Writer) -> None:
    """Raise MemoryMismatch, with the reason, where the model that reads is not the one that wrote."""
    if wrote.fingerprint == reads.fingerprint and wrote.shapes == reads.shapes:
        return
    reason = "its weights differ"
    if wrote.shapes != reads.shapes:
        reason = f"the memory has shapes {wrote.shapes}, the model's are {reads.shapes}"
    elif wrote.kind != reads.kind:
        reason = f"the memory is of kind {wrote.kind}, the model's of kind {reads.kind}"
    right, again = wrote.name, reads.name
    if right == again:
        right, again = f"the {right} that is {wrote.fingerprint}", f"the one that is {reads.fingerprint}"
    raise MemoryMismatch(
        f"{path} was written by model {wrote.name} ({wrote.fingerprint}) and cannot be read by {reads.name} "
        f"({reads.fingerprint}): {reason}; ask {right}, or write the text again with {again}"
    )


def shapes_of(fast: Tree) -> dict[str, list[int]]:
    """Shapes of one memory, by name, without the row."""
    return {name: list(leaf.shape[1:]) for name, leaf in sorted(fast.items())}


def is_of(fast: Tree, about: About) -> bool:
    """Whether tensors are as many memories as described, of the shapes described."""
    rows = all(leaf.shape[:1] == (len(about.digests),) for leaf in fast.values())
    return rows and shapes_of(fast) == about.writer.shapes


def by_row(state: State, rows: int) -> Tree:
    """Copies of a state's tensors by name, the row in front; heads, which may be rows as well, come second."""
    found = {name: leaf.detach().clone() for name, leaf in named(state.fast).items()}
    several = {name for name, leaf in found.items() if rows and len(leaf) > rows and len(leaf) % rows == 0}
    return {name: leaf.unflatten(0, (rows, -1)) if name in several else leaf for name, leaf in found.items()}


def put_together(path: str | Path, tensors: Tree, like: State) -> dict[str, Any]:
    """Tensors by name in the form of another state's; MemoryMismatch where they are not the same ones."""
    if shapes_of(tensors) != shapes_of(by_row(like, 1)):
        raise MemoryMismatch(f"{path} is of another model than `like`: give model.start(1) of the one that wrote it")
    names = iter(named(like.fast))

    def found(leaf: Tensor) -> Tensor:
        tensor = tensors[next(names)]
        return tensor if tensor.ndim == leaf.ndim else tensor.flatten(0, 1)

    return map_state(found, like.fast)
