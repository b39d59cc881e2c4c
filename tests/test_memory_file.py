import dataclasses
import hashlib
import json
import struct
from datetime import datetime, timedelta

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ttmem.core import State
from ttmem.memory_file import (
    FORMAT,
    About,
    MemoryMismatch,
    Writer,
    describe,
    load_memory,
    read_about,
    save_memory,
    write_steps,
)
from ttmem.models import LayeredConfig, ModelConfig, build
from ttmem.tasks import AssociativeRetrieval

TASK = AssociativeRetrieval.from_name("N2-K4V4-S2_16-32")
DATE = "2026-11-20T12:00:00+00:00"
TEXTS = ["!ab:cd!|", "q!ef:gh!|"]


def writer(**changed) -> Writer:
    return Writer(**{"name": "tokens-n2", "fingerprint": "0f3a", "kind": "tokens", "shapes": {"mem": [3, 4]}} | changed)


def saved(path, rows: int = 2, date: str | None = DATE, **changed) -> tuple[State, About]:
    torch.manual_seed(0)
    state = State({"mem": torch.randn(rows, 3, 4)}, (), 1)
    about = describe(
        writer(**changed), TASK.name, TEXTS[:rows], torch.tensor([[4.0, 5.0], [1.5, 0.25]])[:, :rows], date
    )
    save_memory(path, state, about)
    return state, about


@pytest.fixture
def path(tmp_path):
    return tmp_path / "doc.memory"


