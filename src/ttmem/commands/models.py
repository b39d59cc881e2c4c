"""`ttmem models`: what is shipped."""

from dataclasses import dataclass

from .base import Command, columns


@dataclass(frozen=True, kw_only=True)
class Models(Command):
    """List the shipped checkpoints: task, exact match recorded when they were trained, sizes."""

    def run(self) -> None:
        from ..zoo import listing

        found = listing()
        head = ["name", "task", "exact match", "file", "memory"]
        self.tell(found, columns([head, *(row(entry) for entry in found)]))


def row(entry: dict) -> list[str]:
    """A line of the table."""
    if not entry["shipped"]:
        return [entry["name"], "-", "-", "not in this installation", "-"]
    exact = "-" if entry["exact_match"] is None else f"{entry['exact_match']:.4f}"
    memory = "-" if entry["memory_bytes"] is None else f"{entry['memory_bytes']} bytes"
    return [entry["name"], entry["task"] or "-", exact, f"{entry['bytes'] / 1e6:.2f} MB", memory]
