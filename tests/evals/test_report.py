import json
import math
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ttmem.evals import Report, wilson
from ttmem.evals.report import Z, by_slice, clustered


def report(**changed) -> Report:
    values = dict.fromkeys((f.name for f in fields(Report)), 0.0)
    values |= {"task": "N1-K1V1-V62", "split": "test", "samples": 10, "seed": 1, "steps": None, "memory_bytes": 64}
    values |= {"queries": 1}
    return Report(**values | {"interval": (0.0, 0.3), "write_loss": (4.0, 1.0), "slices": {}} | changed)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_rate_and_its_ends_solve_wilsons_equation(counts):
    right, samples = counts
    rate, (low, high) = right / samples, wilson(right, samples)
    assert 0 <= low <= rate <= high <= 1 and low < high
    for end in (low, high):
        assert abs(rate - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / samples), rel=1e-6, abs=1e-9)


def test_the_interval_agrees_with_a_published_example():
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81 of 263.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_wrongs_mirrors_that_of_rights(counts):
    right, samples = counts
    low, high = wilson(right, samples)
    assert wilson(samples - right, samples) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("right, samples", [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(right, samples):
    with pytest.raises(ValueError, match=f"got {right} of {samples}"):
        wilson(right, samples)


def test_json_holds_every_field():
    found = json.loads(report(steps=3).to_json())
    assert set(found) == {field.name for field in fields(Report)}
    assert (found["steps"], found["interval"], found["write_loss"]) == (3, [0.0, 0.3], [4.0, 1.0])


def test_slices_group_by_value_and_noise_by_ranges_that_cover_it():
    exact = torch.tensor([True, False, True, True])[:, None]
    slices = {"segment": torch.tensor([0, 0, 1, 1])[:, None], "noise": torch.tensor([0, 3, 4, 19])[:, None]}
    found = by_slice(exact, slices)
    assert found["segment"] == {"0": {"exact_match": 0.5, "samples": 2}, "1": {"exact_match": 1.0, "samples": 2}}
    assert {label: rate["samples"] for label, rate in found["noise"].items()} == {"0-3": 2, "4-7": 1, "16-19": 1}


def test_little_noise_is_not_put_in_ranges():
    found = by_slice(torch.ones(3, 1, dtype=torch.bool), {"noise": torch.tensor([[0], [2], [4]])})
    assert list(found["noise"]) == ["0", "2", "4"]


def test_the_interval_of_contexts_with_one_question_or_with_questions_that_fail_together_is_wilsons():
    right = torch.rand(400, 1) < 0.9
    count = int(right.sum())
    assert clustered(right) == clustered(right.expand(400, 7)) == wilson(count, 400)


def test_the_interval_of_questions_that_have_nothing_to_do_with_each_other_is_that_of_them_all():
    low, high = clustered(torch.rand(2000, 16) < 0.9)
    wanted = wilson(28_800, 32_000)
    assert high - low == pytest.approx(wanted[1] - wanted[0], rel=0.1)


def test_the_interval_of_contexts_of_different_difficulty_holds_the_rate_as_often_as_it_says():
    held = 0
    for _ in range(400):
        low, high = clustered(torch.rand(200, 8) < torch.rand(200, 1))
        held += low <= 0.5 <= high
    assert 0.92 < held / 400 < 0.98
