"""An LMM walked along the diagonals of its grid is the LMM."""

from dataclasses import replace

import pytest
import torch

from core.titans_rows import assert_close, gradients
from ttmem.core.state import map_state, tensors
from ttmem.models import Titans, build, preset
from ttmem.models.lmm_stack import lmm_stack, walk

pytestmark = pytest.mark.usefixtures("float64")
OPTIONS = {
    "default": {},
    "deep": {"memory_depth": 3, "forget": "channel", "persistent_tokens": 0},
    "bare": {"memory_depth": 1, "memory_norm": False, "clip": None, "conv": 0, "momentum": False, "forget": "none"},
}
every = pytest.mark.parametrize("kind", OPTIONS)


def model(kind="default", layers=3, architecture="lmm") -> Titans:
    """A small model whose weights are large enough to matter."""
    shape = {"dim": 8, "heads": 2, "hidden": 8, "vocab": 20, "pad": 0, "chunk_size": 4, "layers": layers}
    made = build(preset("tiny", architecture, **shape | OPTIONS[kind]), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    return made


def text(length, ends=None):
    ids = torch.randint(1, 20, (2, length))
    ids[1, length if ends is None else ends :] = 0
    return ids


@every
@pytest.mark.parametrize("schedule", ["diagonal", "sequential"])
@pytest.mark.parametrize("length, ends, layers", [(27, 27, 3), (27, 9, 2), (5, 3, 4), (40, 33, 1)])
def test_the_walk_is_the_model_in_outputs_states_and_gradients(kind, schedule, length, ends, layers):
    made, ids = model(kind, layers), text(length, ends)
    found = walk(made, ids, segment=8, schedule=schedule)
    wanted = made.hidden(made.embedding(ids), mask=ids != 0)
    weights = tuple(made.parameters())
    assert_close(found[0], wanted[0])
    assert_close(tuple(found[1].fast.values()), tuple(wanted[1].fast.values()))
    assert found[1].step == wanted[1].step
    grads = [
        gradients((y, tuple(layer.memory.fast for layer in end.fast.values())), weights) for y, end in (found, wanted)
    ]
    assert all(grad.any() for grad in grads[1])
    assert_close(*grads)


@every
def test_either_may_go_on_where_the_other_ended(kind):
    made, ids = model(kind), text(31)
    whole, end = made.hidden(made.embedding(ids))
    first, half = walk(made, ids[:, :16], segment=8)
    rest, _ = made.hidden(made.embedding(ids[:, 16:]), half)
    assert_close((torch.cat([first, rest], dim=1),), (whole,))
    first, half = made.hidden(made.embedding(ids[:, :13]))  # in the middle of a chunk
    rest, done = walk(made, ids[:, 13:], half, segment=8)
    assert_close((torch.cat([first, rest], dim=1),), (whole,))
    assert_close(done.fast["2"].memory.fast, end.fast["2"].memory.fast)


def test_a_model_without_padding_is_walked_too():
    made = Titans(preset("tiny", "lmm", pad=-1))
    ids = torch.randint(0, 258, (1, 2 * made.config.chunk_size + 3))
    hidden, _ = walk(made, ids, segment=made.config.chunk_size)
    wanted, _ = made.hidden(made.embedding(ids))
    torch.testing.assert_close(hidden, wanted, rtol=1e-4, atol=1e-5)


def test_others_and_segments_that_cut_chunks_are_refused():
    with pytest.raises(ValueError, match="architecture must be lmm .* got 'mac'"):
        lmm_stack(model(architecture="mac"))
    with pytest.raises(ValueError, match="segment must be a multiple of chunk_size = 4, got 6"):
        walk(model(), text(9), segment=6)
    with pytest.raises(ValueError, match="schedule must be one of diagonal, sequential, got 'x'"):
        walk(model(), text(9), segment=8, schedule="x")


@pytest.mark.parametrize(
    "changes, said", [({"chunk_size": 2}, "chunk_size 4, it has 2"), ({"layers": 2}, "3 layers"), ({}, "batch of 2")]
)
def test_a_state_that_the_model_refuses_the_walk_refuses_as_well(changes, said):
    theirs = build(replace(model().config, **changes))
    state = theirs.start(2 if changes else 3)
    for read in (lambda: walk(model(), text(9), state, segment=8), lambda: model()(text(9), state)):
        with pytest.raises(ValueError, match=f"state must .*{said}"):
            read()


@pytest.mark.parametrize("short", ["autocast", "module"])
def test_the_walk_follows_the_model_s_floats_and_its_state_stays_float32(short):
    made, ids = model().float(), text(27, 19)
    made = made.bfloat16() if short == "module" else made
    with torch.autocast("cpu", torch.bfloat16, enabled=short == "autocast"):
        found, end = walk(made, ids, segment=8)
        wanted, same = made.hidden(made.embedding(ids), mask=ids != 0)
    assert found.dtype == wanted.dtype
    assert [x.dtype for x in tensors(end)] == [x.dtype for x in tensors(same)]
    assert (found - wanted).float().square().mean() < 1e-3 * wanted.float().square().mean()


def test_a_walk_goes_on_with_gradients_from_inference_mode_and_from_other_floats():
    made, ids = model(), text(31)
    with torch.inference_mode():
        _, half = walk(made, ids[:, :13], segment=8)
    short = map_state(lambda x: x.float() if x.is_floating_point() else x, half)
    for state in (half, short):
        found, wanted = walk(made, ids[:, 13:], state, segment=8)[0], made.hidden(made.embedding(ids[:, 13:]), state)[0]
        assert_close((found,), (wanted,))
        found.square().sum().backward()
