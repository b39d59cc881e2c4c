import json
import sys
from dataclasses import replace

import pytest

from training.short import EASY, TARGET, experiment
from ttmem.evals.fit import check_fit
from ttmem.models import LayeredConfig, ModelConfig, build, preset
from ttmem.tasks import make_task
from ttmem.training import Experiment, Stage, TrainConfig, load_experiment, override
from ttmem.training.experiment import differences


def test_the_target_follows_the_stages_once():
    def tasks(*stages):
        return [stage.task for stage in experiment(stages).curriculum.stages]

    assert tasks() == [TARGET]
    assert tasks(Stage(EASY)) == [EASY, TARGET]
    assert tasks(Stage(EASY), Stage(TARGET)) == [EASY, TARGET]


def test_a_last_stage_that_is_the_target_keeps_its_settings():
    assert experiment((Stage(TARGET, max_steps=7),)).curriculum.stages[-1].max_steps == 7


def test_a_model_without_the_ids_of_the_task_is_refused():
    with pytest.raises(ValueError, match=f"model.vocab must be the 70 ids of {TARGET}, got 7"):
        Experiment("x", TARGET, ModelConfig(vocab=7))


@pytest.mark.parametrize(
    "text, read, value",
    [
        ("train.lr=1e-3", lambda e: e.train.lr, 1e-3),
        ("train.steps=7", lambda e: e.train.steps, 7),
        ("train.settle=false", lambda e: e.train.settle, False),
        ("train.clip=none", lambda e: e.train.clip, None),
        ("train.clip=2", lambda e: e.train.clip, 2.0),
        ("train.start_from=a=b.safetensors", lambda e: e.train.start_from, "a=b.safetensors"),
        ("model.memory=neural", lambda e: e.model.memory, "neural"),
        ("model.window=8", lambda e: e.model.window, 8),
        ("stages.0.threshold=0.5", lambda e: e.stages[0].threshold, 0.5),
        ("stages=", lambda e: e.stages, ()),
        ("task=N1-K4V4-S1_16-32", lambda e: e.task, "N1-K4V4-S1_16-32"),
    ],
)
def test_an_override_sets_one_field_and_nothing_else(text, read, value):
    before = experiment()
    after = override(before, [text])
    assert read(after) == value and type(read(after)) is type(value)
    assert len(differences(before.as_dict(), after.as_dict())) <= 1


def test_later_overrides_win():
    assert override(experiment(), ["train.steps=5", "train.steps=6"]).train.steps == 6


@pytest.mark.parametrize(
    "text, line",
    [
        ("train.lr", "an override looks like train.lr=1e-3, got 'train.lr'"),
        ("train.lrr=1", "override train.lrr=1: train has no field 'lrr'; did you mean lr?"),
        ("trian.lr=1", "experiment has no field 'trian'; did you mean train?"),
        ("model.qqqq=1", "model has no field 'qqqq'; it has vocab, dim"),
        ("train.lr=fast", "lr must be a number, got 'fast'"),
        ("train.steps=1.5", "steps must be a whole number, got '1.5'"),
        ("train.settle=maybe", "settle must be true or false, got 'maybe'"),
        ("train.steps=0", "override train.steps=0: steps must be >= 1, got 0"),
        ("model.heads=3", "heads must divide dim"),
        ("train=3", "train has fields of its own"),
        ("train.lr.x=3", "lr has no field 'x'"),
        ("stages.9.threshold=1", "stages has 1 entries: set stages.0.FIELD, say"),
        ("stages.0=1", "stages has 1 entries"),
        ("train.decay=none", "override train.decay=none: decay must be a number, got 'none'"),
        ("train.lr=inf", "override train.lr=inf: lr must be finite, got inf"),
        ("model=none", "model has fields of its own"),
        ("stages.0.task=N9", "task name must look like"),
    ],
)
def test_a_bad_override_teaches(text, line):
    with pytest.raises(ValueError) as caught:
        override(experiment(), [text])
    assert line in str(caught.value)


def test_an_override_of_stages_that_are_not_there_says_where_to_write_them():
    with pytest.raises(ValueError, match="stages is empty, and an override adds nothing to it: write the first one in"):
        override(experiment(()), ["stages.0.task=N1-K1V1-V62"])


def test_an_experiment_survives_json():
    before = experiment((Stage(EASY, max_steps=9), Stage(TARGET)), clip=None)
    assert Experiment.from_dict(json.loads(json.dumps(before.as_dict()))) == before


def test_an_experiment_of_another_version_is_refused():
    told = experiment().as_dict()
    with pytest.raises(ValueError, match="another version of ttmem: .*gone"):
        Experiment.from_dict(told | {"train": told["train"] | {"gone": 1}})


def test_a_file_gives_its_experiment(tmp_path):
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(f"from ttmem.training import Experiment\nEXPERIMENT = Experiment('mine', '{EASY}')\n")
    bad.write_text("EXPERIMENT = 3\n")
    assert load_experiment(good) == Experiment("mine", EASY)
    with pytest.raises(ValueError, match=r"bad.py defines no EXPERIMENT"):
        load_experiment(bad)
    with pytest.raises(FileNotFoundError, match="there is no experiment file .*gone.py"):
        load_experiment(tmp_path / "gone.py")


