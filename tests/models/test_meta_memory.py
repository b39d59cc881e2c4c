"""What a written memory is: a function of the row's own context, and all that a question sees."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models.tiny import SMALL, episode, ids, memory_of, model
from ttmem.core import State
from ttmem.memories import MemoryTokens
from ttmem.models import MetaMemory, Transformer, build

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", ["tokens", "neural", "mlp"])
looks = pytest.mark.parametrize(
    "look", [{}, {"addresses": "learned", "read_gate": True, "stem": True}, {"addresses": "sines"}], ids=str
)
near = {"rtol": 1e-11, "atol": 1e-12}


def write(made, context, steps=None):
    return made.write(made.start(len(context)), context, steps)


@kinds
def test_only_the_tokens_are_kept(kind):
    made = model(kind)
    state, _ = write(made, ids(2, 6))
    assert list(state.fast) == ["mem"] and state.velocity == () and memory_of(state).shape == (2, 3, 8)


@kinds
def test_memory_alone_decides_the_answers(kind):
    made, asked = model(kind), episode(2, 3)
    state, _ = write(made, asked.context)
    swapped = State({"mem": memory_of(state).flip(0)})
    one, two = (made.read(s, asked.query, asked.target) for s in (state, State({"mem": memory_of(state).clone()})))
    assert torch.equal(one, two)
    crossed = made.read(swapped, asked.query.flip(0), asked.target.flip(0)).flip(0)
    torch.testing.assert_close(crossed, one, **near)


@kinds
def test_another_context_or_none_gives_other_answers(kind):
    made, asked = model(kind), episode()
    state, _ = write(made, asked.context)
    answers = made.read(state, asked.query, asked.target)
    for other in (made.start(2), write(made, ids(2, 6))[0]):
        assert (made.read(other, asked.query, asked.target) - answers).abs().max() > 1e-3


@kinds
@pytest.mark.parametrize("rule", ["sgd", "titans", "adam"])
def test_a_row_s_memory_is_untouched_by_other_contexts(kind, rule):
    made, context = model(kind, rule=rule), ids(3, 6)
    changed = context.clone()
    changed[1:] = ids(2, 6)
    one, two = (write(made, c)[0] for c in (context, changed))
    torch.testing.assert_close(memory_of(one)[0], memory_of(two)[0], rtol=1e-13, atol=1e-13)
    assert not torch.allclose(memory_of(one)[1:], memory_of(two)[1:])


@kinds
def test_a_row_alone_is_the_row_in_a_batch(kind):
    made, asked = model(kind), episode(3, 2)
    state, log = write(made, asked.context)
    answers = made.read(state, asked.query, asked.target)
    for i in range(3):
        alone, own = write(made, asked.context[i : i + 1])
        torch.testing.assert_close(memory_of(alone)[0], memory_of(state)[i], **near)
        torch.testing.assert_close(own.loss[:, 0], log.loss[:, i], **near)
        one = asked[i : i + 1]
        torch.testing.assert_close(made.read(alone, one.query, one.target)[0], answers[i], **near)


@kinds
@pytest.mark.parametrize("more", [1, 7])
def test_padding_the_context_changes_nothing(kind, more):
    made, asked = model(kind), episode(3)
    (one, log), (two, relog) = (write(made, c) for c in (asked.context, F.pad(asked.context, (0, more))))
    torch.testing.assert_close(memory_of(one), memory_of(two), **near)
    torch.testing.assert_close(log.loss, relog.loss, **near)


@kinds
def test_padding_questions_and_answers_changes_nothing(kind):
    made, asked = model(kind), episode(2, 2)
    target, answer = F.pad(asked.target, (0, 3)), F.pad(asked.answer, (0, 3))
    wide = replace(asked, query=F.pad(asked.query, (0, 2)), target=target, answer=answer)
    one, two = made.loss(asked), made.loss(wide)
    torch.testing.assert_close(one.loss, two.loss, **near)
    assert torch.equal(one.exact, two.exact)


@kinds
def test_several_questions_to_one_memory_are_each_question_alone(kind):
    made, asked = model(kind), episode(2, 4)
    state, _ = write(made, asked.context)
    together = made.read(state, asked.query, asked.target)
    for q in range(4):
        alone = made.read(state, asked.query[:, q : q + 1], asked.target[:, q : q + 1])
        torch.testing.assert_close(together[:, q : q + 1], alone, **near)


def test_an_answer_is_predicted_from_what_stands_before_it_only():
    made, asked = model(), episode()
    state, _ = write(made, asked.context)
    changed = asked.target.clone()
    changed[..., 1] = 1 + changed[..., 1] % 6
    one, two = (made.read(state, asked.query, target) for target in (asked.target, changed))
    torch.testing.assert_close(one[:, :, :2], two[:, :, :2], **near)
    assert not torch.allclose(one[:, :, 2], two[:, :, 2])


def test_a_step_is_the_gradient_of_the_mean_loss_written_out():
    made, context = model(steps=1, head=False), ids(1, 5)
    mem = made.memory.init["mem"].detach()[None].requires_grad_()
    sequence = torch.cat([mem, made.backbone.embed(context)[:, :-1]], dim=1)
    logits = made.backbone.logits(made.backbone.hidden(sequence)[0])[:, made.memory.slots - 1 :]
    loss = F.cross_entropy(logits[0], context[0])
    (gradient,) = torch.autograd.grad(loss, mem)
    state, log = write(made, context)
    torch.testing.assert_close(memory_of(state), mem - made.config.lr * gradient, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(log.loss[0, 0], loss, **near)
    torch.testing.assert_close(log.surprise[0, 0], gradient.norm(), **near)


@kinds
def test_writing_makes_the_write_loss_smaller(kind):
    made = model(kind, steps=4, lr=0.01, memory_lr=0.002)
    _, log = write(made, ids(2, 6))
    assert (log.loss.diff(dim=0) < 0).all()


@kinds
def test_a_write_of_no_steps_is_the_memory_before_any_write(kind):
    made, asked = model(kind), episode()
    state, log = write(made, asked.context, steps=0)
    source = made.sources(asked.context, 1)[0]
    assert torch.equal(memory_of(state), made.memory.tokens(made.memory.open(made.start(2).fast), source))
    assert log.loss.shape == log.surprise.shape == (0, 2)
    assert "write_first" not in model(kind, steps=0).loss(asked).parts


@kinds
@pytest.mark.parametrize("rule", ["sgd", "titans", "adam"])
def test_more_steps_than_trained_begin_with_the_trained_ones(kind, rule):
    made, context = model(kind, rule=rule), ids(2, 6)
    (few, short), (many, long) = (write(made, context, steps) for steps in (2, 7))
    assert torch.equal(long.loss[:2], short.loss) and long.loss.shape == (7, 2)
    assert not torch.allclose(memory_of(few), memory_of(many)) and torch.isfinite(memory_of(many)).all()


@kinds
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_gets_the_same_memory_and_answers(kind, mode):
    made, asked = model(kind), episode()
    wanted, _ = write(made, asked.context)
    with mode():
        state, _ = write(made, asked.context)
        answers = made.read(state, asked.query, asked.target)
        exact = made.loss(asked).exact
    torch.testing.assert_close(memory_of(state), memory_of(wanted).detach(), **near)
    assert not memory_of(state).requires_grad and torch.equal(exact, made.loss(asked).exact)
    torch.testing.assert_close(answers, made.read(wanted, asked.query, asked.target).detach(), **near)


@kinds
def test_writing_leaves_the_model_s_weights_alone(kind):
    made = model(kind)
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    write(made, ids(2, 6))
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in made.named_parameters())


@kinds
def test_float32_agrees_with_float64(kind):
    made, asked = model(kind), episode()
    exact, _ = write(made, asked.context)
    single, log = write(made.float(), asked.context)
    assert memory_of(single).dtype == log.loss.dtype == torch.float32
    torch.testing.assert_close(memory_of(single).double(), memory_of(exact), rtol=1e-4, atol=1e-5)


@kinds
@looks
def test_under_bf16_autocast_the_memory_stays_float32(kind, look):
    made, asked = model(kind, lr=0.1, memory_lr=0.02, **look).float(), episode()
    exact, _ = write(made, asked.context)
    with torch.autocast("cpu", torch.bfloat16):
        state, _ = write(made, asked.context)
        outcome = made.loss(asked)
    outcome.loss.backward()
    assert memory_of(state).dtype == torch.float32 and outcome.loss.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.float32 for p in made.parameters())
    rounding, change = memory_of(state) - memory_of(exact), memory_of(exact) - memory_of(made.start(2))
    assert rounding.norm() < 0.5 * change.norm()


@kinds
@looks
def test_with_bf16_weights_the_memory_is_float32(kind, look):
    made, asked = model(kind, projection=True, lr=0.1, memory_lr=0.02, **look).float(), episode()
    exact, _ = write(made, asked.context)
    made = made.to(torch.bfloat16)
    state, log = write(made, asked.context)
    assert memory_of(state).dtype == log.loss.dtype == torch.float32
    rounding, change = memory_of(state) - memory_of(exact), memory_of(exact) - memory_of(made.start(2))
    assert rounding.norm() < 0.5 * change.norm()
    made.loss(asked).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters())


def test_the_outer_loss_is_read_plus_weight_times_write():
    asked = episode()
    parts = [model(weight=w).loss(asked) for w in (0.0, 0.5, 2.0)]
    for outcome, w in zip(parts[1:], (0.5, 2.0), strict=True):
        torch.testing.assert_close(outcome.loss, outcome.parts["read"] + w * outcome.parts["write"], **near)
    assert "write" not in parts[0].parts and torch.equal(parts[0].loss, parts[0].parts["read"])
    assert not any(value.requires_grad for value in parts[1].parts.values())


def test_the_reported_write_losses_are_those_of_the_first_and_the_written_memory():
    made, asked = model(), episode()
    outcome, (state, log) = made.loss(asked), write(made, asked.context)
    again = made.write(state, asked.context, 1)[1].loss[0].mean()
    torch.testing.assert_close(outcome.parts["write_first"], log.loss[0].mean().detach(), **near)
    torch.testing.assert_close(outcome.parts["write"], again.detach(), **near)


def test_a_new_projection_changes_nothing():
    plain, projected, asked = model(), model(projection=True), episode()
    assert torch.equal(build(replace(SMALL, projection=True)).projection, torch.eye(8))
    projected.load_state_dict(plain.state_dict() | {"projection": torch.eye(8)})
    torch.testing.assert_close(plain.loss(asked).loss, projected.loss(asked).loss, **near)


def test_widths_that_differ_are_named_in_the_error():
    with pytest.raises(ValueError, match="memory has dim 6, the backbone 8"):
        MetaMemory(Transformer(SMALL), MemoryTokens(3, 6))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"meta_gradient": "third"}, "meta_gradient must be .* got 'third'"),
        ({"rule": "newton"}, "rule must be one of sgd, .* got 'newton'"),
        ({"steps": -1}, "^steps must be >= 0, got -1$"),
        ({"weight": -0.5}, "^weight must be >= 0, got -0.5$"),
        ({"lr": 0.0}, "^lr must be > 0, got 0.0$"),
        ({"memory_lr": -1.0}, "^memory_lr must be > 0, got -1.0$"),
        ({"clip": -1.0}, "clip must be > 0.* got -1.0"),
        ({"rule": "momentum", "momentum": 1.5}, "momentum must be .* got 1.5"),
        ({"rule": "titans", "forget": 1.0}, "forget must be .* got 1.0"),
        ({"memory": "disk"}, "memory must be one of tokens, .* got 'disk'"),
        ({"slots": 0}, "^slots must be >= 1, got 0$"),
        ({"memory_conv": -1}, "^memory_conv must be >= 0, got -1$"),
    ],
)
def test_an_impossible_config_is_named_when_it_is_made(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)
