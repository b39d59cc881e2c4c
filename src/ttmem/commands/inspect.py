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
    """What the file says, and its tensors; ValueError where it is neither memory nor checkpoint."""
    from safetensors import safe_open

    said = record(path)
    with safe_open(path, "pt") as file:
        return said | {"tensors": {name: file.get_slice(name).get_shape() for name in sorted(file.keys())}}


def record(path: Path) -> dict[str, Any]:
    """The description of a checkpoint, or else of a memory."""
    from ..checkpoint import read_meta
    from ..memory_file import read_about
    from ..zoo import load

    try:
        about = read_meta(path)
    except ValueError:
        return read_about(path).as_dict()
    return {"fingerprint": load(path).fingerprint} | about


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
