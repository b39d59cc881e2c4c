import math

import pytest
import torch

from training.short import EASY, MODEL_CONFIG, TARGET, experiment, history, weights
from ttmem.checkpoint import load_model
from ttmem.evals import evaluate
from ttmem.models import ModelConfig, build
from ttmem.tasks import AssociativeRetrieval, make_task
from ttmem.training import Diverged, Experiment, Stage, override, train
from ttmem.training.loop import MODEL, STATE, Trainer
from ttmem.zoo import load


def answering(monkeypatch, *exacts: float) -> None:
    """Let validations find these exact matches, the last one for ever."""
    left = list(exacts)
    monkeypatch.setattr(Trainer, "_ask", lambda trainer: (left.pop(0) if len(left) > 1 else left[0], 0.0))


def spied(monkeypatch) -> list[tuple]:
    """What is drawn from tasks: name, split, seed, index."""
    drawn, sample = [], AssociativeRetrieval.sample

    def spy(task, batch, split="train", seed=0, index=0, queries=None):
        drawn.append((task.name, split, seed, index))
        return sample(task, batch, split, seed, index, queries)

    monkeypatch.setattr(AssociativeRetrieval, "sample", spy)
    return drawn


def test_it_learns_and_the_memory_is_what_answers(tmp_path):
    result = train(
        experiment((), EASY, steps=160, warmup=10, lr=1e-2, eval_every=20, eval_samples=100, target=0.97),
        tmp_path,
        progress=False,
    )
    assert result.stopped == "target" and result.best >= 0.97
    found = load_model(result.checkpoint)
    model = build(ModelConfig(**found.config))
    model.load_state_dict(found.tensors)
    report = evaluate(model, AssociativeRetrieval.from_name(EASY), samples=500)
    assert report.exact_match > 0.93
    assert report.exact_match_reset < 0.65


def test_the_stream_is_drawn_in_order_validation_apart_and_the_test_split_never(monkeypatch, tmp_path):
    drawn = spied(monkeypatch)
    train(experiment(), tmp_path, progress=False)
    steps = [line for line in drawn if line[1] == "train"][1:]  # the first shows the model's shapes
    assert [index for *_, index in steps] == list(range(12))
    assert [name for name, *_ in steps] == [f"{EASY}"] * 6 + [TARGET] * 6
    assert {line[:2] for line in drawn} == {(EASY, "train"), (TARGET, "train"), (TARGET, "validation")}


def test_validation_changes_nothing_of_the_training(tmp_path):
    for name, every in (("often", 1), ("never", 0)):
        train(experiment(eval_every=every), tmp_path / name, progress=False)
    often, never = weights(tmp_path / "often"), weights(tmp_path / "never")
    assert all(often[name].equal(never[name]) for name in often)


