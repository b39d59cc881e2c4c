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
    """Print a text; nothing where stdout was closed."""
    if sys.stdout is None:
        return
    sys.stdout.write("\n".join(map(plain, text.split("\n"))) + "\n")
    sys.stdout.flush()


def plain(text: str) -> str:
    r"""The text with its control characters spelled out: names in files may hold any, a terminal obeys them.

    >>> print(plain("tokens\x1b[2J, größer"))
    tokens\x1b[2J, größer
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


MOST = 10_000_000
"""Of anything that is counted: more would run without end."""


def at_least_one(**counts: int | None) -> None:
    """ValueError for a flag that must be 1 or more, and no more than MOST; one that is None was left out.

    >>> at_least_one(samples=0)
    Traceback (most recent call last):
    ValueError: --samples must be >= 1, got 0
    """
    for flag, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"--{flag} must be >= 1, got {count}")
        if count is not None and count > MOST:
            raise ValueError(f"--{flag} must be <= {MOST:,}, got {count}")


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
