"""The files of experiments/, and what their studies share."""

import importlib
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from guards_code import ROOT
from ttmem.evals import plots
from ttmem.training import Experiment, TrainConfig

SHORT = TrainConfig(batch=2, eval_every=0, eval_samples=2)

IMPORTS = """
import importlib.util, pathlib, sys
sys.path.insert(0, "experiments")
for path in sorted(pathlib.Path("experiments").glob("*.py")):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    print(path.stem)
"""
BARE = {name: value for name, value in os.environ.items() if name != "TTMEM_DATA"}


def run(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=BARE, capture_output=True, text=True, check=False)


def test_no_experiment_needs_data_to_be_read():
    done = run("-c", IMPORTS)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 30


@pytest.mark.parametrize(
    "words", ["titans_needle.py --study word", "titans_needle.py --study number", "titans_text.py"]
)
def test_a_study_without_its_data_says_so_in_one_line(words):
    file, *rest = words.split()
    done = run(f"experiments/{file}", *rest, "--table")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "is looked for in the data folder: give data=FOLDER, or set TTMEM_DATA to it" in done.stderr


def test_a_variant_that_is_none_is_refused_by_those_there_are():
    done = run("experiments/levers.py", "--variants", "stem", "stern")
    assert done.returncode == 2 and "--variants must be of the recipe, " in done.stderr
    assert done.stderr.endswith("got 'stern'\n") and "Traceback" not in done.stderr


@pytest.fixture
def study(monkeypatch):
    """The module that all studies share."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("study")


def test_a_run_of_another_number_of_steps_is_not_gone_on_with(study, tmp_path):
    few, more = (Experiment("small", "N1-K1V1-V62", train=replace(SHORT, steps=steps)) for steps in (1, 2))
    assert study.trained(few, tmp_path).steps == study.trained(few, tmp_path).steps == 1
    with pytest.raises(SystemExit, match=f"^{tmp_path} holds a run of 1 steps, not of 2: move it away, or give --runs"):
        study.trained(more, tmp_path)


def test_a_row_of_another_recipe_stops_the_run_before_it_trains(study, tmp_path):
    path = tmp_path / "row.json"
    assert not study.done(path, "abc")
    study.keep(path, {"recipe": "abc"})
    assert study.done(path, "abc")
    with pytest.raises(SystemExit, match=f"^{tmp_path} holds a run of another recipe: move it away, or give --runs"):
        study.done(path, "def")


def test_several_seeds_are_drawn_each_and_one_with_its_interval(study):
    rows = [{"variant": name, "right": right} for name, right in (("a", 2), ("a", 8), ("b", 5))]
    axes = plots.pyplot().subplots()[1]
    study.accuracy_lines(axes, [1, 2], rows, lambda row: [(row["right"], 10), (10, 10)])
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.5, 1], [0.2, 1], [0.8, 1], [0.5, 1]]
    assert len(axes.collections) == 1  # of b