def test_the_bytes_are_those_of_the_specification(path):
    state, about = saved(path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    text = content[8 : 8 + length].decode("utf-8")
    header = json.loads(text)
    assert length % 8 == 0 and text.startswith("{") and list(header) == ["__metadata__", "mem"]
    assert text.rstrip(" ") == json.dumps(header, separators=(",", ":"))
    assert header["mem"] == {"dtype": "F32", "shape": [2, 3, 4], "data_offsets": [0, 96]}
    numbers = struct.unpack("<24f", content[8 + length :])
    assert list(numbers) == state.fast["mem"].flatten().tolist()
    assert list(header["__metadata__"]) == ["ttmem-memory"]
    said = header["__metadata__"]["ttmem-memory"]
    assert said == json.dumps(json.loads(said), sort_keys=True, separators=(",", ":"))
    assert json.loads(said) == {
        "format": "ttmem-memory",
        "version": 1,
        "writer": {"name": "tokens-n2", "fingerprint": "0f3a", "kind": "tokens", "shapes": {"mem": [3, 4]}},
        "task": "N2-K4V4-S2_16-32",
        "steps": 2,
        "writes": 1,
        "losses": [[4.0, 1.5], [5.0, 0.25]],
        "digests": [hashlib.sha256(t.encode()).hexdigest() for t in TEXTS],
        "lengths": [8, 9],
        "created": DATE,
        "ttmem": "0.1.0",
    }


def test_a_file_built_by_hand_from_the_specification_is_read_and_is_the_one_we_write(path, tmp_path):
    state, about = saved(path)
    metadata = {FORMAT: json.dumps(about.as_dict(), sort_keys=True, separators=(",", ":"))}
    entry = {"dtype": "F32", "shape": [2, 3, 4], "data_offsets": [0, 96]}
    header = json.dumps({"__metadata__": metadata, "mem": entry}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    by_hand = struct.pack("<Q", len(header)) + header + struct.pack("<24f", *state.fast["mem"].flatten().tolist())
    assert by_hand == path.read_bytes()
    (tmp_path / "hand.memory").write_bytes(by_hand)
    read, said = load_memory(tmp_path / "hand.memory", writer())
    assert torch.equal(read.fast["mem"], state.fast["mem"]) and said == about


def test_equal_memories_with_an_equal_date_are_equal_bytes(path, tmp_path):
    saved(path)
    saved(tmp_path / "again.memory")
    assert path.read_bytes() == (tmp_path / "again.memory").read_bytes()


def test_the_date_is_now_in_utc_where_none_is_given(path):
    _, about = saved(path, date=None)
    created = datetime.fromisoformat(about.created)
    assert created.utcoffset() == timedelta(0)
    assert abs(datetime.now(created.tzinfo) - created) < timedelta(minutes=1)


@pytest.mark.parametrize("kind", ["tokens", "neural", "mlp", "forward"])
def test_a_memory_answers_the_same_after_a_stay_on_disk(path, kind):
    model = build(ModelConfig(memory=kind, dim=16, layers=1), seed=0).double()
    episode = TASK.sample(3)
    with torch.no_grad():
        state, log = model.write(model.start(3), episode.context)
    who = Writer.of(model, "mine", "0f3a")
    texts = [TASK.decode(row) for row in episode.context]
    about = describe(who, TASK.name, texts, log.loss)
    save_memory(path, state, about)
    read, _ = load_memory(path, who)
    assert read.step == state.step and read.fast.keys() == state.fast.keys()
    before, after = (model.read(s, episode.query, episode.target) for s in (state, read))
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    "config, steps, losses",
    [
        (ModelConfig(memory="tokens", dim=16, layers=1), 2, 2),
        (ModelConfig(memory="rmt4", dim=16, layers=1), 2, 4),
        (LayeredConfig("prmt4", dim=16, heads=2, layers=1), 2, 2),
        (LayeredConfig("armt", dim=16, heads=2, layers=1), 0, 2),
        (ModelConfig(memory="forward", dim=16, layers=1), 0, 0),
    ],
)
def test_steps_are_those_on_each_segment_whatever_is_logged(path, config, steps, losses):
    model = build(config, seed=0)
    state, log = model.write(model.start(2), TASK.sample(2).context)
    found = write_steps(model)
    save_memory(path, state, describe(Writer.of(model, "a", "0f3a"), TASK.name, TEXTS, log.loss, steps=found))
    about = read_about(path)
    assert (about.steps, [len(each) for each in about.losses]) == (steps, [losses] * 2)
    assert write_steps(model, 5) == (5 if steps else 0)


def test_the_text_is_not_in_the_file(path):
    saved(path)
    assert not any(text.encode() in path.read_bytes() for text in TEXTS)


def test_safetensors_itself_opens_the_file(path):
    state, _ = saved(path)
    with safe_open(path, "pt") as file:
        assert torch.equal(file.get_tensor("mem"), state.fast["mem"]) and list(file.metadata()) == [FORMAT]


@pytest.mark.parametrize(
    "changed, why",
    [
        ({"fingerprint": "beef"}, "its weights differ"),
        ({"fingerprint": "beef", "kind": "neural"}, "of kind tokens, the model's of kind neural"),
        ({"fingerprint": "beef", "shapes": {"mem": [3, 8]}}, r"shapes \{'mem': \[3, 4\]\}, the model's are"),
        ({"shapes": {"mem": [9, 4]}}, r"\{'mem': \[9, 4\]\}"),
    ],
)
def test_a_foreign_memory_is_refused_with_model_memory_and_reason(path, changed, why):
    saved(path)
    with pytest.raises(MemoryMismatch, match=why) as caught:
        load_memory(path, writer(name="other", **changed))
    said = str(caught.value)
    assert all(part in said for part in (str(path), "tokens-n2", "0f3a", "other")) and "\n" not in said


def test_without_a_writer_any_memory_can_be_looked_at(path):
    _, about = saved(path)
    assert load_memory(path)[1] == read_about(path) == about


@pytest.mark.parametrize("kept", [0, 7, 8, 9, 100, -97, -1])
def test_a_truncated_file_says_so_in_one_line(path, kept):
    saved(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="is truncated|is not a memory file") as caught:
        load_memory(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert kept in (0, 7) or "truncated" in str(caught.value)


def test_bytes_behind_the_end_are_damage(path):
    saved(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="is damaged"):
        load_memory(path)


@pytest.mark.parametrize(
    "content",
    [
        b"hello, I am a text of some length",
        b"\x10" + b"\0" * 7 + b'{"mem": 3}      ',
        b"\x08" + b"\0" * 7 + b"{}{}{}{}",
    ],
)
def test_other_files_are_refused_in_one_line(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a memory file|is damaged") as caught:
        load_memory(path)
    assert "\n" not in str(caught.value)


def test_safetensors_without_a_memory_is_told_apart(path):
    save_file({"w": torch.zeros(2)}, path, {"some": "checkpoint"})
    with pytest.raises(ValueError, match="no ttmem-memory: is it a checkpoint"):
        load_memory(path)


def rewritten(path, **changed) -> None:
    state, about = saved(path)
    said = {name: value for name, value in (about.as_dict() | changed).items() if value is not None}
    save_file(dict(state.fast), path, {FORMAT: json.dumps(said)})


def test_a_newer_version_is_named_even_with_fields_we_do_not_know(path):
    rewritten(path, version=2, colour="blue")
    with pytest.raises(ValueError, match="version 2 of ttmem-memory, this ttmem reads up to 1"):
        load_memory(path)


@pytest.mark.parametrize("changed", [{"writer": 3}, {"writer": {}}, {"task": None}, {"colour": "blue"}])
def test_a_damaged_description_is_named(path, changed):
    rewritten(path, **changed)
    with pytest.raises(ValueError, match="damaged: its description"):
        read_about(path)


def test_tensors_that_are_not_as_described_are_damage(path):
    for changed in (
        {"writer": dataclasses.asdict(writer(shapes={"mem": [4, 3]}))},
        {"digests": ["0"], "lengths": [8], "losses": [[4.0]]},
    ):
        rewritten(path, **changed)
        with pytest.raises(ValueError, match="its tensors are"):
            load_memory(path)


def test_no_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no memory file {tmp_path}/gone.memory"):
        load_memory(tmp_path / "gone.memory")
    with pytest.raises(ValueError, match=f"{tmp_path} is a folder, not a memory file"):
        load_memory(tmp_path)


@pytest.mark.parametrize("changed", [{"format": "x"}, {"version": "one"}, {"version": None}])
def test_another_format_or_no_version_is_refused(path, changed):
    rewritten(path, **changed)
    with pytest.raises(ValueError, match="of x, this ttmem reads|is damaged: its description"):
        read_about(path)


def test_what_cannot_be_kept_is_not_written(path):
    state, about = saved(path)
    before = path.read_bytes()
    wrong = {
        "middle of a write": state._replace(velocity=(state.fast,)),
        "diverged": state._replace(fast={"mem": state.fast["mem"] / 0}),
        r"has \{'mem': \[2, 2, 4\]\}, the description 2 memories": state._replace(
            fast={"mem": state.fast["mem"][:, :2]}
        ),
        r"has \{'mem': \[1, 3, 4\]\}, .* 2 memories": state._replace(fast={"mem": state.fast["mem"][:1]}),
        r"has \{'mem': \[2, 2, 3, 4\]\}": state._replace(fast={"mem": state.fast["mem"].repeat(2, 1, 1)}),
    }
    for words, bad in wrong.items():
        with pytest.raises(ValueError, match=words):
            save_memory(path, bad, about)
    assert path.read_bytes() == before


def test_a_context_kept_as_it_is_has_no_memory_file(path):
    model = build(ModelConfig(memory="full", dim=16, layers=1), seed=0)
    state, log = model.write(model.start(1), TASK.sample(1).context)
    with pytest.raises(ValueError, match="FullContext has no memory file: what it keeps grows with the text"):
        save_memory(path, state, describe(Writer.of(model, "full", "0f3a"), TASK.name, TEXTS[:1], log.loss))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    state, about = saved(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("ttmem.checkpoint.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        save_memory(path, state, about)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
