"""A written memory as a file: safetensors with one JSON object beside the tensors (docs/memory-file.md)."""

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from .checkpoint import packed, replace_file
from .core.state import State

FORMAT = "ttmem-memory"
VERSION = 1
LONGEST_HEADER = 100_000_000  # the limit of safetensors itself


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
        return cls(name, fingerprint, kind, shapes_of(model.start(1)))


@dataclass(frozen=True)
class About:
    """What a memory file says about its memories, one per row.

    Args:
        writer: the model that wrote them.
        task: the task whose questions they answer.
        steps: write steps of each write; `writes`: how many writes went into each memory.
        losses: nats per token before each write step, a list per memory.
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


def describe(writer: Writer, task: str, texts: Sequence[str], losses: Tensor, created: str | None = None) -> About:
    """What to say about memories that were just written from `texts`; `losses` is the write's log, `(steps, batch)`.

    `created` is now where it is left out; with it, equal memories give equal bytes.
    """
    from . import __version__

    return About(
        writer=writer,
        task=task,
        steps=len(losses),
        losses=losses.detach().double().T.tolist(),
        digests=[hashlib.sha256(text.encode()).hexdigest() for text in texts],
        lengths=[len(text) for text in texts],
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        ttmem=__version__,
    )


def save_memory(path: str | Path, state: State, about: About) -> Path:
    """Write the file, whole or not at all; ValueError where state and description do not belong together."""
    if state.velocity:
        raise ValueError("this state is in the middle of a write: save what model.write gives back")
    rows = len(next(iter(state.fast.values())))
    if (rows, shapes_of(state)) != (len(about.digests), about.writer.shapes):
        has = f"{rows} memories of shapes {shapes_of(state)}"
        raise ValueError(f"the state has {has}, the description {len(about.digests)} of {about.writer.shapes}")
    if not all(leaf.isfinite().all() for leaf in state.fast.values()):
        raise ValueError(f"the write diverged, losses {about.losses}: take fewer steps")
    return replace_file(Path(path), packed(state.fast, FORMAT, replace(about, writes=state.step).as_dict()))


def load_memory(path: str | Path, writer: Writer | None = None) -> tuple[State, About]:
    """The memories of a file, on the CPU, and what it says about them.

    With the `writer` that will read them, raises MemoryMismatch where another model wrote them. Raises
    FileNotFoundError for no file, ValueError for a file that is truncated, damaged, no memory, or of a newer version.
    """
    content = read_bytes(path)
    about = parse(path, read_header(path, content))
    if writer is not None:
        check_writer(path, about.writer, writer)
    try:
        fast = load_tensors(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): write it again") from error
    if shapes_of(State(fast)) != about.writer.shapes:
        raise ValueError(f"{path} is damaged: its tensors are {shapes_of(State(fast))}, it says {about.writer.shapes}")
    return State(fast, (), about.writes), about


def read_about(path: str | Path) -> About:
    """What a memory file says, without its tensors; raises what `load_memory` raises."""
    return parse(path, read_header(path, read_bytes(path)))


def read_bytes(path: str | Path) -> bytes:
    """The file's bytes; FileNotFoundError with the path for no file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no memory file {path}")
    return Path(path).read_bytes()


def read_header(path: str | Path, content: bytes) -> dict[str, Any]:
    """The JSON header of a safetensors file; ValueError where the bytes are none, or fewer than it promises."""
    size = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
    if not 2 <= size <= LONGEST_HEADER or content[8:9] not in (b"{", b""):
        raise ValueError(f"{path} is not a memory file: it does not begin like a safetensors file")
    check_length(path, content, 8 + size)
    try:
        header = json.loads(content[8 : 8 + size])
        about, tensors = header.pop("__metadata__", None), header.values()
        ends = [int(entry["data_offsets"][1]) for entry in tensors if isinstance(entry["shape"], list)]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: its header is not that of a safetensors file") from error
    check_length(path, content, 8 + size + max(ends, default=0))
    return header | {"__metadata__": about if isinstance(about, dict) else {}}


def check_length(path: str | Path, content: bytes, promised: int) -> None:
    """Raise ValueError where the file is shorter than its header promises."""
    if len(content) < promised:
        raise ValueError(f"{path} is truncated: it has {len(content)} bytes of {promised}; write or fetch it again")


def parse(path: str | Path, header: dict[str, Any]) -> About:
    """The description in a header; ValueError for another format, a newer version, and missing or unknown fields."""
    metadata = header.get("__metadata__", {})
    if FORMAT not in metadata:
        raise ValueError(f"{path} is a safetensors file but no {FORMAT}: is it a checkpoint?")
    try:
        said = json.loads(metadata[FORMAT])
        form, version = said.pop("format"), int(said.pop("version"))
        if version <= VERSION and form == FORMAT:
            return About(**said | {"writer": Writer(**said["writer"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wanted = ", ".join(field.name for field in fields(About))
        raise ValueError(f"{path} is damaged: its description is not JSON with just {wanted}") from error
    raise ValueError(
        f"{path} has version {version} of {form}, this ttmem reads up to {VERSION} of {FORMAT}: upgrade ttmem"
    )


def check_writer(path: str | Path, wrote: Writer, reads: Writer) -> None:
    """Raise MemoryMismatch, with the reason, where the model that reads is not the one that wrote."""
    if wrote.fingerprint == reads.fingerprint and wrote.shapes == reads.shapes:
        return
    reason = "its weights differ"
    if wrote.shapes != reads.shapes:
        reason = f"the memory has shapes {wrote.shapes}, the model's are {reads.shapes}"
    elif wrote.kind != reads.kind:
        reason = f"the memory is of kind {wrote.kind}, the model's of kind {reads.kind}"
    raise MemoryMismatch(
        f"{path} was written by model {wrote.name} ({wrote.fingerprint}) and cannot be read by {reads.name} "
        f"({reads.fingerprint}): {reason}; ask {wrote.name}, or write the text again with {reads.name}"
    )


def shapes_of(state: State) -> dict[str, list[int]]:
    """Shapes of one memory, by name, without the batch."""
    return {name: list(leaf.shape[1:]) for name, leaf in sorted(state.fast.items())}
