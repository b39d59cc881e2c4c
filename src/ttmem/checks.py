"""What configs ask of their fields when they are made: one clear line that names the field, the bound and the value.

Any layer may use it; it knows none. A field that is None is not set, and no bound holds for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def at_least(config: Any, bounds: Mapping[str, int]) -> None:
    """Raise ValueError unless each field is at least its bound (NaN is not)."""
    for field, least in bounds.items():
        value = getattr(config, field)
        if value is not None and not value >= least:
            raise ValueError(f"{field} must be >= {least}, got {value}")


def positive(config: Any, fields: Iterable[str]) -> None:
    """Raise ValueError unless each field is above 0."""
    for field in fields:
        value = getattr(config, field)
        if value is not None and not value > 0:
            raise ValueError(f"{field} must be > 0, got {value}")


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
