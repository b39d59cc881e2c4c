import json
import os
import struct

import pytest
import torch
from torch import nn

from ttmem.checkpoint import fill, fingerprint, load_model, save_model

CONFIG = {"dim": 3, "memory": "tokens", "window": None}


@pytest.fixture
def tensors():
    return {"b": torch.randn(2, 3), "a": torch.randn(4, dtype=torch.float64), "n": torch.tensor(7)}


@pytest.fixture
def saved(tmp_path, tensors):
    return save_model(tmp_path / "deep" / "model.safetensors", CONFIG, tensors, {"task": "N1", "steps": 3})


def test_what_was_saved_is_loaded_bit_for_bit(saved, tensors):
    found = load_model(saved)
    assert (found.config, found.meta) == (CONFIG, {"task": "N1", "steps": 3})
    assert found.tensors.keys() == tensors.keys()
    assert all(found.tensors[n].equal(t) and found.tensors[n].dtype == t.dtype for n, t in tensors.items())


def test_equal_models_give_equal_bytes_whatever_their_order(saved, tensors, tmp_path):
    again = save_model(
        tmp_path / "b", dict(reversed(CONFIG.items())), dict(reversed(tensors.items())), {"steps": 3, "task": "N1"}
    )
    assert again.read_bytes() == saved.read_bytes()


def test_the_file_is_plain_safetensors_with_one_json_entry(saved):
    content = saved.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    head = json.loads(content[8 : 8 + size])
    assert json.loads(head["__metadata__"]["ttmem-checkpoint"])["version"] == 1
    assert head["b"]["shape"] == [2, 3]


def test_the_fingerprint_depends_on_config_and_weights_and_on_nothing_else(saved, tensors):
    name = load_model(saved).fingerprint
    assert name == fingerprint(CONFIG, tensors) == fingerprint(CONFIG, {n: t.clone() for n, t in tensors.items()})
    assert len(name) == 12 and int(name, 16) >= 0
    assert name != fingerprint(CONFIG | {"dim": 4}, tensors)
    for changed in tensors:
        assert name != fingerprint(CONFIG, tensors | {changed: tensors[changed] + 1})


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(saved, tensors, monkeypatch):
    before = saved.read_bytes()

    def full_disk(*paths):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_model(saved, CONFIG, {"b": torch.zeros(1)})
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def header_of(content: bytes) -> tuple[dict, bytes]:
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def reworded(content: bytes, change) -> bytes:
    head, data = header_of(content)
    change(head)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def said(version) -> str:
    return json.dumps({"version": version, "config": {}, "meta": {}})


@pytest.mark.parametrize(
    "spoil, line",
    [
        (lambda c: b"", "is not a checkpoint: it does not begin like a safetensors file"),
        (lambda c: b"import this, at length", "is not a checkpoint"),
        (lambda c: c[:40], "is truncated: it has 40 bytes of"),
        (lambda c: c[:-5], "is truncated: it has .*fetch it again"),
        (lambda c: c + b"more", "is damaged .*fetch it again"),
        (lambda c: c[:8] + b"{" * (len(c) - 8), "is damaged: its header is not that of a safetensors file"),
        (lambda c: b"\xff" * 8 + c[8:], "is not a checkpoint"),
        (lambda c: reworded(c, lambda h: h.update(b={"shape": [2]})), "is damaged: its header is not that of"),
        (lambda c: reworded(c, lambda h: h.pop("__metadata__")), "no ttmem-checkpoint: it says nothing about itself"),
        (lambda c: reworded(c, lambda h: h.update(__metadata__={"pt": "1"})), "no ttmem-checkpoint: it is pt"),
        (lambda c: reworded(c, lambda h: h["__metadata__"].update({"ttmem-checkpoint": "{"})), "entry is not a JSON"),
        (
            lambda c: reworded(c, lambda h: h["__metadata__"].update({"ttmem-checkpoint": said(2)})),
            "has version 2 .*up to",
        ),
    ],
)
def test_a_spoiled_file_is_told_in_one_line_with_its_name(saved, spoil, line):
    saved.write_bytes(spoil(saved.read_bytes()))
    with pytest.raises(ValueError, match=line) as caught:
        load_model(saved)
    assert str(saved) in str(caught.value) and "\n" not in str(caught.value)


def test_no_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint .*gone"):
        load_model(tmp_path / "gone")
    with pytest.raises(ValueError, match="is a folder, not a checkpoint"):
        load_model(tmp_path)


def test_fill_sets_every_weight():
    source, model = nn.Linear(2, 3), nn.Linear(2, 3)
    fill(model, source.state_dict(), "x")
    assert model.weight.equal(source.weight) and model.bias.equal(source.bias)


@pytest.mark.parametrize(
    "change, line",
    [
        (lambda t: t.pop("bias"), "x does not fit the model: it lacks bias; build"),
        (lambda t: t.update(more=torch.zeros(1)), "x does not fit the model: it has also more; build"),
        (
            lambda t: t.update(bias=torch.zeros(4)),
            r"x does not fit the model: bias has shape \[4\], in the model \[3\]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_and_change_nothing(change, line):
    model = nn.Linear(2, 3)
    before, tensors = {n: t.clone() for n, t in model.state_dict().items()}, dict(nn.Linear(2, 3).state_dict())
    change(tensors)
    with pytest.raises(ValueError, match=line):
        fill(model, tensors, "x")
    assert all(model.state_dict()[n].equal(t) for n, t in before.items())
