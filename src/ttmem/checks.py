"""What configs ask of their fields when they are made: one clear line that names the field, the bound and the value.

Any layer may use it; it knows none. A field that is None is not set, and no bound holds for it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any


def at_least(config: Any, bounds: Mapping[str, int]) -> None:
    """Raise ValueError unless each field is at least its bound (NaN is not)."""
    for field, least in bounds.items():
        value = getattr(config, field)
        if value is not None and not value >= least:
            raise ValueError(f"{field} must be >= {least}, got {value}")


def not_negative(**counts: int) -> None:
    """Raise ValueError unless each argument is at least 0.

    >>> not_negative(steps=-1)
    Traceback (most recent call last):
    ValueError: steps must be >= 0, got -1
    """
    for name, value in counts.items():
        if value < 0:
            raise ValueError(f"{name} must be >= 0, got {value}")


def below(config: Any, bounds: Mapping[str, int]) -> None:
    """Raise ValueError unless each field is less than its bound."""
    for field, bound in bounds.items():
        value = getattr(config, field)
        if value is not None and not value < bound:
            raise ValueError(f"{field} must be < {bound}, got {value}")


def whole(config: Any, fields: Iterable[str]) -> None:
    """Raise ValueError unless each field that is set is a whole number, and no float."""
    for field in fields:
        value = getattr(config, field)
        if value is not None and not hasattr(value, "__index__"):
            raise ValueError(f"{field} must be a whole number, got {value!r}")


def positive(config: Any, fields: Iterable[str]) -> None:
    """Raise ValueError unless each field is above 0, and finite."""
    for field in fields:
        value = getattr(config, field)
        if value is not None and not value > 0:
            raise ValueError(f"{field} must be > 0, got {value}")
        finite(config, (field,))


def finite(config: Any, fields: Iterable[str]) -> None:
    """Raise ValueError where a field is infinite, or no number."""
    for field in fields:
        value = getattr(config, field)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{field} must be finite, got {value}")


def shares(config: Any, fields: Iterable[str]) -> None:
    """Raise ValueError unless each field is between 0 and 1."""
    for field in fields:
        value = getattr(config, field)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{field} must be between 0 and 1, got {value}")


def one_of(config: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError unless each field is one of its choices.

    >>> from types import SimpleNamespace
    >>> one_of(SimpleNamespace(gate="third"), {"gate": ("two-way", "product")})
    Traceback (most recent call last):
    ValueError: gate must be one of two-way, product, got 'third'
    """
    for field, known in choices.items():
        if getattr(config, field) not in known:
            raise ValueError(f"{field} must be one of {', '.join(known)}, got {getattr(config, field)!r}")


def own(config: Any, kind: str, owners: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError where an option is set that only other kinds have: it would change nothing.

    `kind` is the field that names which one the config is of, `owners` the kinds that have each option.

    >>> from dataclasses import make_dataclass
    >>> Layer = make_dataclass("Layer", [("memory", str), ("slots", int, 8)])
    >>> own(Layer("matrix", slots=9), "memory", {"slots": ("tokens",)})
    Traceback (most recent call last):
    ValueError: slots must be 8 for memory=matrix, got 9: an option of tokens
    """
    here = getattr(config, kind)
    for each in fields(config):
        value, whose = getattr(config, each.name), owners.get(each.name, (here,))
        if here not in whose and value != each.default:
            got = f"{value}: an option of {', '.join(whose)}"
            raise ValueError(f"{each.name} must be {each.default} for {kind}={here}, got {got}")
