"""ARMT and PRMT4: the same model under both schedules, and a memory that is all that goes from segment to segment."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from core.titans_rows import assert_close, gradients
from models.small_layers import KINDS, SIZE, model, sized
from ttmem.core.schedule import fold_diagonal, fold_sequential, stack_of
from ttmem.core.state import tensors
from ttmem.memories.associative import Pass
from ttmem.models import LayeredConfig, build
from ttmem.models.layered import block
from ttmem.nn.stacked import rms_norm
from ttmem.tasks import AssociativeRetrieval
from ttmem.tasks.characters import BAR

exact = pytest.mark.usefixtures("float64")
near = {"rtol": 0, "atol": 1e-10}
every = pytest.mark.parametrize("kind", KINDS)
TASK = AssociativeRetrieval.from_name("N3-K1V2-S3_2-12")


def text(segments, missing=2, batch=2):
    """So many segments, the last of which is short, and in the last row (if there are more) empty."""
    ids = torch.randint(1, 70, (batch, segments * SIZE - missing))
    if segments > 1:
        ids[-1, (segments - 1) * SIZE :] = 0
    return ids


def real(row):
    return row[row != 0]


def answers(made, asked):
    state, _ = made.write(made.start(len(asked)), asked.context)
    return made.read(state, asked.query, asked.target)


def scheduled(made, schedule, context):
    """Losses and state of a context, by one of the schedules."""
    made.config = replace(made.config, schedule=schedule)
    state, nats, _ = made.read_context(made.start(len(context)), context)
    return nats, state.fast


@exact
@every
@pytest.mark.parametrize("segments, layers", [(1, 1), (1, 9), (9, 1), (2, 5), (5, 3), (3, 3), (9, 4), (4, 9), (9, 9)])
def test_diagonal_is_sequential_in_losses_states_and_gradients(kind, segments, layers):
    made, context = sized(kind, layers), text(segments)
    found, wanted = (scheduled(made, schedule, context) for schedule in ("diagonal", "sequential"))
    assert_close(found, wanted)
    weights = tuple(made.parameters())
    grads = gradients(wanted, weights)
    assert sum(bool(grad.any()) for grad in grads) >= len(weights) - 5 * layers  # a lone segment reads nothing
    assert_close(gradients(found, weights), grads)


@exact
@every
def test_both_walks_give_the_same_hidden_states_in_as_many_calls_as_they_should(kind):
    made, ids, walks = sized(kind, 3), text(5, missing=0, batch=1), []
    grid = made.grid(made.embedding(ids.view(5, 1, SIZE)), torch.full((5, 1), SIZE))
    for fold in (fold_diagonal, fold_sequential):
        sizes, stack = [], stack_of(made)

        def cell(*given, stack=stack, sizes=sizes):
            sizes.append(len(given[1]))
            return stack.cell(*given)

        start = {name: leaf.transpose(0, 1) for name, leaf in made.start(1).fast.items()}
        walks.append((fold(stack._replace(cell=cell), start, grid), sizes))
    assert_close(walks[0][0], walks[1][0])
    assert walks[0][1] == [1, 2, 3, 3, 3, 2, 1] and walks[1][1] == [1] * 15


def figure(made, layer, state, x):
    """A layer of a model on one row without padding, as the page draws it."""
    w = {name: weight[layer : layer + 1] for name, weight in made.weights.items()}
    if made.config.architecture == "armt":
        y = block(w, x + made.memory.read(w, state, x), made.config.heads)
        return y, made.memory.write(w, state, y[:, :, -made.config.slots :], torch.ones(1, 1, dtype=torch.bool))
    seen = rms_norm(x, w["norm_read"])
    y = block(w, x + made.memory.read(w, state, seen), made.config.heads)
    return y, made.memory.write(w, state, Pass(seen, x, y), torch.ones(x.shape[:3], dtype=torch.bool))


@exact
@every
@torch.no_grad()
def test_a_context_is_read_as_the_page_draws_it_row_by_row_and_layer_by_layer(kind):
    made, asked = model(kind), TASK.sample(3)
    state, _ = made.write(made.start(3), asked.context)
    for i, row in enumerate(asked.context):
        states = [{name: leaf[:, layer, None] for name, leaf in made.start(1).fast.items()} for layer in range(2)]
        ends = (row == BAR).nonzero().flatten() + 1
        for segment in real(row).tensor_split(ends)[:-1]:
            x = made.embedding(segment)[None, None]
            x = torch.cat([x, made.init[None, None]], dim=2) if kind == "armt" else x
            for layer in range(2):
                x, states[layer] = figure(made, layer, states[layer], x)
        for name, leaf in state.fast.items():
            assert_close((leaf[i],), (torch.cat([each[name][0] for each in states]),))


@exact
@every
@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_each_answer_and_of_each_segment(kind):
    made, asked = model(kind, context_loss=0.5), TASK.sample(3, queries=2)
    nats, count, read = [], [], []
    for context, query, target in zip(asked.context, asked.query, asked.target, strict=True):
        state, _ = made.write(made.start(1), real(context)[None])
        ends = (real(context) == BAR).nonzero().flatten() + 1
        memory = made.start(1)
        for segment in real(context).tensor_split(ends)[:-1]:
            if len(segment) > 1:  # the language model's loss: the segment as a question to the memory before it
                chance = made.read(memory, segment[None, None, :1], segment[None, None, 1:])[0, 0].log_softmax(-1)
                nats.append(-chance[torch.arange(len(segment) - 1), segment[1:]].sum())
                count.append(len(segment) - 1)
            memory, _ = made.write(memory, segment[None])
        assert_close(memory.fast, state.fast)
        for one, answer in zip(query, target, strict=True):
            chance = made.read(state, real(one)[None, None], real(answer)[None, None])[0, 0].log_softmax(-1)
            read.append(-chance[torch.arange(len(real(answer))), real(answer)])
    outcome = made.loss(asked)
    torch.testing.assert_close(outcome.parts["read"], torch.cat(read).mean(), **near)
    torch.testing.assert_close(outcome.parts["write"], sum(nats) / sum(count), **near)
    torch.testing.assert_close(outcome.loss, outcome.parts["read"] + 0.5 * outcome.parts["write"], **near)
    plain = model(kind).loss(asked)
    torch.testing.assert_close(plain.loss, outcome.parts["read"], **near)
    assert "write" not in plain.parts


@exact
@every
@torch.no_grad()
def test_questions_of_one_context_do_not_meet(kind):
    made, asked = model(kind), TASK.sample(2)
    state, _ = made.write(made.start(2), asked.context)
    together = made.read(state, asked.query, asked.target)
    for i in range(3):
        alone = made.read(state, asked.query[:, i : i + 1], asked.target[:, i : i + 1])
        torch.testing.assert_close(together[:, i : i + 1], alone, **near)
    torch.testing.assert_close(made.read(state, asked.query, asked.target), together, **near)


@exact
@every
@torch.no_grad()
def test_rows_and_padding_of_contexts_questions_and_answers_change_no_answer(kind):
    made, asked = model(kind), TASK.sample(3, queries=2)
    asked.context[0, (asked.context[0] == BAR).nonzero()[0] + 1 :] = 0  # one segment, where others have three
    wanted = answers(made, asked)
    for row in range(3):
        state, _ = made.write(made.start(1), F.pad(real(asked.context[row]), (0, 7))[None])
        alone = made.read(state, F.pad(asked.query[row : row + 1], (0, 2)), asked.target[row : row + 1])
        torch.testing.assert_close(alone, wanted[row : row + 1], **near)


@exact
@every
@torch.no_grad()
def test_a_row_whose_text_has_ended_keeps_its_memory_to_the_last_bit(kind):
    made, asked = model(kind), TASK.sample(2)
    before, _ = made.write(made.start(2), asked.context)
    more = TASK.sample(2, index=1).context
    more[0] = 0
    after, log = made.write(before, more)
    for old, new in zip(tensors(before.fast), tensors(after.fast), strict=True):
        assert torch.equal(old[0], new[0]) and not torch.equal(old[1], new[1])
    assert not log.loss[:, 0].any() and log.loss[:, 1].all() and log.loss.shape == log.surprise.shape == (3, 2)
    empty, _ = made.write(before, more[:, :0])
    assert all(map(torch.equal, tensors(before.fast), tensors(empty.fast)))


@exact
@every
@torch.no_grad()
def test_a_context_may_be_written_in_pieces_that_end_where_segments_end(kind):
    made, asked = model(kind), TASK.sample(1)
    whole, log = made.write(made.start(1), asked.context)
    cut = int((asked.context[0] == BAR).nonzero()[1]) + 1
    first, one = made.write(made.start(1), asked.context[:, :cut])
    both, two = made.write(first, asked.context[:, cut:])
    assert_close(both.fast, whole.fast)
    assert_close((torch.cat([one.loss, two.loss]),), (log.loss,))
    assert (whole.step, first.step, both.step) == (3, 2, 3)
    elsewhere, _ = made.write(made.start(1), asked.context[:, : cut - 1])
    elsewhere, _ = made.write(elsewhere, asked.context[:, cut - 1 :])
    assert any(not torch.allclose(a, b) for a, b in zip(elsewhere.fast.values(), whole.fast.values(), strict=True))


@exact
@every
def test_the_future_does_not_leak(kind):
    made, place = sized(kind, 2), 6  # the third token of the second of three segments
    x = made.embedding(text(3, missing=0)).detach().requires_grad_()
    grid = made.grid(x.unflatten(1, (3, SIZE)).transpose(0, 1), torch.full((3, 2), SIZE))
    start = {name: leaf.transpose(0, 1) for name, leaf in made.start(2).fast.items()}
    tops, _ = fold_diagonal(made.stack(), start, grid)
    (grad,) = torch.autograd.grad(tops[1, 0, place - SIZE].square().sum(), x)
    heard = grad.any(-1)
    assert heard[0, : place + 1].all() and not heard[0, place + 1 :].any() and not heard[1].any()


@exact
@every
def test_every_parameter_has_a_gradient(kind):
    made, asked = model(kind), TASK.sample(4)
    made.loss(asked).loss.backward()
    assert not [name for name, weight in made.named_parameters() if weight.grad is None or not weight.grad.any()]


@exact
@every
@torch.no_grad()
def test_a_memory_that_read_nothing_answers_otherwise(kind):
    made, asked = model(kind), TASK.sample(2)
    reset = made.read(made.start(2), asked.query, asked.target)
    assert (answers(made, asked) - reset).abs().amax((1, 2, 3)).min() > 1e-3


@exact
@torch.no_grad()
def test_steps_are_as_asked_or_as_configured_where_there_are_steps():
    asked = TASK.sample(2)
    made = model("value", steps=3)
    usual, thrice, once = (made.write(made.start(2), asked.context, steps)[0].fast for steps in (None, 3, 1))
    assert_close(usual, thrice)
    assert not torch.allclose(once["w1"], usual["w1"])
    assert_close(once, model("value", steps=1).write(made.start(2), asked.context)[0].fast)
    armt = model("armt")
    with pytest.raises(ValueError, match="steps must be 1"):
        armt.write(armt.start(2), asked.context, steps=2)


@exact
@every
def test_losses_are_the_same_however_many_logits_are_made_at_once(kind, monkeypatch):
    made, context = model(kind), TASK.sample(3).context
    _, whole = made.write(made.start(3), context)
    monkeypatch.setattr("ttmem.models.layered.AT_ONCE", 1)
    _, parts = made.write(made.start(3), context)
    assert len(whole.loss) > 1 and torch.equal(whole.loss, parts.loss)


@every
def test_memories_stay_wide_in_short_floats_and_in_autocast(kind):
    made, asked = model(kind), TASK.sample(3)
    wanted = float(made.loss(asked).loss.detach())
    with torch.autocast("cpu", torch.bfloat16):
        cast = made.loss(asked).loss
    short = made.bfloat16().loss(asked).loss
    assert float(cast.detach()) == pytest.approx(wanted, rel=0.05) == float(short.detach())
    short.backward()
    state, _ = made.write(made.start(3), asked.context)
    assert {leaf.dtype for leaf in state.fast.values()} == {torch.float32}


@every
def test_a_memory_written_in_inference_mode_may_be_written_and_read_on(kind):
    made, asked = model(kind), TASK.sample(2)
    with torch.inference_mode():
        state, _ = made.write(made.start(2), asked.context)
    answers = made.read(state, asked.query, asked.target)
    assert torch.autograd.grad(answers.sum(), made.blocks[0]["out"])[0].any()
    after, _ = made.write(state, asked.context)
    assert all(leaf.requires_grad for leaf in after.fast.values())


@every
def test_a_short_training_makes_the_answers_likelier(kind):
    made, task = build(LayeredConfig(**{"dim": 32, "layers": 2} | KINDS[kind]), seed=0), AssociativeRetrieval(1, 1, 1)
    optimizer, losses = torch.optim.AdamW(made.parameters(), lr=5e-3), []
    for index in range(60):
        outcome = made.loss(task.sample(32, index=index))
        optimizer.zero_grad()
        outcome.loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        losses.append(float(outcome.loss.detach()))
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0], losses
