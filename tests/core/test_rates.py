import pytest
import torch

from core.toy import pairs
from ttmem.core import (
    LearnedRates,
    Rates,
    associative,
    begin,
    chain,
    constant,
    fold,
    forget,
    from_data,
    gradient_step,
    sgd,
    titans,
)

pytestmark = pytest.mark.usefixtures("float64")
objective = associative(lambda fast, x: x @ fast["w"])


def written(rates, rule=sgd, stream=None, start=None):
    rule = rule()
    return fold(gradient_step(objective, rule, rates), begin(rule, {"w": start}), stream)[0].fast["w"]


def test_a_rate_per_row_is_each_row_s_own_rate():
    stream, start = [pairs(batch=3) for _ in range(2)], torch.randn(3, 3, 2)
    lr, eta, alpha = torch.rand(3, 3) * 0.1
    together = written(constant(lr, eta, alpha), titans, stream, start)
    for i in range(3):
        alone = written(
            constant(*(float(x[i]) for x in (lr, eta, alpha))),
            titans,
            [(k[i : i + 1], v[i : i + 1]) for k, v in stream],
            start[i : i + 1],
        )
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


def test_a_rate_per_weight_scales_that_weight_s_surprise_alone():
    fast = {"a": torch.ones(1, 2), "b": torch.ones(1, 2)}
    change, _ = sgd().update(fast, (), fast, Rates(lr={"a": 2.0, "b": torch.tensor(3.0)}))
    assert change["a"].tolist() == [[-2.0, -2.0]] and change["b"].tolist() == [[-3.0, -3.0]]


def test_rates_from_data_see_the_data_of_their_own_write():
    stream, start = [pairs() for _ in range(2)], torch.zeros(2, 3, 2)
    gate = from_data(lambda data: Rates(lr=0.1 * data[1].square().mean((1, 2))))
    state = start
    for data in stream:
        state = written(constant(0.1 * data[1].square().mean((1, 2))), sgd, [data], state)
    torch.testing.assert_close(written(gate, sgd, stream, start), state, rtol=1e-14, atol=0)


def test_learned_rates_start_where_they_are_told_and_stay_in_their_range():
    rates = LearnedRates({"mem": 2.5, "w": 0.03}, steps=2, momentum=0.6, forget=0.1)
    lr, eta, alpha = rates(1)
    assert [lr[n].item() for n in ("mem", "w")] == pytest.approx([2.5, 0.03])
    assert eta["w"].item() == pytest.approx(0.6) and alpha["mem"].item() == pytest.approx(0.1)
    with torch.no_grad():
        for raw in rates.parameters():
            raw.sub_(30.0)
    assert 0 < rates(0).lr["mem"] < 1e-9 and 0 < rates(0).momentum["w"] < 1e-9


def test_after_the_last_learned_step_its_rates_serve_on():
    rates = LearnedRates({"w": 1.0}, steps=2)
    with torch.no_grad():
        rates.raw["lr_w"].copy_(torch.tensor([1.0, 2.0]).log())
    assert [rates(i).lr["w"].item() for i in (0, 1, 2, 9)] == pytest.approx([1.0, 2.0, 2.0, 2.0])


def test_each_step_has_a_gradient_of_its_own():
    rates = LearnedRates({"w": 0.1}, steps=3)
    rates(1).lr["w"].backward()
    assert rates.raw["lr_w"].grad.tolist() == pytest.approx([0.0, 0.1, 0.0])


def test_parts_left_out_are_neither_learned_nor_used():
    rates = LearnedRates({"w": 0.1}, steps=1)
    assert list(rates.raw) == ["lr_w"] and rates(0)[1:] == Rates()[1:]


@pytest.mark.parametrize("rule", [sgd, titans, lambda: chain(sgd(), forget())])
def test_a_fast_weight_without_a_rate_is_named_in_the_error(rule):
    with pytest.raises(KeyError, match="w"):
        written(LearnedRates({"other": 0.1}, 1, 0.5, 0.5), rule, [pairs()], torch.zeros(2, 3, 2))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"lr": {"w": 0.1}, "steps": 0}, "steps must be >= 1, got 0"),
        ({"lr": {"w": 0.0}, "steps": 1}, "lr must be > 0 .* got {'w': 0.0}"),
        ({"lr": {"a": 1.0, "w": -2.0}, "steps": 1}, "lr must be > 0 .*'w': -2.0"),
        ({"lr": {}, "steps": 1}, "lr must be > 0 .* got {}"),
        ({"lr": {"w": 0.1}, "steps": 1, "momentum": 1.5}, "momentum must be .* got 1.5"),
        ({"lr": {"w": 0.1}, "steps": 1, "forget": 0.0}, "forget must be .* got 0.0"),
    ],
)
def test_impossible_rates_are_named_in_the_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        LearnedRates(**arguments)
