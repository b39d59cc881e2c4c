import pytest
import torch

from core.toy import pairs
from ttmem.core import (
    Rates,
    adam,
    associative,
    begin,
    chain,
    clip,
    constant,
    fold,
    forget,
    gradient_step,
    momentum,
    sgd,
    titans,
)
from ttmem.core.rules import normalize_adam
from ttmem.core.state import row_norm

pytestmark = pytest.mark.usefixtures("float64")
LR, WD = 0.03, 0.4
OPTIMIZERS = {
    "sgd": (sgd, constant(LR), lambda w: torch.optim.SGD([w], lr=LR)),
    "momentum": (momentum, constant(LR, 0.9), lambda w: torch.optim.SGD([w], lr=LR, momentum=0.9)),
    "adam": (adam, constant(LR), lambda w: torch.optim.Adam([w], lr=LR)),
    "adam_betas": (lambda: adam(0.5, 0.7, 1e-3), constant(LR), lambda w: torch.optim.Adam([w], LR, (0.5, 0.7), 1e-3)),
    "weight_decay": (
        lambda: chain(sgd(), forget()),
        constant(LR, forget=LR * WD),
        lambda w: torch.optim.SGD([w], lr=LR, weight_decay=WD),
    ),
    "adamw": (
        lambda: chain(adam(), forget()),
        constant(LR, forget=LR * WD),
        lambda w: torch.optim.AdamW([w], lr=LR, weight_decay=WD),
    ),
}


def loss(weight, data):
    keys, values = data
    return (torch.tanh(keys @ weight) - values).square().sum()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rule_is_the_optimizer_of_torch_step_by_step(name):
    rule, rates, make = OPTIMIZERS[name]
    start, stream = torch.randn(2, 3, 2), [pairs() for _ in range(6)]
    theirs = torch.nn.Parameter(start.clone())
    optimizer, step = make(theirs), gradient_step(associative(lambda f, x: torch.tanh(x @ f["w"])), rule(), rates)
    ours = begin(rule(), {"w": start})
    for data in stream:
        ours, _ = step(ours, data)
        optimizer.zero_grad()
        loss(theirs, data).backward()
        optimizer.step()
        torch.testing.assert_close(ours.fast["w"], theirs.data, rtol=1e-12, atol=1e-12)


def constant_gradient(rule, rates, steps):
    """The scalar memory 1, written with surprise 2 at every step."""
    step = gradient_step(lambda fast, data: 2 * fast["w"].flatten(1).sum(1), rule, rates)
    return fold(step, begin(rule, {"w": torch.ones(1, 1)}), [None] * steps)[0].fast["w"].item()


def test_momentum_of_a_constant_surprise_is_a_geometric_sum():
    moved = sum(-0.1 * 2 * (1 - 0.5 ** (i + 1)) / 0.5 for i in range(4))
    assert constant_gradient(momentum(), constant(0.1, 0.5), 4) == pytest.approx(1 + moved, rel=1e-12)


def test_titans_shrinks_the_memory_and_then_adds_the_past_surprise():
    weight, velocity = 1.0, 0.0
    for _ in range(4):
        velocity = 0.5 * velocity - 0.1 * 2
        weight = (1 - 0.2) * weight + velocity
    assert constant_gradient(titans(), constant(0.1, 0.5, 0.2), 4) == pytest.approx(weight, rel=1e-12)


def test_forgetting_without_surprise_is_exponential():
    rule = titans()
    step = gradient_step(lambda fast, data: 0 * fast["w"].sum(1), rule, constant(1.0, 0.9, 0.25))
    state, _ = fold(step, begin(rule, {"w": torch.ones(2, 3)}), [None] * 5)
    torch.testing.assert_close(state.fast["w"], torch.full((2, 3), 0.75**5), rtol=1e-14, atol=0)


def clipped(grads, limit=1.0):
    return clip(limit).update(grads, (), grads, Rates())[0]


def test_clipping_limits_each_row_over_all_its_weights_and_keeps_its_direction():
    grads = {"w": torch.randn(4, 3, 2) * 5, "c": torch.randn(4, 2) * 5}
    short = clipped(grads)
    torch.testing.assert_close(row_norm(short), torch.ones(4), rtol=1e-12, atol=1e-12)
    norm = row_norm(grads)
    torch.testing.assert_close(short["c"], grads["c"] / norm[:, None], rtol=1e-12, atol=1e-12)


def test_clipping_leaves_small_rows_alone_whatever_their_neighbours_are():
    grads = {"w": torch.tensor([[0.3, 0.4], [30.0, 40.0]])}
    torch.testing.assert_close(clipped(grads)["w"], torch.tensor([[0.3, 0.4], [0.6, 0.8]]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", [clip(0.1), clip(100.0), normalize_adam()], ids=["clip", "clip_wide", "adam"])
def test_a_row_without_surprise_does_not_poison_the_meta_gradient(rule, dtype):
    grads = {"w": torch.zeros(2, 3, dtype=dtype, requires_grad=True)}
    change, _ = rule.update(grads, rule.start(grads), grads, Rates())
    (gradient,) = torch.autograd.grad(change["w"].sum(), grads["w"])
    assert torch.isfinite(gradient).all() and not change["w"].any()


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clip_that_is_no_limit_is_named_in_the_error(limit):
    with pytest.raises(ValueError, match=f"clip must be > 0 and finite, got {limit}"):
        clip(limit)


def test_a_chain_of_chains_is_one_chain():
    rates, stream = constant(0.1, 0.5, 0.2), [pairs() for _ in range(3)]
    objective, start = associative(lambda f, x: x @ f["w"]), torch.randn(2, 3, 2)
    flat, nested = chain(clip(1.0), momentum(), forget()), chain(chain(clip(1.0)), titans())
    one, other = (
        fold(gradient_step(objective, r, rates), begin(r, {"w": start}), stream)[0].fast["w"] for r in (flat, nested)
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize("rule", [sgd(), momentum(), titans(), adam()], ids=["sgd", "momentum", "titans", "adam"])
def test_a_rule_keeps_the_dtype_of_the_memory(rule):
    fast = {"w": torch.ones(2, 3, dtype=torch.float32)}
    rates = Rates(*(torch.full((2,), 0.5, dtype=torch.float64) for _ in range(3)))
    change, memo = rule.update({"w": torch.ones_like(fast["w"])}, rule.start(fast), fast, rates)
    assert change["w"].dtype == torch.float32
