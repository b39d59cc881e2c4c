"""Truncated back-propagation over segments: the same numbers forward, and a gradient that stops where it is told to."""

import weakref
from functools import partial

import pytest
import torch

from models.small_layers import model as layered
from models.tiny import ids, memory_of
from models.tiny import model as tokens
from ttmem.models import LayeredConfig, ModelConfig
from ttmem.models.base import score
from ttmem.models.segments import begun, parted
from ttmem.tasks import Episode

pytestmark = pytest.mark.usefixtures("float64")
near = {"rtol": 1e-9, "atol": 1e-11}
END = 6
KINDS = {
    "rmt": lambda **more: tokens("rmt", separator=END, **more),
    "rmt4": lambda **more: tokens("rmt4", separator=END, **more),
    "rmt4 with all": lambda **more: tokens(
        "rmt4", separator=END, rule="titans", gate=True, replay=0.3, weigh=True, weight=0.0, **more
    ),
    "armt": lambda **more: layered("armt", separator=END, **more),
    "prmt4": lambda **more: layered("value", separator=END, **more),
    "prmt4, overlap": lambda **more: layered("overlap", separator=END, **more),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def asked(*rows):
    """An episode whose contexts are segments of these lengths, the separator not counted."""
    made = [torch.cat([torch.cat([ids(n) % 5 + 1, torch.tensor([END])]) for n in row]) for row in rows]
    context = torch.nn.utils.rnn.pad_sequence(made, batch_first=True)
    query, target = (ids(len(rows), 2, 3) % 5 + 1 for _ in range(2))
    slices = {"position": torch.zeros(len(rows), 2, dtype=torch.long)}
    return Episode(context, query, target, torch.ones_like(target, dtype=torch.bool), slices)


def gradients(made, loss):
    """Of every weight, zeros where there is none."""
    weights = list(made.parameters())
    found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return dict(zip(dict(made.named_parameters()), found, strict=True))


def close(found, wanted):
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], grad, **near, msg=lambda said, name=name: f"{name}: {said}")


def cut_by_hand(made, context, last):
    """The loss of the answers to a memory whose past before the last segments is a constant; one row."""
    early, late = parted(context.context, 0, last, END)
    state = made.start(1)
    if early.shape[1]:
        state, _ = made.write(state, early)
        state = state._replace(fast={name: leaf.detach() for name, leaf in state.fast.items()})
    state, _ = made.write(state, late)
    return score(made.read(state, context.query, context.target), context).loss


def reading(made):
    """The same model, whose loss is that of its answers alone."""
    if hasattr(made.config, "weight"):
        object.__setattr__(made.config, "weight", 0.0)
    return made


@pytest.mark.parametrize("last", [1, 2, 3, 9])
def test_the_two_parts_put_together_are_the_row_and_the_later_has_so_many_segments(last):
    context = asked([3, 0, 4, 2], [2, 1, 1], [5]).context
    early, late = parted(context, 0, last, END)
    for before, behind, row in zip(early, late, context, strict=True):
        assert torch.equal(torch.cat([before[before > 0], behind[behind > 0]]), row[row > 0])
        assert (behind == END).sum() == min(last, int((row == END).sum()))
        assert not before[before > 0].numel() or before[before > 0][-1] == END


def test_parts_of_a_size_end_where_segments_of_that_size_end():
    row = torch.arange(1, 12)[None]
    early, late = parted(row, 0, last=2, size=4)
    assert early.tolist() == [[1, 2, 3, 4]] and late.tolist() == [list(range(5, 12))]
    assert [part.shape for part in parted(row[:, :0], 0, last=2, size=4)] == [(1, 0), (1, 0)]


@kinds
@pytest.mark.parametrize("last", [1, 2, 5])
def test_truncation_changes_no_loss_of_the_answers(kind, last):
    context = asked([3, 4, 2, 1], [4], [2, 2])
    found = reading(KINDS[kind](truncate=last)).loss(context)
    wanted = reading(KINDS[kind]()).loss(context)
    torch.testing.assert_close(found.loss, wanted.loss, **near)
    assert torch.equal(found.exact, wanted.exact)


@kinds
@pytest.mark.parametrize("last", [1, 2])
def test_the_gradient_stops_at_the_memory_before_the_last_segments(kind, last):
    made, context = reading(KINDS[kind](truncate=last)), asked([3, 4, 2])
    found = gradients(made, made.loss(context).loss)
    close(found, gradients(made, cut_by_hand(made, context, last)))
    full = gradients(made, cut_by_hand(made, context, 9))
    assert any((found[name] - full[name]).abs().max() > 1e-6 for name in full)


