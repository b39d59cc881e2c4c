"""The commands: a frozen dataclass each, whose fields are its flags. Importing them needs no torch."""

from collections.abc import Sequence
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
    """The command that the words ask for; SystemExit for help (0) and for words that do not parse (2)."""
    config = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    kinds = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items())
    any_command: Any = Union[kinds]  # noqa: UP007
    return tyro.cli(any_command, prog="ttmem", description=ABOUT, args=list(words), config=config)


ABOUT = "Memory trained at test time: write a text into fast weights, delete the text, ask the memory."
