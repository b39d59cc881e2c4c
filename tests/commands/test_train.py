"""`ttmem train`: files that fail, folders that hold a run, checkpoints to start from."""

import pytest

from commands.room import EXPERIMENT, refused, said
from ttmem import checkpoint as files
from ttmem.cli import main
from ttmem.commands.train import Train
from untrained import checkpoint


@pytest.fixture
def tiny(shelf):
    (shelf / "tiny.py").write_text(EXPERIMENT)
    return shelf


@pytest.mark.parametrize(
    "text, line",
    [
        ("import nonexistent_zzz", "bad.py, line 1: ModuleNotFoundError: No module named 'nonexistent_zzz'\n"),
        ("\n\n1 / 0", "bad.py, line 3: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)", "bad.py, line 2: SystemExit: 3"),
        ("x = (", "bad.py: SyntaxError: '(' was never closed (bad.py, line 1)"),
        (EXPERIMENT.replace("dim=16", "dims=16"), "bad.py, line 4: TypeError: "),
    ],
)
def test_an_experiment_file_that_fails_is_told_with_its_line_and_code_2(shelf, capsys, text, line):
    (shelf / "bad.py").write_text(text)
    assert line in refused(capsys, "train", "bad.py")


def test_an_empty_folder_name_is_not_the_folder_one_stands_in(tiny, capsys):
    before = set(tiny.iterdir())
    assert "--out must name a folder, got ''" in refused(capsys, "train", "tiny.py", "--out", "")
    assert set(tiny.iterdir()) == before


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_finished_run_stays_until_the_one_that_replaces_it_saves(tiny, capsys, monkeypatch):
    said(capsys, "train", "tiny.py", "--out", "v")
    before = contents(tiny / "v")
    assert {"model.safetensors", "state.safetensors", "history.jsonl"} <= before.keys()
    again = ["train", "tiny.py", "--out", "v", "--no-resume", "--override", "train.log_every=1", "train.lr=1e-4"]
    with monkeypatch.context() as patched:
        patched.setattr("ttmem.training.loop.Trainer.learn", spoiled(2))
        assert main(again) == 1
    assert "the run that was in v before is untouched" in capsys.readouterr().err
    assert contents(tiny / "v") == before
    said(capsys, *again)
    after = contents(tiny / "v")
    assert after.keys() == before.keys() and all(after[name] != before[name] for name in before)
    assert after["history.jsonl"].count(b'"lr"') == 3


def spoiled(step: int):
    """Training in which the loss of one step is no number."""
    from ttmem.training.loop import Trainer

    learn = Trainer.learn

    def learned(self, episode, interrupted):
        facts = learn(self, episode, interrupted)
        if self.state.step + 1 == step:
            self.check(facts | {"loss": float("nan")})
        return facts

    return learned


def test_the_help_says_that_a_finished_run_is_replaced(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "finished or not, is replaced once the new one saves" in told and Train.__doc__


def test_a_run_starts_from_a_shipped_name_or_from_its_path_in_the_repository(tiny, capsys, monkeypatch):
    monkeypatch.setattr(files, "shelf", lambda: tiny / "shelf")
    ours = tiny / "shelf" / "tokens-n2.safetensors"
    for where in ("tokens-n2", "tokens-n2.safetensors", "src/ttmem/checkpoints/tokens-n2.safetensors"):
        assert files.start_file(where) == ours
    own = checkpoint(tiny / "tokens-n2.safetensors")
    assert files.start_file("tokens-n2.safetensors").resolve() == own
    for where in ("elsewhere/tokens-n2.safetensors", "tokens-n9"):
        line = refused(capsys, "train", "tiny.py", "--override", f"train.start_from={where}")
        assert f"train.start_from: there is no checkpoint {where}, and none of that name is shipped" in line


def test_a_spoiled_history_neither_stops_a_run_nor_loses_its_whole_lines(tiny, capsys):
    said(capsys, "train", "tiny.py", "--out", "v", "--override", "train.log_every=1")
    path = tiny / "v" / "history.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    odd = b'{"step": 1, "note": "\xff"}\n'
    path.write_bytes(b"".join([*lines, odd, b"\xfe half a li"]))
    words = ("train", "tiny.py", "--out", "v", "--override", "train.log_every=1", "train.steps=4")
    said(capsys, *words)
    assert path.read_bytes().startswith(b"".join([*lines, odd]))


def test_another_run_and_a_damaged_state_say_how_to_start_over(tiny, capsys):
    said(capsys, "train", "tiny.py", "--out", "v")
    assert "--no-resume" in refused(capsys, "train", "tiny.py", "--out", "v", "--override", "train.lr=1e-4")
    state = tiny / "v" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-5])
    assert "--no-resume" in refused(capsys, "train", "tiny.py", "--out", "v")
