"""The checkpoints inside the package do what their metadata says."""

import json

import pytest
import torch

from guards_code import ROOT
from ttmem.evals import evaluate
from ttmem.training import Experiment
from ttmem.zoo import NAMES, folder, is_shipped, load

SHIPPED = [name for name in NAMES if is_shipped(name)]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_memory_holds_what_it_recorded_and_nothing_when_reset(name):
    loaded = load(name)
    samples, queries = {"rmt4-long": (200, 1), "tokens-n96": (25, 96)}.get(name, (500, 1))
    report = evaluate(loaded.model, loaded.make_task(), samples=samples, seed=11, queries=queries)
    assert report.exact_match >= loaded.facts["exact_match"] - 0.03
    assert report.exact_match_reset <= 0.02


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_checkpoint_can_be_trained_again(name):
    experiment = Experiment.from_dict(load(name).facts["experiment"])
    assert experiment.name == name and experiment.task == load(name).task


def test_together_they_stay_small():
    sizes = {path.stem: path.stat().st_size for path in folder().glob("*.safetensors")}
    assert sum(sizes.values()) <= 11e6
    assert sum(size for name, size in sizes.items() if name != "tokens-n96") <= 8e6


def test_what_is_shipped_stands_in_the_published_results():
    rows = json.loads((ROOT / "experiments" / "results.json").read_text())
    published = {(row["cell"], row["exact_match"]) for row in rows}
    pushed = json.loads((ROOT / "experiments" / "push.json").read_text())
    published |= {(row["run"], score["exact_match"]) for row in pushed for score in row["scores"]}
    assert {(name, load(name).facts["exact_match"]) for name in SHIPPED} <= published


@pytest.mark.parametrize("name, most", [("rmt4-n2", 0.8), ("rmt4-n4", 0.5)])
@torch.no_grad()
def test_rmt4_weighs_filler_less_than_values(name, most):
    loaded = load(name)
    task, model = loaded.make_task(), loaded.model
    context = task.sample(200, "test", seed=1).context
    weights, (colon, *marks) = model.weigh(model.backbone.embed(context)), task.encode(":!|")
    place = (context == colon).nonzero()
    value, pair = torch.zeros_like(context, dtype=torch.bool), torch.zeros_like(context, dtype=torch.bool)
    for shift in range(-task.key, task.value + 1):
        (value if shift > 0 else pair)[place[:, 0], place[:, 1] + shift] = True
    filler = ~(value | pair | torch.isin(context, torch.tensor([model.pad, *marks])))
    assert weights[filler].mean() < most * weights[value].mean()