def test_the_same_seed_gives_the_same_run_and_another_another(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(experiment(steps=2, seed=seed), tmp_path / name, progress=False)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(a[name].equal(b[name]) for name in a)
    assert not a["model/backbone.head.weight"].equal(c["model/backbone.head.weight"])


@pytest.mark.parametrize(
    "changes, stopped, steps",
    [
        ({}, "steps", 12),
        ({"target": 0.5}, "target", 4),
        ({"target": 0.5, "min_steps": 5}, "target", 8),
        ({"target": 0.5, "settle": True, "decay": 3.0}, "target", 7),
        ({"target": 0.6}, "steps", 12),
        ({"final_steps": 5}, "steps", 11),
        ({"seconds": 1e-9}, "seconds", 2),  # no more of its decay fits
        ({"seconds": 1e9}, "steps", 12),
        ({"eval_every": 1, "patience": 3}, "patience", 8),
    ],
)
def test_a_run_ends_where_it_was_told(monkeypatch, tmp_path, changes, stopped, steps):
    answering(monkeypatch, 0.5)
    result = train(experiment(**changes), tmp_path, progress=False)
    assert (result.stopped, result.steps) == (stopped, steps)


def test_a_spent_stage_can_end_the_run(monkeypatch, tmp_path):
    answering(monkeypatch, 0.5)
    stage = Stage(EASY, threshold=1.0, max_steps=3, on_budget="stop")
    result = train(experiment((stage,)), tmp_path, progress=False)
    assert (result.stopped, result.steps) == ("stage", 3)


def test_settling_decays_to_the_end(monkeypatch, tmp_path):
    answering(monkeypatch, 0.5)
    train(experiment(target=0.5, settle=True, decay=3.0, warmup=1, floor=0.0), tmp_path, progress=False)
    rates = [line["lr"] / 5e-3 for line in history(tmp_path) if "lr" in line]
    assert rates == pytest.approx([1, 1, 1, 1, 1, 2 / 3, 1 / 3])


def test_the_best_weights_are_kept_and_the_later_of_equals(monkeypatch, tmp_path):
    answering(monkeypatch, 0.2, 0.9, 0.9, 0.1)
    result = train(experiment(eval_every=3), tmp_path, progress=False)
    assert (result.best, result.final) == (0.9, 0.1)
    found = load_model(result.checkpoint)
    assert found.meta["step"] == 9
    assert (found.meta["scores"]["exact_match"], found.meta["scores"]["split"]) == (0.9, "validation")
    assert not found.tensors["backbone.head.weight"].equal(weights(tmp_path)["model/backbone.head.weight"])


def test_a_validation_that_is_no_number_is_never_the_best(monkeypatch, tmp_path):
    answering(monkeypatch, math.nan, 0.5, math.nan, 0.4)
    result = train(experiment(eval_every=3), tmp_path, progress=False)
    assert (result.best, load_model(result.checkpoint).meta["step"]) == (0.5, 6)


def test_a_checkpoint_tells_how_it_was_made(tmp_path):
    told = experiment(steps=2)
    found = load_model(train(told, tmp_path, progress=False).checkpoint)
    assert ModelConfig(**found.config) == MODEL_CONFIG
    assert Experiment.from_dict(found.meta["experiment"]) == told
    assert (found.meta["task"], found.meta["seed"], found.meta["step"]) == (TARGET, 0, 2)


def test_promotions_are_in_the_history(tmp_path):
    train(experiment(), tmp_path, progress=False)
    (promotion,) = [line for line in history(tmp_path) if "promotion" in line]
    assert (promotion["promotion"], promotion["step"]) == (EASY, 6)
    assert [line["stage"] for line in history(tmp_path) if "loss" in line] == [0] * 6 + [1] * 6


def test_rehearsal_draws_from_earlier_stages_and_leaves_the_mean_alone(monkeypatch, tmp_path):
    drawn = spied(monkeypatch)
    stages = (Stage(EASY, threshold=0.0, min_steps=2), Stage(TARGET, rehearsal=0.5))
    train(experiment(stages, steps=20, eval_every=0), tmp_path, progress=False)
    names = [name for name, split, *_ in drawn if split == "train"][1:]
    assert names[:2] == [EASY] * 2 and {EASY, TARGET} == set(names[2:])
    running = [line["running"] for line in history(tmp_path) if "loss" in line]
    still = [i for i in range(3, 20) if running[i] == running[i - 1] and running[i]]
    assert all(names[i] == EASY for i in still)


def poisoned(monkeypatch, step: int, poison) -> None:
    learn = Trainer.learn

    def poison_and_learn(trainer, *rest):
        if trainer.state.step == step:
            poison(trainer.model.backbone.head.weight)
        return learn(trainer, *rest)

    monkeypatch.setattr(Trainer, "learn", poison_and_learn)


def spoil_weight(weight):
    weight.data[0, 0] = math.inf


def spoil_gradient(weight):
    weight.register_hook(lambda grad: grad * math.nan)


@pytest.mark.parametrize("poison", [spoil_weight, spoil_gradient])
def test_a_number_that_is_none_stops_the_run_and_the_last_good_state_stays(monkeypatch, tmp_path, poison):
    train(experiment(steps=5), tmp_path, progress=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".safetensors"}
    poisoned(monkeypatch, 6, poison)
    with pytest.raises(Diverged) as caught:
        train(experiment(steps=9), tmp_path, progress=False)
    line = str(caught.value)
    assert line.startswith(f"diverged at step 7 in stage {TARGET}: loss ") and "\n" not in line
    assert f"the last good state is {tmp_path / STATE}" in line
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_run_that_diverges_before_its_first_state_says_so(monkeypatch, tmp_path):
    poisoned(monkeypatch, 0, spoil_weight)
    with pytest.raises(Diverged, match="no state saved yet"):
        train(experiment(), tmp_path, progress=False)
    assert not (tmp_path / MODEL).exists()


def test_a_run_can_start_from_a_checkpoint(tmp_path):
    first = train(experiment(steps=2), tmp_path / "a", progress=False)
    trainer = Trainer(experiment(start_from=str(first.checkpoint), seed=9), tmp_path / "b", progress=False)
    assert all(trainer.model.state_dict()[n].equal(t) for n, t in load_model(first.checkpoint).tensors.items())
    with pytest.raises(FileNotFoundError, match="there is no checkpoint gone"):
        Trainer(experiment(start_from="gone"), tmp_path / "c", progress=False)


def test_a_run_can_start_from_a_checkpoint_of_another_rule_with_the_momentum_its_config_says(tmp_path):
    first = train(experiment(), tmp_path / "a", progress=False)
    said = ["model.rule=titans", "model.momentum=0.2", "model.forget=0.1", "model.steps=3"]
    run = override(experiment(start_from=str(first.checkpoint)), said)
    rates = Trainer(run, tmp_path / "b", progress=False).model.rates
    torch.testing.assert_close(rates(2).momentum["mem"].item(), 0.2)
    torch.testing.assert_close(rates(1).forget["mem"].item(), 0.1)
    lr = load_model(first.checkpoint).tensors["rates.raw.lr_mem"].exp()
    assert lr.item() == rates(0).lr["mem"] == rates(2).lr["mem"]


def test_a_run_can_start_from_a_checkpoint_of_fewer_write_steps_and_writes_alike(tmp_path):
    first = train(override(experiment(steps=2), ["model.steps=2"]), tmp_path / "a", progress=False)
    more = override(experiment(start_from=str(first.checkpoint)), ["model.steps=4"])
    model, before = Trainer(more, tmp_path / "b", progress=False).model, load(first.checkpoint).model
    context = make_task(more.task).sample(3).context
    wanted = before.write(before.start(3), context, steps=4)[0].fast["mem"]
    assert torch.equal(model.write(model.start(3), context)[0].fast["mem"], wanted)
    fewer = override(more, ["model.steps=1"])
    with pytest.raises(ValueError, match="does not fit the model: rates.raw.lr_mem has shape"):
        Trainer(fewer, tmp_path / "c", progress=False)


def test_bf16_trains_in_float32_weights_near_the_float32_loss(tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        train(experiment(steps=2, precision=precision), out, progress=False)
        losses[precision] = [line["loss"] for line in history(out) if "loss" in line]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02) and losses["bf16"] != losses["fp32"]
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / "bf16").values())


@pytest.mark.parametrize("wanted, count", [(1, 1), (2, 2), (9, 2), (None, 2)])
def test_validation_asks_so_many_questions_of_each_context(monkeypatch, tmp_path, wanted, count):
    asked, sample = [], AssociativeRetrieval.sample

    def spy(task, *stream, **more):
        episode = sample(task, *stream, **more)
        asked.extend([episode.query.shape[1]] if "validation" in stream else [])
        return episode

    monkeypatch.setattr(AssociativeRetrieval, "sample", spy)
    result = train(experiment((), "N2-K1V1-V62", steps=2, eval_queries=wanted), tmp_path, progress=False)
    assert set(asked) == {count} and 0 <= result.best <= 1