@kinds
def test_more_segments_than_there_are_is_no_truncation(kind):
    context, found = asked([3, 4, 2], [1]), []
    for last in (3, None):
        made = KINDS[kind](truncate=last)
        found.append(gradients(made, made.loss(context).loss))
    close(*found)


@kinds
def test_each_row_is_cut_at_its_own_last_segments(kind):
    made, both = reading(KINDS[kind](truncate=2)), asked([3, 4, 2, 1], [4, 1])
    found = gradients(made, made.loss(both).loss)
    alone = [gradients(made, made.loss(both[row : row + 1]).loss) for row in range(2)]
    close(found, {name: (alone[0][name] + alone[1][name]) / 2 for name in found})
    # ARMT begins at zero: its `init` are the memory tokens behind each segment
    learned = [name for name in found if "init" in name and kind != "armt"]
    assert all(not alone[0][name].any() for name in learned)
    assert not learned or any(alone[1][name].any() for name in learned)


def test_what_was_before_is_written_without_a_graph():
    made = KINDS["rmt4"](truncate=1)
    early = asked([3, 4]).context
    with torch.no_grad():
        wanted, _ = made.write(made.start(1), early)
    found = begun(made.start, made.write, early, pad=0)
    assert torch.equal(found.fast["mem"], wanted.fast["mem"])
    assert (
        begun(made.start, made.write, early[:, :0], pad=0).fast["mem"].requires_grad
    )  # nothing stands there: the initial memory


@pytest.mark.parametrize("made", [partial(ModelConfig, memory="rmt4"), LayeredConfig])
@pytest.mark.parametrize("value, said", [(0, "must be >= 1, got 0"), (True, "must be a number of segments")])
def test_what_is_no_number_of_segments_is_refused_by_name(made, value, said):
    with pytest.raises(ValueError, match=f"truncate {said}"):
        made(truncate=value)


def test_a_memory_without_segments_has_nothing_to_truncate():
    with pytest.raises(ValueError, match="truncate must be None for memory=tokens"):
        ModelConfig(truncate=2)


@pytest.mark.parametrize("kind", ["rmt", "rmt4", "armt", "value"])
def test_segments_of_a_size_are_cut_at_that_size_and_padding_is_what_the_model_says(kind):
    """The gradient of a model that cuts by size and pads with another id is that of its twin that cuts at an id."""
    sizes = {"separator": None, "segment_size": 4, "truncate": 2}
    make = layered if kind in ("armt", "value") else tokens
    made, whole = make(kind, **sizes), make(kind, separator=None, segment_size=4)
    asked_of = asked([3, 3, 3, 3], [3, 3, 3])
    found, plain = made.loss(asked_of), whole.loss(asked_of)
    if kind != "rmt4":
        torch.testing.assert_close(found.loss, plain.loss, **near)
    by_id = make(kind, separator=END, truncate=2)
    close(gradients(made, found.loss), gradients(by_id, by_id.loss(asked_of).loss))


def test_the_outer_write_loss_asks_for_as_many_segments_as_are_seen():
    made, context = KINDS["rmt4"](truncate=2), asked([3, 4, 2, 1], [4]).context
    state, _ = made.write(made.start(2), context)
    parts = made.segments(context)
    chosen = torch.stack([parts[0, 0], parts[0, 3], parts[1, 0]])  # the first and the last; of the second row its one
    with torch.no_grad():
        wanted = [
            made.remains(type(state)({"mem": memory_of(state)[row : row + 1]}), ids[None]).item()
            for row, ids in zip((0, 0, 1), chosen, strict=True)
        ]
    assert made.left(state, context).item() == pytest.approx(sum(wanted) / 3, rel=1e-9)


def test_more_context_saves_no_more_for_the_backward_pass():
    made, held = KINDS["rmt4"](truncate=2), []
    for count in (4, 16):
        kept = []

        def pack(saved, kept=kept):
            kept.append(weakref.ref(saved))
            return saved

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            outcome = made.loss(asked([2] * count))
        alive = (each() for each in kept)  # inner gradients of what is written without a graph are gone by now
        held.append(sum(saved.numel() for saved in alive if saved is not None))
        del outcome
    assert held[1] < 1.1 * held[0]


@pytest.mark.parametrize("kind", ["rmt4", "prmt4"])
def test_the_number_of_writes_counts_all_segments(kind):
    made, context = KINDS[kind](truncate=1), asked([3, 4, 2]).context
    early, _ = parted(context, 0, 1, END)
    assert begun(made.start, made.write, early, pad=0).step == 2
