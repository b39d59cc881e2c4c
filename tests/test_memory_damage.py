"""Memory files that are not as documented: no question is answered from one, and `inspect` says the same as `ask`."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from commands.room import CONTEXT
from ttmem import zoo
from ttmem.checkpoint import load_model
from ttmem.cli import main
from ttmem.memory_file import FORMAT, MemoryMismatch, Writer, check_writer, describe, load_memory, save_memory
from untrained import checkpoint


@pytest.fixture
def room(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "mine.safetensors")
    assert main(["write", "mine.safetensors", "--text", CONTEXT]) == 0
    capsys.readouterr()
    return tmp_path


def refused_alike(capsys, *hints: str) -> None:
    """`ask` and `inspect` both refuse the file, in one line with code 2 that names the damage."""
    for words in (["ask", "mine.safetensors", "doc.memory", "7gjy"], ["inspect", "doc.memory"]):
        assert main(words) == 2, words
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("ttmem: doc.memory "), err
        assert all(hint in err for hint in hints), err


def rewritten(**changed) -> None:
    """The same file with fields of its description changed."""
    state, about = load_memory("doc.memory")
    save_file(dict(state.fast), "doc.memory", {FORMAT: json.dumps(about.as_dict() | changed)})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_memory_that_holds_no_numbers_is_damaged(room, capsys, bad):
    state, about = load_memory("doc.memory")
    state.fast["mem"][0, 1, 2] = bad
    save_file(dict(state.fast), "doc.memory", {FORMAT: json.dumps(about.as_dict())})
    refused_alike(capsys, "is damaged: mem, in torch.float32, holds what no memory does")


def test_a_memory_of_whole_numbers_is_damaged(room, capsys):
    head, data = parts()
    head["mem"]["dtype"] = "I32"
    put(head, data)
    refused_alike(capsys, "is damaged: mem, in torch.int32, holds what no memory does")


FIELDS = [
    ("losses", 3),
    ("losses", [["a", 1]]),
    ("losses", [[float("nan"), 1.0]]),
    ("losses", [[1.0], [1.0]]),
    ("steps", "two"),
    ("steps", -1),
    ("steps", True),
    ("writes", 1.5),
    ("lengths", ["thirty"]),
    ("lengths", [30, 30]),
    ("created", 5),
    ("created", "some day"),
    ("digests", []),
    ("digests", 5),
    ("digests", [5]),
    ("task", 5),
    ("ttmem", None),
]


@pytest.mark.parametrize("field, value", FIELDS)
def test_a_field_of_another_kind_than_documented_is_damage_and_is_named(room, capsys, field, value):
    rewritten(**{field: value})
    refused_alike(capsys, f"is damaged: its description has no sound {field}, got ")


@pytest.mark.parametrize("field", ["format", "version", "steps", "digests"])
def test_a_field_that_is_missing_is_named(room, capsys, field):
    state, about = load_memory("doc.memory")
    said = about.as_dict()
    del said[field]
    save_file(dict(state.fast), "doc.memory", {FORMAT: json.dumps(said)})
    refused_alike(capsys, "is damaged: its description lacks", field)


def test_a_field_beyond_what_is_known_is_named(room, capsys):
    rewritten(colour="blue")
    refused_alike(capsys, "is damaged: its description lacks, or has beyond what is known, colour")


@pytest.mark.parametrize("field, value", [("name", 3), ("shapes", {"mem": ["a"]}), ("shapes", 5), ("kind", None)])
def test_a_writer_of_another_kind_than_documented_is_damage(room, capsys, field, value):
    _, about = load_memory("doc.memory")
    rewritten(writer=about.as_dict()["writer"] | {field: value})
    refused_alike(capsys, "is damaged: its description has no sound writer")


@pytest.mark.parametrize("version", [0, -1, 1.9, float("inf"), float("nan"), "1", True, None])
def test_a_version_that_is_none_is_damage(room, capsys, version):
    rewritten(version=version)
    refused_alike(capsys, "is damaged: its description is not JSON, or has no version")


def test_a_task_that_has_no_keys_is_told_in_one_line(room, capsys):
    rewritten(task="needle:passkey:256")
    assert main(["ask", "mine.safetensors", "doc.memory", "7gjy"]) == 2
    assert "needle:passkey:256 has no pairs" in capsys.readouterr().err


def test_rows_are_as_many_as_digests(room, capsys):
    rewritten(digests=["0", "1"], lengths=[1, 2], losses=[[1.0], [1.0]])
    for row in ("0", "1"):
        assert main(["ask", "mine.safetensors", "doc.memory", "7gjy", "--row", row]) == 2
        assert "is damaged: its tensors are" in capsys.readouterr().err


def parts(path: str = "doc.memory") -> tuple[dict, bytes]:
    with open(path, "rb") as file:
        content = file.read()
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def put(head: dict | str, data: bytes, path: str = "doc.memory") -> None:
    text = (head if isinstance(head, str) else json.dumps(head)).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def with_entry(**changed) -> None:
    head, data = parts()
    put(head | {"mem": head["mem"] | changed}, data)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: put(parts()[0], parts()[1] + b"more"),
        lambda: with_entry(dtype="F33"),
        lambda: with_entry(data_offsets=[-8, 248]),
        lambda: with_entry(data_offsets=[0, float("inf")]),
        lambda: with_entry(shape=[0, 4, 16]),
        lambda: with_entry(shape=[1, 4, 17]),
        lambda: put("{" + '"a":{' * 100_000, b""),
        lambda: put('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", b""),
    ],
)
def test_inspect_refuses_whatever_ask_refuses_as_damaged(room, capsys, spoil):
    spoil()
    refused_alike(capsys, "is damaged")


@pytest.mark.parametrize("version", ["Infinity", "0", "1.9", "[" * 100_000])
def test_a_checkpoint_whose_version_is_none_is_damaged(room, version):
    head, data = parts("mine.safetensors")
    said = head["__metadata__"]["ttmem-checkpoint"].replace('"version":1', f'"version":{version}')
    put(head | {"__metadata__": {"ttmem-checkpoint": said}}, data, "mine.safetensors")
    with pytest.raises(ValueError, match="mine.safetensors is damaged: its ttmem-checkpoint entry") as caught:
        load_model("mine.safetensors")
    assert "\n" not in str(caught.value)


def test_inspect_does_not_obey_what_a_file_says(room, capsys):
    _, about = load_memory("doc.memory")
    rewritten(writer=about.as_dict()["writer"] | {"name": "\x1b[2J\x07"})
    assert main(["inspect", "doc.memory"]) == 0
    out = capsys.readouterr().out
    assert "\\x1b[2J\\x07" in out and "\x1b" not in out


def test_what_could_not_be_read_again_is_not_saved(room):
    loaded = zoo.load("mine.safetensors")
    about = describe(loaded.writer, "N1-K1V1-V62", ["a"], torch.ones(1, 1), created="some day")
    with pytest.raises(ValueError, match="the description has no sound created, got 'some day'"):
        save_memory("new.memory", loaded.model.start(1), about)


def test_two_models_of_one_name_are_told_apart_by_their_fingerprints():
    one, other = (Writer("tokens-n2", fingerprint, "tokens", {}) for fingerprint in ("0f3a", "beef"))
    with pytest.raises(MemoryMismatch, match="ask the tokens-n2 that is 0f3a, or write .* with the one that is beef"):
        check_writer("doc.memory", one, other)
