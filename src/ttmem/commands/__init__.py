"""The commands: a frozen dataclass each, whose fields are its flags. Importing them needs no torch."""

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Annotated, Any, Union

import tyro

from .base import Command
from .curve import Curve
from .demo import Demo
from .evaluate import Eval
from .inspect import Inspect
from .memory import Ask, Write
from .models import Models
from .train import Train

COMMANDS: dict[str, type[Command]] = {
    "demo": Demo,
    "train": Train,
    "models": Models,
    "eval": Eval,
    "curve": Curve,
    "write": Write,
    "ask": Ask,
    "inspect": Inspect,
}

__all__ = ["COMMANDS", "Ask", "Command", "Curve", "Demo", "Eval", "Inspect", "Models", "Train", "Write", "parse"]


def parse(words: Sequence[str]) -> Command:
    """The command that the words ask for; SystemExit for help, ValueError in one line for words that do not parse."""
    config = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    kinds = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items())
    any_command: Any = Union[kinds]  # noqa: UP007
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(any_command, prog="ttmem", description=ABOUT, args=list(words), config=config)
    except SystemExit as stop:
        if not stop.code:
            raise
        why = _refusal(said.getvalue())
    help_of = f"ttmem {words[0]}" if words[0] in COMMANDS else "ttmem"
    raise ValueError(f"{why}; see {help_of} --help")


def _refusal(box: str) -> str:
    """The box of several lines in which the parser says what is wrong, as one line.

    >>> print(_refusal("╭─ Required ──────╮\\n│ Missing from a: │\\n│     FILE        │\\n╰─────────────────╯"))
    missing from a: FILE
    """
    rows = [row[2:].rstrip("│ ") for row in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:]]
    split = re.split(r"^[─-]{4,}╯?$", "\n".join(rows), flags=re.MULTILINE)  # hyphens where stdout is not UTF-8
    parts = [part.strip("\n") for part in split if part.strip()]
    if number := _NUMBER.search(" ".join(parts[0].split())):
        kind = "a whole number" if "int" in number[2] else "a number"
        return f"{number[1]} must be {kind}, got {number[3]}"
    if parts[0].startswith("Missing from"):
        names = re.findall(r"^ {4}(\S.*)$", parts[0], flags=re.MULTILINE)
        return f"missing from {parts[0].split(':')[0].removeprefix('Missing from ')}: {', '.join(names)}"
    if near := re.match(r"Perhaps you meant:\s+(\S+)", parts[1] if len(parts) > 1 else ""):
        return f"{_joined(parts[0])}; did you mean {near[1]}?"
    known = parts[1:2] if len(parts) > 1 and parts[1].startswith("Available") else []
    return "; ".join(_joined(part) for part in (parts[0], *known))


def _joined(part: str) -> str:
    text = " ".join(part.split()).rstrip(".")
    return text[:1].lower() + text[1:]


_NUMBER = re.compile(r"Error parsing (\S+):.*(invalid literal for int|could not convert string to float).*: ('.*')")


ABOUT = "Memory trained at test time: write a text into fast weights, delete the text, ask the memory."
