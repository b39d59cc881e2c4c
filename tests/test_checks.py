"""What configs ask of their fields: the line names field, bound and value; None is never out of bounds."""

from types import SimpleNamespace

import pytest

from ttmem.checks import at_least, below, finite, one_of, positive, shares

NAN = float("nan")


def has(value):
    return SimpleNamespace(field=value)


@pytest.mark.parametrize("value", [2, 3, 2.0, None])
def test_a_field_at_its_bound_or_unset_passes(value):
    at_least(has(value), {"field": 2})


@pytest.mark.parametrize("value", [1, -5, NAN])
def test_a_field_below_its_bound_is_named(value):
    with pytest.raises(ValueError, match=f"^field must be >= 2, got {value}$"):
        at_least(has(value), {"field": 2})


@pytest.mark.parametrize("value", [0, -1, NAN])
def test_what_must_be_positive_is_above_zero(value):
    positive(has(1e-9), ["field"])
    positive(has(None), ["field"])
    with pytest.raises(ValueError, match=f"^field must be > 0, got {value}$"):
        positive(has(value), ["field"])


@pytest.mark.parametrize("check", [positive, finite])
def test_what_must_be_positive_or_finite_is_not_infinite(check):
    check(has(None), ["field"])
    check(has(1e300), ["field"])
    with pytest.raises(ValueError, match="^field must be finite, got inf$"):
        check(has(float("inf")), ["field"])


@pytest.mark.parametrize("value", [1, 1.5, NAN])
def test_a_field_below_a_bound_is_less_than_it(value):
    below(has(0.999), {"field": 1})
    below(has(None), {"field": 1})
    with pytest.raises(ValueError, match=f"^field must be < 1, got {value}$"):
        below(has(value), {"field": 1})


@pytest.mark.parametrize("value", [-0.1, 1.1, NAN])
def test_a_share_is_between_zero_and_one(value):
    for fine in (0, 0.5, 1, None):
        shares(has(fine), ["field"])
    with pytest.raises(ValueError, match=f"^field must be between 0 and 1, got {value}$"):
        shares(has(value), ["field"])


def test_a_choice_is_one_of_those_listed():
    one_of(has("a"), {"field": ("a", "b")})
    with pytest.raises(ValueError, match="^field must be one of a, b, got 'c'$"):
        one_of(has("c"), {"field": ("a", "b")})
