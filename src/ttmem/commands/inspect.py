"""`ttmem inspect`: what a file is and what it says about itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from .base import Command, lines


@dataclass(frozen=True, kw_only=True)
class Inspect(Command):
    """Say what a memory file or a checkpoint holds."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """A memory file, a checkpoint, or the name of a shipped checkpoint (ttmem models)."""

    def run(self) -> None:
        from ..zoo import locate

        path = locate(self.file)
        found = {"file": str(path), "bytes": path.stat().st_size} | contents(path)
        self.tell(found, lines({name: _short(value) for name, value in flat(found).items()}))


def contents(path: Path) -> dict[str, Any]:
    """What the file says about itself and the shapes of its tensors; ValueError for neither memory nor checkpoint."""
    from ..checkpoint import header, read_bytes
    from ..memory_file import FORMAT, load_memory

    head = header(path, read_bytes(path), "memory file or checkpoint")
    shapes = {name: entry["shape"] for name, entry in sorted(head.items()) if name != "__metadata__"}
    if FORMAT in head["__metadata__"]:
        return load_memory(path)[1].as_dict() | {"tensors": shapes}  # so that what it tells is what `ask` would read
    return checkpoint(path) | {"tensors": shapes}


def checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint says about itself."""
    from ..checkpoint import FORMAT, load_model

    found = load_model(path)
    return {"format": FORMAT, "fingerprint": found.fingerprint, "config": found.config, "facts": found.meta}


def flat(found: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names joined by dots.

    >>> flat({"writer": {"name": "tokens-n1"}, "steps": 2})
    {'writer.name': 'tokens-n1', 'steps': 2}
    """
    parts: dict[str, Any] = {}
    for name, value in found.items():
        parts |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return parts


def _short(value: Any, most: int = 100) -> str:
    text = str(value)
    return text if len(text) <= most else text[: most - 4] + " ..."
