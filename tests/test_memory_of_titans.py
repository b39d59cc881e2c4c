"""States of Titans models in memory files: saved, loaded, gone on with."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ttmem.core import State
from ttmem.core.state import map_state, tensors
from ttmem.memory_file import MemoryMismatch, Writer, describe, load_memory, save_memory
from ttmem.models import Titans, build, preset

KINDS = ("lmm", "mac", "mag", "mal", "swa")


def made(kind: str) -> Titans:
    layers = 11 if kind == "swa" else 2  # by name "10" comes before "2"
    return build(preset("tiny", kind, layers=layers, dim=8), seed=0).double()


def saved(path, model: Titans, ids: Tensor) -> tuple[State, Writer]:
    """The state behind the ids, which is also in the file."""
    with torch.no_grad():
        state, log = model.write(model.start(len(ids)), ids)
    writer = Writer.of(model, "mine", "0f3a")
    save_memory(path, state, describe(writer, "needle:passkey:128", ["a", "b"][: len(ids)], log.loss))
    return state, writer


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_the_same_after_a_stay_on_disk_and_reads_on(tmp_path, kind):
    model, ids = made(kind), torch.randint(0, 256, (2, 37))
    state, writer = saved(tmp_path / "a.memory", model, ids[:, :21])
    read, about = load_memory(tmp_path / "a.memory", writer, like=model.start(1))
    assert (about.writes, read.step, read.fast.keys()) == (state.step, state.step, state.fast.keys())
    assert all(ours.equal(theirs) for ours, theirs in zip(tensors(read), tensors(state), strict=True))
    with torch.no_grad():
        assert model(ids[:, 21:], read)[0].equal(model(ids[:, 21:], state)[0])


def test_every_tensor_leads_with_the_row_and_heads_come_second(tmp_path):
    state, writer = saved(tmp_path / "a.memory", made("mac"), torch.randint(0, 256, (2, 21)))
    plain, about = load_memory(tmp_path / "a.memory", writer)
    assert all(len(leaf) == 2 for leaf in plain.fast.values()) and len(plain.fast) == len(tensors(state))
    weights = plain.fast["1.memory.memory.fast.w1"]
    assert weights.shape[1] == 2 and weights.flatten(0, 1).equal(state.fast["1"].memory.memory.fast["w1"])
    assert about.writer.shapes["1.place"] == [] and about.writer.shapes["1.memory.memory.seen"] == [2]


def test_a_row_of_a_file_is_the_state_of_that_row(tmp_path):
    model, ids = made("lmm"), torch.randint(0, 256, (2, 37))
    _, writer = saved(tmp_path / "both.memory", model, ids)
    alone, _ = saved(tmp_path / "one.memory", model, ids[1:])
    both, _ = load_memory(tmp_path / "both.memory", writer, like=model.start(1))
    second = map_state(lambda leaf: leaf.unflatten(0, (2, -1))[1], both)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(tensors(second), tensors(alone), strict=True))


def test_a_state_that_grows_with_the_text_has_no_memory_file(tmp_path):
    with pytest.raises(ValueError, match="Titans has no memory file: what it keeps grows with the text"):
        saved(tmp_path / "a.memory", made("full"), torch.randint(0, 256, (2, 9)))


def test_a_state_is_not_put_together_like_that_of_another_model(tmp_path):
    saved(tmp_path / "a.memory", made("lmm"), torch.randint(0, 256, (2, 9)))
    with pytest.raises(MemoryMismatch, match=r"of another model than `like`: give model.start\(1\)"):
        load_memory(tmp_path / "a.memory", like=made("mac").start(1))


GO_ON = """
import json, sys, torch
from safetensors.torch import load_file, save_file
from ttmem.memory_file import load_memory
from ttmem.models import build, config_of
torch.set_num_threads(1)
model = build(config_of(json.load(open("config.json")))).double()
model.load_state_dict(load_file("weights"))
state, _ = load_memory("a.memory", like=model.start(1))
with torch.no_grad():
    save_file({"logits": model(load_file("rest")["ids"], state)[0]}, "end")
"""


def test_another_process_goes_on_with_a_saved_state(tmp_path):
    model, ids = made("mac"), torch.randint(0, 256, (2, 37))
    state, _ = saved(tmp_path / "a.memory", model, ids[:, :21])
    (tmp_path / "config.json").write_text(json.dumps(asdict(model.config)))
    save_file(model.state_dict(), tmp_path / "weights")
    save_file({"ids": ids[:, 21:].contiguous()}, tmp_path / "rest")
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", GO_ON], cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert load_file(tmp_path / "end")["logits"].equal(model(ids[:, 21:], state)[0])
