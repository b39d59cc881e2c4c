"""What every command does with words it cannot parse, and with a terminal that is gone or obeys what it reads."""

import os
import subprocess
import sys

import pytest

from commands.room import refused
from ttmem.cli import failed, main
from ttmem.commands.base import plain


@pytest.mark.parametrize(
    "words, line",
    [
        ("help", "unrecognized options: help; available subcommands: demo, train, models, eval"),
        ("write", "missing from ttmem write: CHECKPOINT; see ttmem write --help"),
        ("ask", "missing from ttmem ask: CHECKPOINT, MEMORY; see ttmem ask --help"),
        ("eval tokens-n2 --steps abc", "--steps must be a whole number, got 'abc'; see ttmem eval --help"),
        ("eval tokens-n2 --samples 1e3", "--samples must be a whole number, got '1e3'"),
        ("demo --seconds soon", "--seconds must be a number, got 'soon'"),
        ("eval tokens-n2 --stepss 3", "unrecognized options: --stepss, 3; did you mean --steps?; see ttmem eval"),
        ("eval tokens-n2 --task", "missing value for argument '--task'"),
        ("models --threads 100000000000000000000", "--threads must be <= 1024, got 1000"),
    ],
)
def test_words_that_do_not_parse_are_one_line_and_code_2(capsys, words, line):
    assert line in refused(capsys, *words.split())


def script(words: str, **changes) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = f"{sys.executable} -m ttmem.cli {words}"
    return subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, **changes)


def test_a_reader_that_went_away_and_a_closed_stdout_are_no_errors_to_tell():
    assert script("--version | (exec <&-; sleep 1)").stderr == ""
    closed = script("--version >&-")
    assert (closed.returncode, closed.stderr) == (0, "")


def test_a_broken_pipe_is_silent_and_code_1(monkeypatch, capfd):
    from ttmem import zoo

    monkeypatch.setattr(zoo, "listing", lambda: (_ for _ in ()).throw(BrokenPipeError(32, "Broken pipe")))
    monkeypatch.setattr(os, "dup2", lambda *files: None)
    assert main(["models"]) == 1
    assert capfd.readouterr().err == ""


def test_a_terminal_is_not_given_control_characters_that_a_file_holds(capsys):
    assert failed("tokens\x1b[2J\nand größer", 2) == 2
    assert capsys.readouterr().err == "ttmem: tokens\\x1b[2J and größer\n"
    assert plain("a\x07\x9b") == "a\\x07\\x9b"


def test_a_missing_library_that_no_extra_brings_is_not_promised(monkeypatch, capsys):
    from ttmem import zoo

    for name, mend in (("nonexistent_zzz", False), ("transformers.models", True)):
        error = ModuleNotFoundError(f"No module named {name!r}", name=name)
        monkeypatch.setattr(zoo, "listing", lambda error=error: (_ for _ in ()).throw(error))
        assert main(["models"]) == 1
        assert ("pip install" in capsys.readouterr().err) == mend


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_parsers_box_is_read_in_either_alphabet(encoding, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = script("eval tokens-n2 --stepss 3")
    told = "ttmem: unrecognized options: --stepss, 3; did you mean --steps?; see ttmem eval --help\n"
    assert (done.returncode, done.stderr) == (2, told)
