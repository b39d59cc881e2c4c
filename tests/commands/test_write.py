"""What `ttmem write` overwrites and what it does not, and what it says about pairs."""

import os

import pytest

from commands.room import CONTEXT, refused, said
from ttmem.cli import main
from ttmem.commands import Write, parse


@pytest.mark.parametrize(
    "out, words, line",
    [
        ("mine.safetensors", "mine.safetensors --text", "--out mine.safetensors is the checkpoint itself"),
        ("link.safetensors", "mine.safetensors --text", "--out link.safetensors is the checkpoint itself"),
        ("shelf/tokens-n2.safetensors", "tokens-n2 --text", "is the checkpoint itself: name another file"),
        ("pairs.txt", "mine.safetensors --pairs pairs.txt", "--out pairs.txt is the file of --pairs itself"),
        ("pipe", "mine.safetensors --text", "pipe is no plain file, and is not overwritten: name another"),
        ("/dev/null", "mine.safetensors --text", "/dev/null is no plain file"),
        (".", "mine.safetensors --text", ". is a folder: name a file in it"),
        ("shelf", "mine.safetensors --text", "shelf is a folder: name a file in it"),
    ],
)
def test_neither_what_a_memory_is_made_from_nor_what_is_no_plain_file_is_overwritten(shelf, capsys, out, words, line):
    os.mkfifo("pipe")
    os.symlink("mine.safetensors", "link.safetensors")
    before = {path: path.read_bytes() for path in shelf.rglob("*") if path.is_file()}
    text = [CONTEXT] if words.endswith("--text") else []
    assert line in refused(capsys, "write", *words.split(), *text, "-o", out)
    assert {path: path.read_bytes() for path in shelf.rglob("*") if path.is_file()} == before
    assert (shelf / "pipe").is_fifo() and (shelf / "link.safetensors").is_symlink()


def test_a_memory_goes_where_a_link_leads_and_the_link_stays(shelf, capsys):
    (shelf / "far").mkdir()
    os.symlink("far/doc.memory", "near.memory")
    for _ in range(2):
        said(capsys, "write", "mine.safetensors", "--text", CONTEXT, "-o", "near.memory")
        assert (shelf / "near.memory").is_symlink() and (shelf / "far" / "doc.memory").is_file()


def test_a_place_that_cannot_be_written_is_told_with_its_own_name(shelf, capsys):
    (shelf / "far").mkdir()
    (shelf / "far").chmod(0o500)
    for out in ("/proc/x.memory", "pairs.txt/x.memory"):
        line = refused(capsys, "write", "mine.safetensors", "--text", CONTEXT, "-o", out)
        assert f"{out} cannot be written: " in line and "/.x" not in line


@pytest.mark.parametrize(
    "content, line",
    [
        ("ab12 x9Qz\n\nabc x9Qz\n", "pairs.txt, line 3: key must have 4 characters"),
        ("ab12 x9Qz\nab#2 x9Qz\n", "pairs.txt, line 2: "),
        ("ab12 x9Qz\none two three\n", "pairs.txt, line 2: write 'key value'"),
        ("ab12 x9Qz\nab12 y8Rw\n", "pairs.txt, key 'ab12' comes twice"),
        ("", "pairs.txt, no pairs"),
    ],
)
def test_a_wrong_pair_is_told_with_its_file_and_line(shelf, capsys, content, line):
    (shelf / "pairs.txt").write_text(content)
    assert line in refused(capsys, "write", "mine.safetensors", "--pairs", "pairs.txt")


def test_a_byte_order_mark_is_no_part_of_the_first_key(shelf, capsys):
    (shelf / "pairs.txt").write_bytes(b"\xef\xbb\xbfab12 x9Qz\n")
    assert said(capsys, "write", "mine.safetensors", "--pairs", "pairs.txt")["keys"] == ["ab12"]


def test_a_folder_of_pairs_is_called_a_folder(shelf, capsys):
    assert "--pairs . is a folder" in refused(capsys, "write", "mine.safetensors", "--pairs", ".")


def test_a_task_of_one_pair_takes_1_pair(shelf, capsys):
    line = refused(capsys, "write", "mine.safetensors", "--pairs", "pairs.txt", "--task", "N1-K4V4-V62")
    assert "takes 1 pair, got 2" in line


def test_the_context_that_the_help_shows_can_be_written(shelf, capsys):
    with pytest.raises(SystemExit):
        parse(["write", "--help"])
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    name, context = told.split("each ended by |; ")[1].split("'")[:2]
    assert main(["write", name.strip(": "), "--text", context]) == 0
    assert Write.__doc__


def test_an_empty_task_is_no_task(shelf, capsys):
    assert "task name must look like" in refused(capsys, "write", "mine.safetensors", "--text", CONTEXT, "--task", "")
