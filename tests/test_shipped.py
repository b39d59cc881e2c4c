"""The checkpoints inside the package do what their metadata says."""

import json

import pytest

from guards_code import ROOT
from ttmem.evals import evaluate
from ttmem.training import Experiment
from ttmem.zoo import NAMES, folder, is_shipped, load

SHIPPED = [name for name in NAMES if is_shipped(name)]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_memory_holds_what_it_recorded_and_nothing_when_reset(name):
    loaded = load(name)
    report = evaluate(loaded.model, loaded.make_task(), samples=500, seed=11)
    assert report.exact_match >= loaded.facts["exact_match"] - 0.03
    assert report.exact_match_reset <= 0.02


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_checkpoint_can_be_trained_again(name):
    experiment = Experiment.from_dict(load(name).facts["experiment"])
    assert experiment.name == name and experiment.task == load(name).task


def test_together_they_stay_small():
    assert sum(path.stat().st_size for path in folder().glob("*.safetensors")) <= 8e6


def test_what_is_shipped_stands_in_the_published_results():
    rows = json.loads((ROOT / "experiments" / "results.json").read_text())
    published = {(row["cell"], row["exact_match"]) for row in rows}
    assert {(name, load(name).facts["exact_match"]) for name in SHIPPED} <= published
