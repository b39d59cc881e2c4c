"""The outer loop's gradient through a whole model, held against finite differences and against its definitions."""

import pytest
import torch

from core.differences import slopes
from models.tiny import episode, memory_of, model
from ttmem.core import State
from ttmem.models.base import score

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", ["tokens", "neural", "mlp"])
RULES = {name: {"rule": name} for name in ("sgd", "momentum", "titans")} | {
    "clip": {"rule": "titans", "clip": 0.02},
    "adam": {"rule": "adam", "lr": 0.02, "memory_lr": 0.02},
}
PARTS = ("memory.init", "backbone", "rates", "write_head")


def part(made, prefix):
    return [p for name, p in made.named_parameters() if name.startswith(prefix)]


@kinds
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_second_order_meta_gradient_is_the_finite_difference(kind, rule, steps):
    made, asked = model(kind, steps=steps, layers=1, **RULES[rule]), episode()
    # Adam is almost a sign: a difference must not reach across a gradient's zero.
    eps = 1e-8 if rule == "adam" else 1e-6
    for prefix in PARTS:
        exact, measured = slopes(lambda: made.loss(asked).loss, part(made, prefix), eps)
        torch.testing.assert_close(exact, measured, rtol=1e-5, atol=1e-7, msg=lambda m, p=prefix: f"{p}: {m}")


@kinds
@pytest.mark.parametrize(
    "more", [{}, {"addresses": "learned", "read_gate": True, "stem": True}, {"addresses": "sines"}], ids=str
)
def test_every_single_tensor_s_meta_gradient_is_the_finite_difference(kind, more):
    made, asked = model(kind, layers=1, rule="titans", projection=True, **more), episode()
    for name, parameter in made.named_parameters():
        exact, measured = slopes(lambda: made.loss(asked).loss, [parameter])
        torch.testing.assert_close(exact, measured, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


@kinds
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rule": "titans"},
        {"projection": True},
        {"head": False},
        {"addresses": "learned", "read_gate": True, "stem": True},
        {"addresses": "sines"},
        {"weigh": True},
        {"weigh": True, "weigh_steps": True},
    ],
    ids=str,
)
def test_every_weight_of_the_model_gets_a_gradient(kind, options):
    made = model(kind, **options)
    made(episode()).loss.backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_first_order_gives_the_init_the_gradient_at_the_written_memory(weight):
    made, asked = model("tokens", meta_gradient="first", weight=weight), episode()
    made.loss(asked).loss.backward()
    written, _ = made.write(made.start(2), asked.context)
    mem = memory_of(written).detach().requires_grad_()
    loss = score(made.read(State({"mem": mem}), asked.query, asked.target), asked).loss
    if weight:
        loss = loss + weight * made.reconstruction(mem, asked.context, made.sources(asked.context, 1)[0]).mean()
    (gradient,) = torch.autograd.grad(loss, mem)
    torch.testing.assert_close(made.memory.init["mem"].grad, gradient.sum(0), rtol=1e-11, atol=1e-12)


@kinds
def test_no_meta_gradient_leaves_init_and_rates_alone(kind):
    made = model(kind, meta_gradient="none", weight=0.0)
    assert not made.write(made.start(2), episode().context[:2])[0].fast["mem"].requires_grad
    made.loss(episode()).loss.backward()
    assert all(p.grad is None for p in [*part(made, "memory.init"), *part(made, "rates"), *part(made, "write_head")])
    assert all(p.grad is not None for p in part(made, "backbone.blocks"))


def init_gradients(kind, meta, asked):
    made = model(kind, meta_gradient=meta, steps=3)
    return [*torch.autograd.grad(made.loss(asked).loss, part(made, "memory.init"))]


@kinds
def test_last_k_lies_between_first_and_second_order(kind):
    asked = episode()
    first, one, three, second = (init_gradients(kind, m, asked) for m in ("first", "last_1", "last_3", "second"))
    assert all(torch.equal(a, b) for a, b in zip(three, second, strict=True))
    for other in (first, second):
        assert not torch.allclose(one[0], other[0], rtol=1e-3)


@kinds
@pytest.mark.parametrize("rule", RULES)
def test_recomputing_is_storing_bit_for_bit(kind, rule):
    asked, results = episode(), []
    for recompute in (False, True):
        made = model(kind, recompute=recompute, **RULES[rule])
        outcome = made.loss(asked)
        results.append((outcome.loss, *torch.autograd.grad(outcome.loss, list(made.parameters()))))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def kept_bytes(made, asked, steps):
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes(), x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        made.write(made.start(len(asked.context)), asked.context, steps)
    return sum(size for size, _ in kept.values())


@kinds
def test_with_recomputation_a_longer_write_keeps_only_more_states(kind):
    asked = episode()
    growth = {}
    for recompute in (False, True):
        made = model(kind, recompute=recompute, head=False)
        growth[recompute] = (kept_bytes(made, asked, 8) - kept_bytes(made, asked, 2)) / 6
    states = sum(8 * w.numel() for w in made.memory.open(made.memory.start(2)).values())
    assert growth[True] <= 1.5 * states
    assert growth[False] > 10 * growth[True], "the measurement does not see what storing keeps"
