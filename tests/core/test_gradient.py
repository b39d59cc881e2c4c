import pytest
import torch

from core.differences import slopes
from core.toy import RULES, Toy, pairs
from ttmem.core import detach, gradient_step, sgd, surprise

pytestmark = pytest.mark.usefixtures("float64")
rules = pytest.mark.parametrize("rule", RULES)


@rules
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("part", ["init", "slow", "rates"])
def test_the_second_order_meta_gradient_is_the_finite_difference(rule, steps, part):
    toy, stream, asked = Toy(), [pairs() for _ in range(steps)], pairs()
    parameters = [p for name, p in toy.named_parameters() if name.startswith(part)]
    exact, measured = slopes(lambda: toy.outer(toy.write(RULES[rule](), stream)[0], asked), parameters)
    torch.testing.assert_close(exact, measured, rtol=1e-6, atol=1e-8)


def test_a_log_of_the_write_can_be_differentiated_too():
    toy, stream = Toy(), [pairs() for _ in range(3)]
    exact, measured = slopes(lambda: toy.write(sgd(), stream)[1].loss.sum(), toy.init.values())
    torch.testing.assert_close(exact, measured, rtol=1e-6, atol=1e-8)


def plain_gradient(toy, state, asked):
    """The outer loss's gradient at the written memory, in the shape of the initial one."""
    written = {n: w.detach().requires_grad_() for n, w in state.fast.items()}
    grads = torch.autograd.grad(toy.objective(written, asked).sum(), list(written.values()))
    return [g.sum(0) for g in grads]


def test_first_order_is_the_gradient_at_the_written_memory():
    toy, stream, asked = Toy(), [pairs() for _ in range(3)], pairs()
    state, _ = toy.write(sgd(), stream, "first")
    grads = torch.autograd.grad(toy.outer(state, asked), list(toy.init.values()))
    torch.testing.assert_close(list(grads), plain_gradient(toy, state, asked), rtol=1e-12, atol=1e-12)


def test_first_order_is_not_second_order():
    toy, stream, asked = Toy(), [pairs() for _ in range(3)], pairs()
    first, second = (
        torch.autograd.grad(toy.outer(toy.write(sgd(), stream, meta)[0], asked), toy.init["w"])[0]
        for meta in ("first", "second")
    )
    assert (first - second).abs().max() > 1e-2


def test_first_order_still_gives_the_learned_rates_their_gradient():
    toy, stream, asked = Toy(1), [pairs()], pairs()
    grads = {
        meta: torch.autograd.grad(toy.outer(toy.write(sgd(), stream, meta)[0], asked), toy.rates.raw["lr_w"])[0]
        for meta in ("first", "second")
    }
    torch.testing.assert_close(grads["first"], grads["second"], rtol=1e-12, atol=1e-12)


@rules
def test_none_hides_the_write_from_the_outer_loop(rule):
    toy, stream = Toy(), [pairs() for _ in range(2)]
    state, log = toy.write(RULES[rule](), stream, "none")
    assert not any(w.requires_grad for w in state.fast.values()) and not log.loss.requires_grad


@rules
@pytest.mark.parametrize("meta", ["first", "none", "last_1"])
def test_the_meta_gradient_never_changes_what_is_written(rule, meta):
    toy, stream = Toy(), [pairs() for _ in range(3)]
    second, other = (toy.write(RULES[rule](), stream, kind)[0] for kind in ("second", meta))
    assert all(torch.equal(second.fast[n], other.fast[n]) for n in second.fast)


def meta_gradients(toy, stream, asked, meta):
    return torch.autograd.grad(toy.outer(toy.write(sgd(), stream, meta)[0], asked), [*toy.init.values(), toy.slow])


