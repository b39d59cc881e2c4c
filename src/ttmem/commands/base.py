"""What the commands share: two flags, and how they speak."""

import json as jsonlib
import sys
from dataclasses import dataclass
from typing import Any

import tyro


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command; its fields are its flags."""

    json: bool = False
    """Print one JSON object instead of text."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> None:
        """Do it; ValueError and OSError are the user's to mend."""
        raise NotImplementedError

    def tell(self, value: Any, text: str) -> None:
        """Print the value as JSON where that was asked for, else the text."""
        say(jsonlib.dumps(value, indent=2) if self.json else text)


def checkpoint() -> Any:
    """The argument CHECKPOINT."""
    return tyro.conf.arg(metavar="CHECKPOINT")


def unset(metavar: str, *aliases: str) -> Any:
    """A flag that may be left out; its help says what happens then."""
    return tyro.conf.arg(metavar=metavar, aliases=aliases or None, help_behavior_hint="")


def say(text: str) -> None:
    """Print a text."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def lines(pairs: dict[str, Any]) -> str:
    """Names and values as two columns.

    >>> print(lines({"task": "N1-K1V1-V62", "steps": 2}))
    task   N1-K1V1-V62
    steps  2
    """
    width = max(map(len, pairs), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in pairs.items())


def columns(rows: list[list[str]]) -> str:
    """Rows as a table whose columns are as wide as they must be; the first row is the head.

    >>> print(columns([["name", "size"], ["tokens-n1", "9"]]))
    name       size
    tokens-n1  9
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
