import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ttmem import zoo
from ttmem.cli import main
from ttmem.commands import demo
from untrained import checkpoint

pytest.importorskip("matplotlib")


def tiny():
    from ttmem.models import ModelConfig

    experiment = demo.small_experiment(5.0)
    train = replace(experiment.train, steps=2, batch=2, eval_every=1, eval_samples=4)
    return replace(experiment, model=ModelConfig(memory="neural", dim=16, layers=1, slots=2), train=train)


@pytest.fixture
def room(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = tiny()
    monkeypatch.setattr(demo, "small_experiment", lambda seconds: made)
    monkeypatch.setattr(zoo, "folder", lambda: tmp_path / "shelf")
    return tmp_path


def run(capsys, *words: str) -> str:
    assert main(["demo", "--seconds", "5", "--samples", "8", *words]) == 0
    return capsys.readouterr().out


def test_the_demo_trains_writes_deletes_asks_and_leaves_a_picture(room, capsys):
    checkpoint(room / "shelf" / "neural-memory-n2.safetensors", memory="neural")
    out = run(capsys)
    assert (room / "demo" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert (room / "demo" / "doc.memory").exists() and not (room / "demo" / "context.txt").exists()
    for words in ("exact match", "memory reset", "neural-memory-n2", "write loss", "deleted", "control", "demo.png"):
        assert words in out, words
    assert "not in this installation" not in out


@pytest.mark.parametrize(
    "shipped, stands_in", [(["tokens-n2", "tokens-n1"], "tokens-n2"), ([], "the model just trained")]
)
def test_what_stands_in_for_a_missing_checkpoint_is_said(room, capsys, shipped, stands_in):
    for name in shipped:
        checkpoint(room / "shelf" / f"{name}.safetensors")
    assert f"neural-memory-n2 is not in this installation; {stands_in}" in " ".join(run(capsys).split())


def test_json_is_all_that_is_said_and_counts_the_answers(room, capsys):
    checkpoint(room / "shelf" / "neural-memory-n2.safetensors", memory="neural")
    found = json.loads(run(capsys, "--json", "--out", "elsewhere"))
    assert found["asked"] == 2 and 0 <= found["right"] <= 2 and len(found["curve"]) == 10
    assert (room / found["picture"]).exists() and found["picture"].startswith("elsewhere")


def test_the_answers_come_from_the_file_and_the_control_from_an_empty_memory(room):
    loaded = zoo.load(checkpoint(room / "a.safetensors"))
    from rich.console import Console

    use = demo.use_memory(Console(quiet=True), loaded, room)
    task = loaded.make_task()
    assert len(use.rows) == task.pairs and use.context.endswith("|")
    assert all(f"!{key}:{value}!" in use.context for key, value, _, _ in use.rows)
    before = use.rows
    other = zoo.load(checkpoint(room / "b.safetensors", seed=9))
    with pytest.raises(ValueError, match="cannot be read by b"):
        demo.ask_all(other, use.memory, task, task.sample(1, "test", demo.SHOWN_SEED))
    assert demo.ask_all(loaded, use.memory, task, task.sample(1, "test", demo.SHOWN_SEED)) == before


def test_only_what_a_neural_memory_did_stands_beside_the_decks_neural_memory(room, monkeypatch):
    from ttmem.evals import plots

    shown = []
    monkeypatch.setattr(plots, "beside", lambda axes, ours, *_, **__: shown.append(ours))
    learned = SimpleNamespace(task=demo.SMALL_TASK, exact_match=0.5)
    for memory in ("tokens", "neural"):
        loaded = zoo.load(checkpoint(room / f"{memory}.safetensors", memory=memory))
        demo.picture(room / "a.png", loaded, demo.steps_to_ten(loaded, 4), learned)
    assert [set(ours) for ours in shown] == [{demo.SMALL_TASK}, set(demo.DECK)]


def test_the_experiment_has_the_time_it_is_given_and_grows_to_the_demos_task():
    experiment = demo.small_experiment(30.0)
    assert experiment.train.seconds == 30.0 and experiment.model.memory == "neural"
    assert experiment.curriculum.stages[-1].task == demo.SMALL_TASK == experiment.task


def test_no_samples_are_refused_before_the_training(room, capsys):
    assert main(["demo", "--samples", "0"]) == 2
    assert capsys.readouterr().err == "ttmem: --samples must be >= 1, got 0\n" and not (room / "demo").exists()


def test_the_help_tells_the_steps_that_follow_the_seconds(capsys, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"ends with its last {demo.small_experiment(1.0).train.decay} steps" in told