@pytest.mark.parametrize("last", ["last_3", "last_7"])
def test_last_k_with_k_at_least_all_steps_is_second_order(last):
    toy, stream, asked = Toy(), [pairs() for _ in range(3)], pairs()
    for one, other in zip(*(meta_gradients(toy, stream, asked, meta) for meta in (last, "second")), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("last", [1, 2])
def test_last_k_is_first_order_up_to_the_last_k_steps(last):
    toy, stream, asked = Toy(), [pairs() for _ in range(3)], pairs()
    state = toy.start(sgd(), 2)
    for i, data in enumerate(stream):
        state, _ = toy.step(sgd(), "first" if i < 3 - last else "second")(state, data)
    grads = meta_gradients(toy, stream, asked, f"last_{last}")
    expected = torch.autograd.grad(toy.outer(state, asked), [*toy.init.values(), toy.slow])
    torch.testing.assert_close(grads, expected, rtol=1e-12, atol=1e-12)
    first, second = (meta_gradients(toy, stream, asked, meta) for meta in ("first", "second"))
    assert not torch.allclose(grads[0], first[0]) and not torch.allclose(grads[0], second[0])


@pytest.mark.parametrize("last", [1, 2])
def test_last_k_hands_the_init_the_gradient_at_the_memory_k_steps_before_the_end(last):
    toy, stream, asked = Toy(), [pairs() for _ in range(3)], pairs()
    state = toy.start(sgd(), 2)
    for data in stream[: 3 - last]:
        state, _ = toy.step(sgd(), "none")(state, data)
    anchor = {n: w.requires_grad_() for n, w in detach(state).fast.items()}
    state = state._replace(fast=anchor)
    for data in stream[3 - last :]:
        state, _ = toy.step(sgd())(state, data)
    expected = torch.autograd.grad(toy.outer(state, asked), list(anchor.values()))
    grads = meta_gradients(toy, stream, asked, f"last_{last}")[:2]
    torch.testing.assert_close(list(grads), [g.sum(0) for g in expected], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("meta", ["third", "last_", "last_0", "last_-1", "last_two", "", "Second"])
def test_an_unknown_meta_gradient_is_named_in_the_error(meta):
    with pytest.raises(ValueError, match=f"meta_gradient must be .* got {meta!r}"):
        gradient_step(Toy().objective, sgd(), Toy().rates, meta)


def test_a_single_step_refuses_last_k_instead_of_taking_it_for_first_order():
    with pytest.raises(ValueError, match="one step has no meta_gradient 'last_2': use scheduled_step"):
        gradient_step(Toy().objective, sgd(), Toy().rates, "last_2")


@rules
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_writes_the_same_memory(rule, mode):
    toy, stream = Toy(), [pairs() for _ in range(3)]
    wanted, log = toy.write(RULES[rule](), stream)
    with mode():
        state, quiet = toy.write(RULES[rule](), stream)
        recomputed, _ = toy.write(RULES[rule](), stream, recompute=True)
    for name, weight in wanted.fast.items():
        torch.testing.assert_close(state.fast[name], weight.detach(), rtol=1e-13, atol=1e-14)
        assert torch.equal(state.fast[name], recomputed.fast[name]) and not state.fast[name].requires_grad
    torch.testing.assert_close(quiet.loss, log.loss.detach())


def test_a_memory_written_in_inference_mode_can_be_written_on_outside_it():
    toy, stream = Toy(), [pairs() for _ in range(2)]
    with torch.inference_mode():
        half, _ = toy.step(sgd())(toy.start(sgd(), 2), stream[0])
    with torch.no_grad():
        state, _ = toy.step(sgd())(half, stream[1])
    wanted, _ = toy.write(sgd(), stream)
    torch.testing.assert_close(state.fast, {n: w.detach() for n, w in wanted.fast.items()})


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_fast_weight_that_the_objective_ignores_has_no_surprise(mode):
    fast = {"used": torch.ones(2, 3), "idle": torch.ones(2, 3)}
    with mode():
        grads, losses = surprise(lambda weights, data: weights["used"].square().sum(1), fast, None)
    assert torch.equal(grads["used"], 2 * fast["used"]) and torch.equal(grads["idle"], torch.zeros(2, 3))
    assert torch.equal(losses, torch.tensor([3.0, 3.0]))


def test_the_caller_s_weights_are_left_as_they_were():
    fast = {"w": torch.ones(2, 3)}
    surprise(lambda weights, data: weights["w"].square().sum(1), fast, None)
    assert not fast["w"].requires_grad and fast["w"].grad is None and torch.equal(fast["w"], torch.ones(2, 3))
