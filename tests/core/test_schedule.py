"""Walking the grid along its diagonals gives what walking it segment by segment gives."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from core.titans_rows import assert_close, gradients, leaf
from ttmem.core.schedule import FOLDS, Grid, Stack, apart, fold_diagonal, fold_sequential, joined, stack_of

pytestmark = pytest.mark.usefixtures("float64")
B, T, D = 2, 3, 4


def cell(weights, x, state, lengths):
    """Mixes tokens, layer and memory so that every cell depends on both cells before it; padding is not heard."""
    real = (torch.arange(x.shape[2]) < lengths[..., None])[..., None]
    y = torch.tanh(torch.einsum("gbti,gio->gbto", x, weights["w"]) + state["m"][:, :, None] + state["n"][:, :, None])
    heard = (y * real).sum(2)
    active = (lengths > 0)[..., None]
    m = torch.where(active, torch.tanh(0.5 * state["m"] + heard * weights["b"][:, None]), state["m"])
    return y, {"m": m, "n": torch.where(active, state["n"] * 0.9 + heard.square(), state["n"])}


def case(segments, layers, ragged=True):
    """Weights, a state in the middle of its life, and segments of which the last is short, in one row empty."""
    weights = {"w": leaf(torch.randn(layers, D, D)), "b": leaf(torch.randn(layers, D))}
    state = {name: leaf(torch.randn(layers, B, D)) for name in "mn"}
    lengths = torch.full((segments, B), T)
    if ragged:
        lengths[-1] = torch.tensor([1, 0])
    return Stack(cell, weights), state, Grid(leaf(torch.randn(segments, B, T, D)), lengths)


def both(stack, state, grid):
    return fold_diagonal(stack, state, grid), fold_sequential(stack, state, grid)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("layers", range(1, 10))
@pytest.mark.parametrize("segments", range(1, 10))
def test_diagonal_is_sequential_in_outputs_states_and_gradients(segments, layers, ragged):
    stack, state, grid = case(segments, layers, ragged)
    diagonal, sequential = both(stack, state, grid)
    assert_close(diagonal, sequential)
    sources = (stack.weights, state, grid.segments)
    grads = gradients(sequential, sources)
    assert all(grad.any() for grad in grads)
    assert_close(gradients(diagonal, sources), grads)


def test_sequential_is_the_recurrence_written_with_two_indices():
    stack, state, grid = case(4, 3)
    out, memory = {}, {}
    for s in range(4):
        for layer in range(3):
            below = out[s, layer - 1] if layer else grid.segments[s][None]
            before = memory[s - 1, layer] if s else {name: part[layer : layer + 1] for name, part in state.items()}
            own = {name: weight[layer : layer + 1] for name, weight in stack.weights.items()}
            out[s, layer], memory[s, layer] = cell(own, below, before, grid.lengths[s][None])
    tops, end = fold_sequential(stack, state, grid)
    assert_close(tops, torch.cat([out[s, 2] for s in range(4)]))
    assert_close(end, joined([memory[3, layer] for layer in range(3)]))


@pytest.mark.parametrize("segments, layers", [(1, 1), (1, 6), (5, 1), (9, 3), (3, 9), (4, 4)])
def test_a_diagonal_walk_makes_one_call_for_each_diagonal_and_no_cell_twice(segments, layers):
    stack, state, grid = case(segments, layers)
    groups = []

    def counted(weights, x, state, lengths):
        groups.append(len(x))
        assert {len(part) for part in (*weights.values(), *state.values(), lengths)} == {len(x)}
        return cell(weights, x, state, lengths)

    fold_diagonal(stack._replace(cell=counted), state, grid)
    assert len(groups) == segments + layers - 1 and sum(groups) == segments * layers
    assert max(groups) == min(segments, layers)
    wanted = Counter(s + layer for s in range(segments) for layer in range(layers))
    assert groups == [wanted[d] for d in range(segments + layers - 1)]


@pytest.mark.parametrize("name", FOLDS)
def test_nothing_given_is_changed_in_place(name):
    stack, state, grid = case(3, 4)
    before = [x.detach().clone() for x in (*stack.weights.values(), *state.values(), *grid)]
    with torch.no_grad():
        FOLDS[name](stack, state, grid)
    assert all(map(torch.equal, before, (*stack.weights.values(), *state.values(), *grid)))


@pytest.mark.parametrize("name", FOLDS)
def test_a_row_without_tokens_keeps_its_memory_to_the_last_bit(name):
    stack, state, grid = case(2, 3)
    grid = grid._replace(lengths=torch.tensor([[T, 0], [1, 0]]))
    _, end = FOLDS[name](stack, state, grid)
    for key, part in end.items():
        assert torch.equal(part[:, 1], state[key][:, 1]) and not torch.equal(part[:, 0], state[key][:, 0])


@pytest.mark.parametrize("name", FOLDS)
def test_padding_and_other_rows_are_not_heard(name):
    stack, state, grid = case(3, 3)
    tops, end = FOLDS[name](stack, state, grid)
    noise = torch.randn_like(grid.segments)
    real = (torch.arange(T) < grid.lengths[..., None])[..., None]
    real[:, 1] = False  # the other row may be anything
    told = FOLDS[name](stack, state, grid._replace(segments=torch.where(real, grid.segments, noise)))
    assert torch.equal(told[0][:, 0][real[:, 0, :, 0]], tops[:, 0][real[:, 0, :, 0]])
    assert all(torch.equal(told[1][key][:, 0], part[:, 0]) for key, part in end.items())
    assert not torch.equal(told[1]["m"], end["m"])


@pytest.mark.parametrize("name", FOLDS)
def test_segments_in_two_calls_are_segments_in_one(name):
    stack, state, grid = case(7, 3)
    whole, end = FOLDS[name](stack, state, grid)
    tops = []
    for part in (slice(0, 2), slice(2, 7)):
        top, state = FOLDS[name](stack, state, Grid(grid.segments[part], grid.lengths[part]))
        tops.append(top)
    assert_close((torch.cat(tops), state), (whole, end))


def test_layers_taken_apart_and_joined_are_the_layers():
    tree = {"a": torch.randn(4, 2), "b": torch.randn(4, 3, 1)}
    again = joined(apart(tree, 4))
    assert all(torch.equal(again[name], part) for name, part in tree.items())


def test_a_model_whose_memory_crosses_layers_is_refused_in_words():
    with pytest.raises(ValueError, match="sequential for SimpleNamespace: it leaves at the top and enters below"):
        stack_of(SimpleNamespace(crosses_layers="it leaves at the top and enters below"))
    with pytest.raises(ValueError, match="it does not give its layers as a stack"):
        stack_of(object())
    stack = case(1, 1)[0]
    assert stack_of(SimpleNamespace(stack=lambda: stack)) is stack
