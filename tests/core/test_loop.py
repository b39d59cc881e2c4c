import pytest
import torch

from core.toy import RULES, Toy, pairs
from ttmem.core import associative, begin, chain, constant, fold, forget, gradient_step, scheduled_step, sgd

pytestmark = pytest.mark.usefixtures("float64")
rules = pytest.mark.parametrize("rule", RULES)


def gradients(toy, state, asked):
    grads = torch.autograd.grad(toy.outer(state, asked), list(toy.parameters()), allow_unused=True)
    return [g for g in grads if g is not None]


@rules
@pytest.mark.parametrize("cut", [0, 1, 2, 4])
def test_writing_in_two_pieces_is_writing_once(rule, cut):
    toy, stream, asked = Toy(), [pairs() for _ in range(4)], pairs()
    rule = RULES[rule]()
    once, log = fold(toy.step(rule), toy.start(rule, 2), stream)
    half, first = fold(toy.step(rule), toy.start(rule, 2), stream[:cut])
    twice, second = fold(toy.step(rule), half, stream[cut:])
    assert torch.equal(torch.cat([first.loss, second.loss]), log.loss) and twice.step == once.step == 4
    for one, other in zip(gradients(toy, once, asked), gradients(toy, twice, asked), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


def test_a_write_of_two_steps_has_no_third():
    toy, stream = Toy(), [pairs() for _ in range(3)]
    step = scheduled_step(toy.objective, sgd(), toy.rates, "last_1", steps=2)
    done, _ = fold(step, toy.start(sgd(), 2), stream[:2])
    with pytest.raises(ValueError, match="steps must be above 2, which are done, for a write to go on, got 2"):
        step(done, stream[2])


@rules
@pytest.mark.parametrize("meta", ["second", "first", "last_2"])
def test_recomputing_is_storing_bit_for_bit(rule, meta):
    toy, stream, asked = Toy(), [pairs() for _ in range(4)], pairs()
    (stored, log), (again, relog) = (toy.write(RULES[rule](), stream, meta, recompute=r) for r in (False, True))
    assert torch.equal(log.loss, relog.loss) and torch.equal(log.surprise, relog.surprise)
    assert all(torch.equal(stored.fast[n], again.fast[n]) for n in stored.fast)
    for one, other in zip(gradients(toy, stored, asked), gradients(toy, again, asked), strict=True):
        assert torch.equal(one, other)


def saved_bytes(toy, steps, recompute, tokens=64):
    """Bytes that the graph of a write keeps for its backward pass."""
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes(), x
        return x

    stream = [pairs(tokens=tokens)] * steps
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        toy.write(sgd(), stream, recompute=recompute)
    return sum(size for size, _ in kept.values())


def test_with_recomputation_a_write_keeps_nothing_but_its_states():
    toy = Toy()
    states = 4 * 8 * sum(2 * p.numel() for p in toy.init.values())
    few, many = (saved_bytes(toy, steps, True) for steps in (2, 6))
    assert many - few <= 2 * states
    few, many = (saved_bytes(toy, steps, False) for steps in (2, 6))
    assert many - few > 20 * states, "the measurement does not see what storing keeps"


def test_a_linear_memory_under_the_associative_objective_follows_the_delta_rule():
    beta, steps = 0.3, 5
    stream = [pairs(tokens=1) for _ in range(steps)]
    step = gradient_step(associative(lambda fast, x: x @ fast["w"]), sgd(), constant(beta / 2))
    state, _ = fold(step, begin(sgd(), {"w": torch.zeros(2, 3, 2)}), stream)
    wanted = torch.zeros(2, 3, 2)
    for k, v in stream:
        wanted = (torch.eye(3) - beta * k.mT @ k) @ wanted + beta * k.mT @ v
    torch.testing.assert_close(state.fast["w"], wanted, rtol=1e-12, atol=1e-12)


def test_with_forgetting_it_follows_the_gated_delta_rule():
    beta, alpha, rule = 0.3, 0.2, chain(sgd(), forget())
    stream, wanted = [pairs(tokens=1) for _ in range(5)], torch.randn(2, 3, 2)
    step = gradient_step(associative(lambda fast, x: x @ fast["w"]), rule, constant(beta / 2, forget=alpha))
    state, _ = fold(step, begin(rule, {"w": wanted}), stream)
    for k, v in stream:
        wanted = (1 - alpha) * wanted - beta * k.mT @ (k @ wanted - v)
    torch.testing.assert_close(state.fast["w"], wanted, rtol=1e-12, atol=1e-12)


@rules
def test_a_row_s_memory_is_untouched_by_what_other_rows_read(rule):
    toy, stream = Toy(), [pairs(batch=3) for _ in range(3)]
    others = [tuple(torch.cat([x[:1], torch.randn_like(x[1:]) * 9]) for x in data) for data in stream]
    one, two = (toy.write(RULES[rule](), s)[0].fast for s in (stream, others))
    for name in one:
        assert torch.equal(one[name][0], two[name][0]) and not torch.allclose(one[name][1], two[name][1])


@rules
def test_a_row_alone_is_the_row_in_a_batch(rule):
    toy, stream = Toy(), [pairs(batch=3) for _ in range(3)]
    together, log = toy.write(RULES[rule](), stream)
    alone, own = toy.write(RULES[rule](), [tuple(x[1:2] for x in data) for data in stream])
    for name in alone.fast:
        torch.testing.assert_close(alone.fast[name][0], together.fast[name][1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.loss[:, 0], log.loss[:, 1], rtol=1e-12, atol=1e-12)


@rules
def test_no_gradient_runs_from_one_row_to_another(rule):
    toy, stream = Toy(), [pairs(batch=3) for _ in range(2)]
    rule = RULES[rule]()
    fast = {n: w.clone().detach().requires_grad_() for n, w in toy.start(rule, 3).fast.items()}
    state, _ = fold(toy.step(rule), begin(rule, fast), stream)
    total = sum(w[0].square().sum() for w in state.fast.values())
    for gradient in torch.autograd.grad(total, list(fast.values())):
        assert gradient[0].any() and not gradient[1:].any()


def test_an_empty_stream_writes_nothing_and_logs_nothing():
    toy = Toy()
    start = toy.start(sgd(), 2)
    state, log = fold(toy.step(sgd()), start, [])
    assert state is start and log.loss.shape == log.surprise.shape == (0, 2)


def test_a_stream_may_be_an_iterator_and_the_log_is_writes_by_rows():
    toy, stream = Toy(), [pairs(batch=3) for _ in range(2)]
    state, log = fold(toy.step(sgd()), toy.start(sgd(), 3), iter(stream))
    assert log.loss.shape == log.surprise.shape == (2, 3) and state.step == 2
    torch.testing.assert_close(log.loss[0], toy.objective(toy.start(sgd(), 3).fast, stream[0]))


def test_a_small_step_makes_the_objective_smaller():
    toy, data = Toy(), pairs()
    _, log = fold(gradient_step(toy.objective, sgd(), constant(1e-3)), toy.start(sgd(), 2), [data] * 5)
    assert (log.loss.diff(dim=0) < 0).all()
    slope = (log.loss[1] - log.loss[0]) / 1e-3
    torch.testing.assert_close(slope, -log.surprise[0].square(), rtol=0.1, atol=0)
