"""The steps of a layer's memory: what momentum adds and damping takes away, and that no short floats get in."""

import pytest
import torch

from ttmem.memories.associative import AssociativeMatrix, LayerNetwork, Pass

pytestmark = pytest.mark.usefixtures("float64")
D = 4


def errors(momentum, damped):
    """How far a linear memory is from a pair, beside the pair's size, before each time that it is written: every fifth
    segment, with another one in between."""
    memory = LayerNetwork(D, heads=1, steps=1, conv=0, clip=None, damped=damped)
    weights = memory.weights(1, 0.5)
    eta = torch.tensor(momentum).logit()
    weights["memory_bias"], weights["memory_rates"] = torch.tensor([[9.0, eta, -20.0]]), torch.zeros(1, D, 3)
    weights["memory_kv"] = torch.cat([torch.eye(D), torch.randn(D, D)], dim=1)[None]
    state, found = memory.start(memory.init(1), 1), []
    for turn in range(101):
        seen = 5 * torch.eye(D)[0 if turn % 5 == 0 else 1].expand(1, 1, 1, D)
        done = Pass(seen, seen, seen)
        k, v = memory.associations(weights, done)
        if turn % 5 == 0:
            found.append(float((k @ state["w1"].flatten(0, 2) - v).norm() / v.norm()))
        state = memory.write(weights, state, done, torch.ones(1, 1, 1, dtype=torch.bool))
    return found


@pytest.mark.parametrize("momentum", [0.01, 0.3, 0.5, 0.7, 0.9])
def test_a_damped_memory_comes_to_know_a_pair_however_much_momentum_it_has(momentum):
    found = errors(momentum, damped=True)
    assert max(found) == found[0] == 1 and found[-1] < 0.01


def test_without_damping_much_momentum_takes_it_ever_further_away():
    assert errors(0.3, damped=False)[-1] < 0.01
    found = errors(0.7, damped=False)
    assert all(after > before for before, after in zip(found, found[1:], strict=False))
    assert found[-1] > 10


@pytest.mark.parametrize("short", [torch.bfloat16, torch.float16])
def test_a_matrix_is_written_in_full_where_autocast_would_shorten(short):
    memory = AssociativeMatrix(D, key=3)
    weights = {name: weight.float() for name, weight in memory.weights(1, 0.5).items()}
    state, tokens = memory.start(1, 2, torch.zeros(()).float()), torch.randn(1, 2, 3, D).float()
    active = torch.ones(1, 2, dtype=torch.bool)
    wanted = memory.write(weights, state, tokens, active)
    with torch.autocast("cpu", short):
        cast = memory.write(weights, state, tokens, active)
        said, _ = memory.recall(cast, torch.rand(1, 2, 5, 18).float())
    assert torch.equal(cast["a"], wanted["a"]) and torch.equal(cast["z"], wanted["z"])
    assert said.dtype == torch.float32
