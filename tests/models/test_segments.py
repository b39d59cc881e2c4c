"""Memory carried over segments: cut where the text says, written in order, and kept where there is nothing to write."""

import pytest
import torch
import torch.nn.functional as F

from models.tiny import episode, ids, memory_of, model
from ttmem.core import State
from ttmem.models import ModelConfig, build
from ttmem.models.segments import cut

pytestmark = pytest.mark.usefixtures("float64")
near = {"rtol": 1e-11, "atol": 1e-12}
END = 6
OPTIONS = [
    {},
    {"rule": "titans"},
    {"gate": True},
    {"replay": 0.3},
    {"weigh": True, "weight": 0.0},
    {"rule": "titans", "gate": True, "replay": 0.3, "steps": 3},
]
options = pytest.mark.parametrize("changes", OPTIONS, ids=str)


def rmt4(**changes):
    return model("rmt4", separator=END, **changes)


def text(*rows):
    """Contexts of segments that are given as lengths, the separator not counted; padding behind."""
    made = [torch.cat([torch.cat([ids(n) % 5 + 1, torch.tensor([END])]) for n in row]) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(made, batch_first=True)


@pytest.mark.parametrize("pad", [0, 9])
def test_segments_put_together_are_the_text(pad):
    context = text([2, 0, 3], [4], [1, 1])
    context = torch.where(context == 0, pad, context)
    for parts in (cut(context, pad, separator=END), cut(context, pad, size=4)):
        for row, own in zip(parts, context, strict=True):
            assert torch.equal(row[row != pad], own[own != pad])
    assert cut(context, pad, separator=END).shape == (3, 3, 5)
    assert cut(context[:, :0], pad, size=4).shape == (3, 1, 1)


def test_a_separator_closes_its_segment_and_what_follows_the_last_is_one_too():
    row = torch.tensor([[1, END, END, 2, 3]])
    assert cut(row, 0, separator=END).tolist() == [[[1, END], [END, 0], [2, 3]]]


@pytest.mark.parametrize("how", [{"separator": END}, {"size": 2}], ids=str)
def test_padding_before_and_between_tokens_is_left_out(how):
    row = torch.tensor([[0, 0, 1, END, 0, 2, 3, END, 4]])
    assert torch.equal(cut(row, 0, **how), cut(row[row != 0][None], 0, **how))


def test_a_segment_has_a_token():
    with pytest.raises(ValueError, match="segment_size must be a whole number >= 1, got 0"):
        model("rmt4", separator=None, segment_size=0)


@pytest.mark.parametrize(
    "separator, line",
    [
        (7, "separator must be < vocab = 7, got 7: give the task's, or None and a segment_size"),
        (-1, "separator must be >= 0, got -1"),
        (0, "separator must be another id than pad = 0, got 0"),
    ],
)
def test_a_separator_is_an_id(separator, line):
    for kind in ("rmt", "rmt4"):
        with pytest.raises(ValueError) as caught:
            model(kind, separator=separator)
        assert str(caught.value) == line
    model("tokens", separator=separator)  # which has no segments


@pytest.mark.parametrize("said", [{}, {"separator": 1, "size": 2}])
def test_a_cut_needs_one_of_separator_and_size(said):
    with pytest.raises(ValueError, match="give either separator or segment_size"):
        cut(ids(1, 3), 0, **said)


@options
def test_a_write_is_its_segments_written_one_after_another(changes):
    made, context = rmt4(**changes), text([3, 4, 2], [1, 5, 3])
    whole, log = made.write(made.start(2), context)
    state, logs = made.start(2), []
    for part in cut(context, 0, separator=END).unbind(1):
        state, own = made.write(state, part)
        logs.append(own.loss)
    torch.testing.assert_close(memory_of(whole), memory_of(state), **near)
    torch.testing.assert_close(log.loss, torch.cat(logs), **near)
    assert log.loss.shape == (3 * made.config.steps, 2)


def test_one_segment_is_a_write_of_memory_tokens():
    made, plain, context = rmt4(), model("tokens"), text([5], [3])
    plain.load_state_dict(made.state_dict())
    one, two = (m.write(m.start(2), context)[0] for m in (made, plain))
    torch.testing.assert_close(memory_of(one), memory_of(two), **near)


@options
def test_a_row_without_a_segment_keeps_its_memory(changes):
    made, context = rmt4(**changes), text([3, 4, 2], [4])
    both, _ = made.write(made.start(2), context)
    alone, _ = made.write(made.start(1), context[1:, :5])
    torch.testing.assert_close(memory_of(both)[1:], memory_of(alone), **near)


def test_a_row_without_a_segment_costs_nothing(monkeypatch):
    made, context = rmt4(), text([3, 4, 2], [4])
    rows, hidden = [], made.backbone.hidden
    monkeypatch.setattr(made.backbone, "hidden", lambda x, prefix: rows.append(len(prefix)) or hidden(x, prefix))
    state, log = made.write(made.start(2), context)
    steps = made.config.steps
    assert rows == [2] * steps + [1] * 2 * steps and not log.loss[steps:, 1].any() and log.loss[:, 0].all()
    rows.clear()
    made.left(state, context)
    assert rows == [4]


@options
def test_padding_and_other_rows_change_nothing(changes):
    made, context = rmt4(**changes), text([3, 2], [4, 1])
    one = memory_of(made.write(made.start(2), context)[0])
    padded = memory_of(made.write(made.start(2), F.pad(context, (0, 3)))[0])
    torch.testing.assert_close(one, padded, **near)
    other = torch.cat([context[:1], text([1, 2, 3])[:, : context.shape[1]]])
    assert torch.allclose(memory_of(made.write(made.start(2), other)[0])[0], one[0], rtol=1e-11)


@options
def test_a_later_segment_changes_the_memory_and_an_earlier_one_still_counts(changes):
    made, context = rmt4(**changes), text([3, 3])
    written = memory_of(made.write(made.start(1), context)[0])
    for place in (0, 4):
        changed = context.clone()
        changed[0, place] = changed[0, place] % 5 + 1
        assert (memory_of(made.write(made.start(1), changed)[0]) - written).abs().max() > 1e-6


@options
def test_the_meta_gradient_through_all_segments_is_the_finite_difference(changes):
    made = rmt4(**changes)
    asked = episode()
    asked = type(asked)(text([2, 3], [3, 1]), asked.query, asked.target, asked.answer, asked.slices)
    made.loss(asked).loss.backward()
    for name in (
        "memory.init.mem",
        "rates.raw.lr_mem",
        "backbone.embedding.weight",
        *(["queries"] * bool(made.config.replay)),
    ):
        weight = dict(made.named_parameters())[name]
        direction = torch.randn_like(weight)
        with torch.no_grad():
            found = []
            for sign in (1, -1):
                weight.add_(sign * 1e-6 * direction)
                found.append(made.loss(asked).loss)
                weight.sub_(sign * 1e-6 * direction)
        slope = (found[0] - found[1]) / 2e-6
        torch.testing.assert_close((weight.grad * direction).sum(), slope, rtol=1e-5, atol=1e-7)


@options
def test_every_parameter_receives_a_gradient(changes):
    made, asked = rmt4(**changes), episode()
    asked = type(asked)(text([2, 3], [3, 1]), asked.query, asked.target, asked.answer, asked.slices)
    made.loss(asked).loss.backward()
    assert [n for n, p in made.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_replay_holds_on_to_what_the_memory_said():
    context = text([4, 4])
    free, held = rmt4(steps=1), rmt4(steps=2, replay=50.0, lr=0.02)
    held.load_state_dict(free.state_dict() | {"queries": held.queries.data, "rates.raw.lr_mem": held.rates.raw.lr_mem})
    said = []
    for replay in (0.0, 50.0):
        object.__setattr__(held.config, "replay", replay)
        first, _ = held.write(held.start(1), context[:, :5])
        second, _ = held.write(first, context[:, 5:])
        said.append((held.say(memory_of(second)) - held.say(memory_of(first))).norm())
    assert said[1] < 0.9 * said[0]


def test_the_gate_is_between_the_old_and_the_new_memory():
    gate, old, new = rmt4(gate=True).gate, torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    share = (gate(old, new) - old) / (new - old)
    assert (share > 0).all() and (share < 1).all()


@pytest.mark.parametrize(("field", "value", "least"), [("replay", -1.0, 0), ("probes", 0, 1)])
def test_a_replay_that_cannot_be_is_refused(field, value, least):
    with pytest.raises(ValueError, match=f"^{field} must be >= {least}, got {value}$"):
        ModelConfig(memory="rmt4", **{field: value})


def test_rmt_of_one_segment_is_the_forward_write():
    rmt, forward, context = model("rmt", separator=END), model("forward"), text([4], [2])
    forward.load_state_dict(rmt.state_dict())
    one, two = (m.write(m.start(2), context)[0] for m in (rmt, forward))
    assert torch.equal(memory_of(one), memory_of(two))


def test_rmt_writes_its_segments_one_after_another_and_skips_what_a_row_has_not():
    made, context = model("rmt", separator=END), text([3, 2], [4])
    whole, _ = made.write(made.start(2), context)
    state = made.start(2)
    first, second = cut(context, 0, separator=END).unbind(1)
    state, _ = made.write(state, first)
    torch.testing.assert_close(memory_of(whole)[1], memory_of(state)[1], **near)
    state, _ = made.write(State({"mem": memory_of(state)[:1]}), second[:1])
    torch.testing.assert_close(memory_of(whole)[:1], memory_of(state), **near)


def test_the_write_loss_asks_the_last_memory_for_every_segment():
    made, context = rmt4(), text([3, 3], [2, 4])
    state, _ = made.write(made.start(2), context)
    own = [
        made.reconstruction(memory_of(state), part, made.sources(part, 1)[0]).mean()
        for part in cut(context, 0, separator=END).unbind(1)
    ]
    torch.testing.assert_close(made.left(state, context), torch.stack(own).mean(), **near)


def test_segments_by_size_are_those_of_the_config():
    made = build(ModelConfig(memory="rmt4", vocab=7, dim=8, layers=1, heads=2, separator=None, segment_size=4), 0)
    _, log = made.write(made.start(1), ids(1, 10))
    assert log.loss.shape == (6, 1)
