"""One process trains in a folder."""

import os

import pytest

from ttmem.training import TrainConfig, train
from ttmem.training.experiment import Experiment
from ttmem.training.lock import alone


def test_a_second_run_in_the_folder_of_one_that_goes_on_is_refused_in_one_line(tmp_path):
    experiment = Experiment("small", "N1-K1V1-V62", train=TrainConfig(steps=1, batch=2, eval_every=0, eval_samples=2))
    with alone(tmp_path), pytest.raises(ValueError, match=f"^{tmp_path} is being trained in by another process: wait"):
        train(experiment, tmp_path, progress=False)
    assert train(experiment, tmp_path, progress=False).steps == 1  # the first has ended


def test_other_processes_of_the_same_run_pass(tmp_path, monkeypatch):
    with alone(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with alone(tmp_path):
            pass


def test_a_folder_that_was_made_for_nothing_goes_and_one_with_files_stays(tmp_path):
    with alone(tmp_path / "run"):
        assert os.path.isdir(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "note").write_text("")
    with alone(tmp_path):
        pass
    assert (tmp_path / "note").exists()
    with alone(tmp_path / "note"):  # a file: whoever makes the folder says so
        pass
