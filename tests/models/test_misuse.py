"""A state, a context or a question that does not fit is refused in one line; an empty one changes nothing."""

import re
from dataclasses import replace

import pytest
import torch

import models.small_layers as layered
from models.tiny import episode, ids, memory_of, model
from ttmem.core import State

META = ["tokens", "neural", "mlp", "rmt4"]
FLAT = [*META, "rmt", "forward", "full", "none"]
ALL = [*FLAT, *layered.KINDS]
each = pytest.mark.parametrize("kind", ALL)
near = {"rtol": 1e-5, "atol": 1e-6}


def made(kind, **changes):
    """A small float32 model of the kind."""
    if kind in layered.KINDS:
        return layered.model(kind, vocab=7, separator=6, **changes)
    return model(kind, **({"separator": 6} if kind in ("rmt", "rmt4") else {}) | changes).float()


def written(kind, asked):
    own = made(kind)
    return own, own.write(own.start(len(asked.context)), asked.context)[0]


@each
@pytest.mark.parametrize("rows", [2, 4])
def test_a_memory_answers_for_no_other_batch(kind, rows):
    own, state = written(kind, episode(6 - rows, 2))
    other = episode(rows, 2)
    line = re.escape(f"state must be of a batch of {rows}, got one of {6 - rows}")
    with pytest.raises(ValueError, match=line):
        own.read(state, other.query, other.target)
    with pytest.raises(ValueError, match=line):
        own.write(state, other.context)


@each
def test_an_empty_batch_is_refused(kind):
    own, asked = made(kind), episode(2, 2)
    with pytest.raises(ValueError, match="context and query must have a row, got an empty batch"):
        own.write(own.start(0), asked.context[:0])
    with pytest.raises(ValueError, match="context and query must have a row, got an empty batch"):
        own.read(own.start(0), asked.query[:0], asked.target[:0])


@each
def test_a_state_of_another_kind_is_refused(kind):
    own, asked = made(kind), episode(2, 2)
    with pytest.raises(ValueError, match=r"state must hold .*, as start and write give it, got other$"):
        own.write(State({"other": torch.zeros(2, 3)}), asked.context)


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in ("full", "none")])
def test_a_state_of_another_model_of_its_kind_is_refused(kind):
    asked = episode(2, 2)
    own, other = made(kind), made(kind, dim=16)
    state = other.start(2)
    for answer in (lambda: own.write(state, asked.context), lambda: own.read(state, asked.query, asked.target)):
        with pytest.raises(ValueError, match=r"^state must hold \w+ of \(.*\) in each row, as start gives it, got \("):
            answer()


@pytest.mark.parametrize("kind", layered.KINDS)
@pytest.mark.parametrize("layers", [1, 3])
def test_no_layer_of_a_state_is_left_out(kind, layers):
    asked, state = episode(2, 2), made(kind, layers=layers).start(2)
    with pytest.raises(ValueError, match=rf"^state must hold .* of \(2, .*, got \({layers}, "):
        made(kind).read(state, asked.query, asked.target)


@each
def test_ids_may_be_of_32_bits(kind):
    own, asked = made(kind), episode(2, 2)
    short = [part.int() for part in (asked.context, asked.query, asked.target)]
    wanted, state = (own.write(own.start(2), context)[0] for context in (asked.context, short[0]))
    torch.testing.assert_close(own.read(state, *short[1:]), own.read(wanted, asked.query, asked.target))


@each
def test_a_memory_of_float32_is_read_and_written_on_in_float64(kind):
    asked = episode(2, 2)
    own, state = written(kind, asked)
    state, _ = own.double().write(state, asked.context)
    assert own.read(state, asked.query, asked.target).isfinite().all()


@each
def test_contexts_of_no_tokens_cost_what_the_questions_do(kind):
    own, asked = made(kind), episode(2, 2)
    outcome = own.loss(replace(asked, context=asked.context[:, :0]))
    assert outcome.loss.isfinite()
    outcome.loss.backward()


def test_answers_of_no_tokens_cost_nothing():
    own, asked = made("none"), episode(2, 2)
    assert own.loss(replace(asked, target=torch.zeros_like(asked.target))).loss == 0


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "full"])  # which has its context before a question
def test_a_question_without_tokens_is_refused(kind):
    asked = episode(2, 2)
    own, state = written(kind, asked)
    empty = asked.query.clone()
    empty[1, 0] = 0
    with pytest.raises(ValueError, match="query must have a token in every row, one is all padding"):
        own.read(state, empty, asked.target)


@each
def test_counts_below_zero_are_refused(kind):
    own = made(kind)
    with pytest.raises(ValueError, match="batch must be >= 0, got -1"):
        own.start(-1)
    with pytest.raises(ValueError, match="steps must be"):
        own.write(own.start(2), ids(2, 5), steps=-1)


@each
@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_row_of_padding_keeps_its_memory(kind, length):
    asked = episode(2, 2)
    own, state = written(kind, asked)
    nothing = torch.zeros(2, length, dtype=torch.long)
    with torch.no_grad():
        after, _ = own.write(state, nothing)
        said, wanted = (own.read(s, asked.query, asked.target) for s in (after, state))
    torch.testing.assert_close(said, wanted, **near)
    for name, leaf in state.fast.items():
        assert name == "context" or torch.equal(after.fast[name], leaf)


@pytest.mark.parametrize("kind", META)
@pytest.mark.parametrize("rule", ["momentum", "titans", "adam"])
def test_a_row_of_padding_keeps_its_memory_under_every_rule(kind, rule):
    own, context = made(kind, rule=rule), ids(3, 5)
    before, _ = own.write(own.start(3), ids(3, 4))
    context[1] = 0
    after, _ = own.write(before, context)
    assert torch.equal(memory_of(after)[1], memory_of(before)[1])
    assert not torch.equal(memory_of(after)[0], memory_of(before)[0])


@each
@pytest.mark.parametrize("options", [{}, {"rule": "titans"}, {"projection": True}], ids=str)
def test_a_memory_written_in_inference_mode_serves_outside_it(kind, options):
    own = made(kind, **(options if kind in META else {})).double()  # in float32 they differ by 1e-6 on some processors
    asked, more = episode(2, 2), ids(2, 4)
    wanted, _ = own.write(own.write(own.start(2), asked.context)[0], more)
    with torch.inference_mode():
        half, _ = own.write(own.start(2), asked.context)
    state, _ = own.write(half, more)
    torch.testing.assert_close(state.fast, wanted.fast, rtol=1e-10, atol=1e-11)
    answers = own.read(half, asked.query, asked.target)
    answers.sum().backward()


@pytest.mark.parametrize("short", [torch.bfloat16, torch.float16])
def test_a_gated_memory_is_written_in_short_floats(short):
    own = made("rmt4", gate=True).to(short)
    state, _ = own.write(own.start(2), ids(2, 5))
    assert memory_of(state).isfinite().all()
