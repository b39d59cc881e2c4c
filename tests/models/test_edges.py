"""Zeros, copies, padding and options at the edge of what a write is asked for."""

import pytest
import torch

import models.small_layers as layered
from models.tiny import ids, model
from ttmem.core import loop
from ttmem.core.state import map_state, tensors
from ttmem.models import WriteConfig, build, preset
from ttmem.models.segments import pushed
from ttmem.tasks import Episode

FLAT = ["tokens", "neural", "mlp", "rmt4", "rmt", "forward"]
ALL = [*FLAT, *layered.KINDS]
TITANS = ["lmm", "mac", "mag", "mal", "swa", "full"]


def made(kind, **changes):
    return (
        layered.model(kind, **{"vocab": 7, "separator": 6} | changes)
        if kind in layered.KINDS
        else model(kind, **changes)
    )


@pytest.mark.parametrize("kind", [*ALL, "lmm", "mac"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_memory_that_has_read_nothing_is_a_copy_of_its_own(kind, batch):
    own = build(preset("tiny", kind), 0) if kind in TITANS else made(kind)
    before = [weight.detach().clone() for weight in own.parameters()]
    state = own.start(batch)
    kept = map_state(lambda leaf: leaf.detach().clone(), state)
    with torch.no_grad():
        for leaf in tensors(state.fast):
            if len(leaf):
                leaf[0] = 7.0
    assert all(map(torch.equal, own.parameters(), before))
    for leaf, was in zip(tensors(state.fast), tensors(kept.fast), strict=True):
        assert torch.equal(leaf[1:], was[1:]) or len(leaf) != batch  # Titans: heads are rows as well


@pytest.mark.parametrize("kind", ["tokens", "neural", "mlp", "forward", "rmt4", "rmt"])
def test_padding_in_front_and_between_changes_nothing(kind):
    own = made(kind)
    plain = torch.tensor([[1, 2, 3, 4, 0, 0], [5, 3, 0, 0, 0, 0]])
    odd = torch.tensor([[0, 0, 1, 2, 3, 4], [0, 5, 0, 0, 3, 0]])
    (one, log), (two, other) = (own.write(own.start(2), context) for context in (plain, odd))
    torch.testing.assert_close(two.fast["mem"], one.fast["mem"])
    torch.testing.assert_close(other.loss, log.loss)
    torch.testing.assert_close(own.remains(two, odd), own.remains(one, plain)) if kind in ("tokens", "mlp") else None


def test_pushed_keeps_order_and_width():
    rows = torch.randint(0, 3, (50, 9))
    for row, found in zip(rows.tolist(), pushed(rows, 0).tolist(), strict=True):
        real = [i for i in row if i]
        assert found == real + [0] * (9 - len(real))


@pytest.mark.parametrize("kind", ["rmt4", "rmt", "armt", "value"])
def test_truncation_by_size_cuts_where_the_write_does_wherever_padding_is(kind):
    parts = {"separator": None, "segment_size": 2}
    rows = [[0, 3, 1, 2, 4, 0], [5, 0, 0, 2, 1, 3]]
    query, target = ids(2, 1, 2), ids(2, 1, 2)
    asked = Episode(torch.tensor(rows), query, target, target > 0, {})
    whole, late = (made(kind, **parts, truncate=last).loss(asked).parts["read"] for last in (None, 1))
    torch.testing.assert_close(late, whole)


@pytest.mark.parametrize("meta", ["first", "none"])
def test_weights_of_tokens_that_could_not_be_learned_are_refused(meta):
    with pytest.raises(ValueError, match=f"^weigh must be False for meta_gradient={meta}, which cannot train it"):
        WriteConfig(weigh=True, meta_gradient=meta)


def test_a_clip_without_limit_is_refused():
    with pytest.raises(ValueError, match="^clip must be finite, got inf"):
        WriteConfig(clip=float("inf"))


@pytest.mark.parametrize("meta, again", [("first", False), ("none", False), ("second", True), ("last_1", True)])
def test_nothing_is_made_again_where_nothing_is_kept(monkeypatch, meta, again):
    calls = []
    monkeypatch.setattr(loop, "checkpoint", lambda step, *args, **_: (calls.append(1), step(*args))[1])
    own = model("tokens", recompute=True, meta_gradient=meta)
    own.write(own.start(2), ids(2, 6))
    assert bool(calls) == again


@pytest.mark.parametrize("gate", [False, True])
def test_without_a_meta_gradient_the_written_memory_is_a_constant(gate):
    own = model("rmt4", meta_gradient="none", gate=gate)
    state, _ = own.write(own.start(2), ids(2, 6))
    assert not state.fast["mem"].requires_grad


# Titans


@pytest.mark.parametrize("kind", TITANS)
def test_ids_of_32_bits_and_ids_that_do_not_exist_behind_a_mask(kind):
    own = build(preset("tiny", kind, vocab=70, pad=0, context_loss=1.0), 0)
    rows = torch.randint(1, 70, (2, 9))
    long, short = (own.write(own.start(2), rows.to(kind))[1].loss for kind in (torch.long, torch.int32))
    assert torch.equal(long, short)
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    logits, _ = own(rows.masked_fill(~mask, -100), mask=mask)
    torch.testing.assert_close(logits, own(rows, mask=mask)[0])


@pytest.mark.parametrize("kind", TITANS)
def test_an_empty_batch_is_refused_in_the_words_of_the_call(kind):
    own = build(preset("tiny", kind), 0)
    with pytest.raises(ValueError, match="^ids must have a row, got an empty batch"):
        own(torch.zeros(0, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="^batch must be >= 0, got -1"):
        own.start(-1)
