"""Long texts, short floats, no gradients, another process, the compiler; and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.titans_rows import assert_close
from memories.another_process import numbered, save
from memories.small import DIM, OPTIONS, T, in_pieces, memory_of, text
from ttmem.core.chunkwise import tokenwise
from ttmem.core.state import tensors
from ttmem.memories import LongTermConfig, LongTermMemory, long_term

pytestmark = pytest.mark.usefixtures("float64")
TESTS = Path(__file__).parents[1]
kinds = pytest.mark.parametrize("kind", OPTIONS)

INPUTS = {"huge": lambda: 1e3 * torch.randn(1, 4096, 16), "same": lambda: torch.randn(1, 1, 16).repeat(1, 4096, 1)}


@pytest.mark.parametrize("x", INPUTS)
@pytest.mark.parametrize(
    "kind, forget", [("float32", "scalar"), ("float32", "none"), ("autocast", "none"), ("bfloat16", "none")]
)
def test_a_deep_memory_and_its_gradients_stay_finite_over_a_long_text(kind, forget, x):
    memory = LongTermMemory(16, heads=1, depth=4, expansion=2, chunk_size=64, forget=forget).float()
    x = INPUTS[x]().float()
    memory, x = (memory.bfloat16(), x.bfloat16()) if kind == "bfloat16" else (memory, x)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        y, state = memory(x)
    y.float().square().mean().backward()
    found = [y, *tensors(state), *(p.grad for p in memory.parameters())]
    assert all(torch.isfinite(part).all() for part in found) and y.float().std() > 0
    assert forget == "scalar" or all((w - memory.init[n]).abs().max() > 1e-3 for n, w in state.memory.fast.items())


@pytest.mark.parametrize("short", ["autocast", "module"])
def test_gates_and_state_stay_float32_where_the_rest_is_bfloat16(short, monkeypatch):
    memory, x, seen = memory_of("channel").float(), text().float(), []
    memory, x = (memory.bfloat16(), x.bfloat16()) if short == "module" else (memory, x)
    walk = long_term.chunkwise

    def spy(state, rows, *rest, **more):
        seen.append(rows)
        return walk(state, rows, *rest, **more)

    monkeypatch.setattr(long_term, "chunkwise", spy)
    with torch.autocast("cpu", torch.bfloat16, enabled=short == "autocast"):
        y, state = memory(x)
    lr, momentum, keep = memory.gates(x)
    gates = (seen[0].lr, seen[0].momentum, seen[0].keep)
    assert all(torch.equal(a, b) for a, b in zip(tensors(gates), tensors((lr, momentum, keep)), strict=True))
    floats = [part for part in tensors((seen[0], state.memory)) if part.is_floating_point()]
    assert all(part.dtype == torch.float32 for part in floats) and y.dtype == torch.bfloat16


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@kinds
def test_a_text_read_without_gradients_is_read_the_same_and_goes_on_with_them(kind, mode):
    memory, x = memory_of(kind), text()
    whole = memory(x)
    with mode():
        y, half = memory(x[:, :10])
        assert_close(in_pieces(memory, x, [10]), whole)
    rest, end = memory(x[:, 10:], half)
    assert_close((torch.cat([y, rest], dim=1), end), whole)
    rest.square().sum().backward()
    assert all(layer.weight.grad.any() for layer in (memory.qkv, memory.gates.linear, memory.out))


def in_another_process(*arguments):
    """What `another_process.py` prints; a warning of the compiler is an error."""
    paths = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    command = [sys.executable, "-W", "error::UserWarning", str(TESTS / "memories" / "another_process.py"), *arguments]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-4000:]
    return done.stdout


def test_a_saved_memory_goes_on_in_another_process(tmp_path):
    memory, x = memory_of(), text()
    _, half = memory(x[:, :10])
    save(tmp_path, memory, half, x[:, 10:])
    in_another_process("goes_on", str(tmp_path))
    end, wanted = load_file(tmp_path / "end.safetensors"), numbered(memory(x[:, 10:], half))
    assert end.keys() == wanted.keys()
    assert_close(end, {name: wanted[name] for name in end})


def test_compiled_numbers_and_gradients_are_the_eager_ones():
    found = json.loads(in_another_process("compiled"))
    assert set(found) == {"chunk", "layer"} and max(found.values()) < 1e-10


def test_no_token_writes_more_than_the_largest_step_of_the_longest_surprise():
    found = {}
    for clip in (None, 1e-3):
        torch.manual_seed(0)
        memory = memory_of("deep", momentum=False, forget="none", clip=clip)
        start, (_, end) = memory.start(2).memory.fast, memory(text())
        found[clip] = torch.stack([(end.memory.fast[n] - w).flatten(1).norm(dim=1) for n, w in start.items()])
    assert (found[1e-3] <= T * memory.config.lr_max * 1e-3).all() and (found[1e-3] < found[None] / 10).all()


@pytest.mark.parametrize("options, largest", [({"chunk_size": 5}, 0.2), ({"chunk_size": 5, "lr_max": 0.7}, 0.7)])
def test_the_largest_step_is_lr_max_and_without_one_a_share_of_the_chunk(options, largest):
    memory = LongTermMemory(DIM, **options)
    torch.nn.init.constant_(memory.gates.linear.bias, 1e9)
    assert_close(memory.gates(text())[0], torch.full((2 * 4, T, 2), largest))


ERRORS = {
    "dim must be >= 1, got 0": {"dim": 0},
    "dim must be a multiple of heads = 3, got 8": {"heads": 3},
    "heads must be >= 1, got 0": {"heads": 0},
    "depth must be >= 1, got 0": {"depth": 0},
    "expansion must be >= 1, got -1": {"expansion": -1},
    "chunk_size must be >= 1, got 0": {"chunk_size": 0},
    "conv must be >= 0, got -1": {"conv": -1},
    "lr_max must be > 0, got 0.0": {"lr_max": 0.0},
    "lr_max must be > 0, got nan": {"lr_max": float("nan")},
    "clip must be > 0, got -1.0": {"clip": -1.0},
    "forget must be one of scalar, channel, none, got 'all'": {"forget": "all"},
}


@pytest.mark.parametrize("message", ERRORS)
def test_an_option_that_makes_no_memory_is_named_in_the_error(message):
    with pytest.raises(ValueError) as error:
        LongTermConfig(**{"dim": DIM} | ERRORS[message])
    assert str(error.value) == message


@pytest.mark.parametrize("shape", [(2, 0, DIM), (2, 5, DIM + 1)])
def test_features_that_are_no_text_are_named_in_the_error(shape):
    with pytest.raises(ValueError, match=rf"x must be \(batch >= 1, time >= 1, 8\), got \(2, {shape[1]}, {shape[2]}\)"):
        memory_of()(torch.randn(shape))


@pytest.mark.parametrize("other", ["batch", "depth", "width"])
def test_the_state_of_another_batch_or_memory_is_refused(other):
    theirs = {"depth": {"depth": 3}, "width": {"expansion": 3}, "batch": {}}[other]
    state = memory_of(**theirs).start(3 if other == "batch" else 2)
    with pytest.raises(ValueError, match="state must be of this memory and a batch of 2: it has"):
        memory_of()(text(2), state)


@pytest.mark.parametrize(
    "options, said", [({"chunk_size": 4}, "chunk_size 4"), ({"momentum": False}, "momentum=False")]
)
def test_the_state_of_another_kind_of_memory_is_refused(options, said):
    _, state = LongTermMemory(16, heads=2, chunk_size=8)(torch.randn(1, 5, 16))
    with pytest.raises(ValueError, match=said):
        LongTermMemory(16, **{"heads": 2, "chunk_size": 8} | options)(torch.randn(1, 5, 16), state)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_silent_stretch_gets_no_gradient_without_bounds(depth):
    memory, lift = LongTermMemory(16, heads=2, depth=depth, chunk_size=4), torch.nn.Linear(3, 16)
    torch.nn.init.zeros_(lift.bias)
    torch.nn.init.normal_(memory.norm_bias, std=0.1)
    series = torch.randn(2, 24, 3)
    memory(lift(series))[0].square().mean().backward()
    loud = lift.bias.grad.norm()
    lift.zero_grad()
    series[:, 8:16] = 0
    memory(lift(series))[0].square().mean().backward()
    assert lift.bias.grad.norm() < 1e4 * loud  # it was 1e11 times as long


@pytest.mark.parametrize("clip", [10.0, None])
def test_gradients_of_gradients_are_finite_where_tokens_are_masked(monkeypatch, clip):
    memory = LongTermMemory(8, heads=2, chunk_size=4, clip=clip).float()
    torch.nn.init.normal_(memory.norm_bias, std=0.1)
    monkeypatch.setattr(long_term, "chunkwise", tokenwise)
    mask, weights = torch.arange(12)[None] < 5, list(memory.parameters())
    said, _ = memory(torch.randn(1, 12, 8, dtype=torch.float32), mask=mask)
    first = torch.autograd.grad(said.square().sum(), weights, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), weights, materialize_grads=True)
    assert all(torch.isfinite(g).all() for g in (*first, *second))