def test_differences_name_the_path_and_both_values():
    assert differences({"a": [{"b": 1}], "c": 2}, {"a": [{"b": 3}], "c": 2}) == ["a.0.b: 1 -> 3"]
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a: [1] -> [1, 2]"]
    assert differences({"a": 1}, {"b": 1}) == ["a: 1 -> None", "b: None -> 1"]


@pytest.mark.parametrize(
    "task, line",
    [
        ("needle:passkey:128", "69: it has none: give None, and a segment_size"),
        ("babilong:qa1:1k", "69: it has none: give None, and a segment_size"),
        ("babilong:qa1:1k:s64", "69: give 1"),
    ],
)
def test_segments_end_where_the_task_ends_them(task, line):
    made = make_task(task)
    config = LayeredConfig("armt", vocab=made.vocab, pad=made.pad)
    line = f"model.separator must be what ends a segment of {task}, got {line}"
    with pytest.raises(ValueError, match=line):
        Experiment("x", task, config)
    with pytest.raises(ValueError, match=line):
        check_fit(build(config), made)
    fit = {"separator": made.separator, "segment_size": None if made.separator else 64}
    Experiment("x", task, replace(config, **fit))


@pytest.mark.parametrize(
    "stage, line",
    [
        ("N1-K1V1-V62", "model.vocab must be the 70 ids of N1-K1V1-V62, got 258"),
        ("babilong:qa1:1k", "model.vocab must be the 1058 ids of babilong:qa1:1k, got 258"),
    ],
)
def test_the_tasks_of_all_stages_are_held_against_the_model(stage, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        Experiment("x", "needle:passkey:128", preset("tiny", "lmm"), (Stage(stage),))
    config = LayeredConfig("armt", vocab=1058, separator=1)
    with pytest.raises(ValueError, match="^model.separator must be what ends a segment of babilong:qa1:128, got 1"):
        Experiment("x", "babilong:qa1:1k:s64", config, (Stage("babilong:qa1:128"),))


def test_a_text_has_no_separator_and_no_exact_match(tmp_path):
    (tmp_path / "a.txt").write_text("To be, or not to be. " * 99)
    task = f"text:16:{tmp_path / 'a.txt'}"
    with pytest.raises(ValueError, match="^model.separator must be what ends a segment of .*, got 69: it has none"):
        Experiment("x", task, LayeredConfig("prmt4", vocab=258, pad=257))
    with pytest.raises(ValueError, match="^train.target is an exact match, which text:16:.* has none of"):
        Experiment("x", task, preset("tiny", "lmm"), train=TrainConfig(target=0.5))


def test_final_steps_count_from_the_last_of_several_stages():
    train = TrainConfig(schedule="constant", final_steps=5)
    with pytest.raises(ValueError, match="^train.final_steps counts from the last of several stages"):
        Experiment("x", EASY, train=train)
    assert Experiment("x", TARGET, stages=(Stage(EASY),), train=train).train.final_steps == 5


def test_a_file_may_have_dataclasses_and_neighbours(tmp_path):
    (tmp_path / "common_to_both.py").write_text(f"TASK = '{EASY}'\n")
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from common_to_both import TASK\n"
        "from ttmem.training import Experiment\n"
        "@dataclass\nclass Own:\n    task: str = TASK\n"
        "EXPERIMENT = Experiment('mine', Own().task)\n"
    )
    before = list(sys.path)
    assert load_experiment(tmp_path / "mine.py") == Experiment("mine", EASY)
    assert sys.path == before and "mine" not in sys.modules


def test_a_memory_without_segments_has_no_separator_to_fit():
    Experiment("x", "babilong:qa1:1k", ModelConfig(vocab=1058))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "model, changes",
    [
        (ModelConfig(), ["model.dim=10", "model.heads=5"]),
        (ModelConfig(), ["train.settle=true", "train.target=0.9"]),
        (LayeredConfig("armt"), ["model.separator=none", "model.segment_size=8"]),
        (preset("tiny", "mac", vocab=70, pad=0), ["task=needle:passkey:128", "model.vocab=258", "model.pad=257"]),
    ],
)
def test_fields_that_belong_together_change_together_in_any_order(model, changes, order):
    changed = override(Experiment("n1", "N1-K1V1-V62", model), changes[::order])
    for change in changes:
        path, _, text = change.partition("=")
        thing = changed
        for name in path.split("."):
            thing = getattr(thing, name)
        assert str(thing).lower() == text


def test_a_part_set_as_a_whole_and_in_parts_is_refused():
    with pytest.raises(ValueError, match=r"0.task is set, and also the whole: do either"):
        override(experiment(), ["stages=", "stages.0.task=N1-K1V1-V62"])
    with pytest.raises(ValueError, match="stages has"):
        override(experiment(), ["stages.00.task=N1-K1V1-V62"])
