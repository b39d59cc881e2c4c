"""A run that was cut off goes on as if nothing had happened."""

import signal
from pathlib import Path

import pytest

from training.short import EASY, assert_same_run, experiment, history, run_script, weights
from ttmem.checkpoint import load_model
from ttmem.training import Stage, train
from ttmem.training.loop import MODEL, STATE, Trainer
from ttmem.training.state import RunState, check_same, complete, rebudgeted


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run without interruption."""
    out = tmp_path_factory.mktemp("whole")
    assert train(experiment(), out, progress=False).stopped == "steps"
    return out


@pytest.mark.parametrize("moment, step, left", [("before", 8, 5), ("save", 9, 5)])
def test_a_run_killed_between_steps_or_while_saving_resumes_bit_for_bit(whole, tmp_path, moment, step, left):
    assert run_script("victim.py", tmp_path, moment, step).returncode == -signal.SIGKILL
    assert history(tmp_path)[-1]["step"] >= step > left
    assert Trainer(experiment(), tmp_path, progress=False).state.step == left
    train(experiment(), tmp_path, progress=False)
    assert_same_run(tmp_path, whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", MODEL, STATE]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_returns_and_the_run_goes_on_bit_for_bit(whole, tmp_path, number, monkeypatch):
    learn = Trainer.learn

    def learn_and_signal(trainer, *rest):
        if trainer.state.step == 6:
            signal.raise_signal(number)
        return learn(trainer, *rest)

    before = signal.getsignal(number)
    monkeypatch.setattr(Trainer, "learn", learn_and_signal)
    result = train(experiment(), tmp_path, progress=False)
    assert (result.stopped, result.steps) == ("interrupted", 8)
    assert signal.getsignal(number) == before
    monkeypatch.undo()
    assert train(experiment(), tmp_path, progress=False).stopped == "steps"
    assert_same_run(tmp_path, whole)


def test_two_processes_see_what_one_sees(whole, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = run_script("victim.py", tmp_path, "never", 0, launcher=launcher)
    assert done.returncode == 0, done.stderr
    one, two = history(whole), history(tmp_path)
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for a, b in zip(one, two, strict=True):
        for name in {"loss", "read", "write", "write_first", "exact", "running", "norm"} & a.keys():
            assert a[name] == pytest.approx(b[name], abs=1e-5), (name, a["step"])


def test_a_finished_run_is_not_run_again(whole):
    before = weights(whole)
    again = train(experiment(), whole, progress=False)
    assert (again.stopped, again.steps) == ("steps", 12)
    assert all(before[name].equal(tensor) for name, tensor in weights(whole).items())


def test_without_resume_a_run_starts_over(tmp_path):
    train(experiment(steps=3), tmp_path, progress=False)
    assert train(experiment(steps=3, lr=1e-3), tmp_path, resume=False, progress=False).steps == 3
    assert [line["step"] for line in history(tmp_path) if "loss" in line] == [1, 2, 3]


def test_a_run_of_another_experiment_is_not_taken_up(tmp_path):
    train(experiment(steps=2), tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"other settings \(train.lr: 0.005 -> 0.001\): take another folder"):
        train(experiment(steps=2, lr=1e-3), tmp_path, progress=False)


def test_a_model_of_another_run_is_not_replaced_where_its_state_is_gone(tmp_path):
    train(experiment(steps=2), tmp_path, progress=False)
    (tmp_path / STATE).unlink()
    before = (tmp_path / MODEL).read_bytes()
    with pytest.raises(ValueError, match=r"model.safetensors is of a run with other settings \(train.lr: "):
        train(experiment(steps=2, lr=1e-3), tmp_path, progress=False)
    assert (tmp_path / MODEL).read_bytes() == before
    assert train(experiment(steps=2, lr=1e-3), tmp_path, resume=False, progress=False).steps == 2
    (tmp_path / STATE).unlink()
    assert train(experiment(steps=2, lr=1e-3), tmp_path, progress=False).steps == 2  # the same one begins again


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("steps, decided", [(20, False), (8, True), (12, True)])
def test_a_larger_budget_lets_time_and_target_decide_again_where_the_old_one_was_the_end(late, steps, decided):
    state = RunState(end=12, step=5, late=late, settling=not late)
    rebudgeted(state, 12, experiment(steps=steps))
    assert (state.late, state.settling, state.end) == (late and decided, not late and decided, steps)


def test_more_steps_reopen_a_run_that_had_used_up_its_own(tmp_path):
    train(experiment(steps=4), tmp_path, progress=False)
    result = train(experiment(steps=6), tmp_path, progress=False)
    assert (result.stopped, result.steps) == ("steps", 6)


@pytest.mark.parametrize("first", [1, 6])
def test_a_run_with_more_steps_ends_where_its_last_stage_ends_as_if_it_had_them_from_the_start(tmp_path, first):
    def run(name: str, steps: int) -> tuple[str, int]:
        stage = Stage(EASY, threshold=0.0, min_steps=2)
        changes = {"steps": steps, "final_steps": 7, "schedule": "constant"}
        result = train(experiment((stage,), **changes), tmp_path / name, progress=False)
        return result.stopped, result.steps

    assert run("resumed", first) == ("steps", first)
    assert run("resumed", 20) == run("whole", 20) == ("steps", 9)
    ours, theirs = weights(tmp_path / "resumed"), weights(tmp_path / "whole")
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_a_budget_used_up_already_ends_the_run_before_another_step_with_a_model_to_ship(tmp_path):
    trainer = Trainer(experiment(steps=10, eval_every=0), tmp_path, progress=False)
    for _ in range(6):
        trainer.advance()
    trainer.save()
    before = weights(tmp_path)
    for _ in range(2):
        result = train(experiment(steps=3, eval_every=0), tmp_path, progress=False)
        assert (result.stopped, result.steps) == ("steps", 6) and load_model(result.checkpoint).meta["step"] == 6
        assert all(before[name].equal(tensor) for name, tensor in weights(tmp_path).items())
    assert len([line for line in history(tmp_path) if "validation" in line]) == 1
    assert train(experiment(steps=8, eval_every=0), tmp_path, progress=False).steps == 8


@pytest.mark.parametrize("changes, end", [({}, 7), ({"steps": 20}, 7), ({"steps": 6}, 6)])
def test_another_budget_leaves_the_end_that_a_reached_target_had_set(changes, end, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "_ask", lambda trainer: (0.5, 0.0))
    settling = {"target": 0.5, "settle": True, "decay": 3.0}
    trainer = Trainer(experiment(**settling), tmp_path, progress=False)
    for _ in range(5):
        trainer.advance()
    trainer.save()
    result = train(experiment(**settling | changes), tmp_path, progress=False)
    assert (result.stopped, result.steps) == ("target", end)


def test_a_run_goes_on_without_the_checkpoint_that_it_started_from(tmp_path):
    first = train(experiment(steps=1), tmp_path / "first", progress=False).checkpoint
    train(experiment(steps=2, start_from=str(first)), tmp_path / "run", progress=False)
    first.unlink()
    assert train(experiment(steps=3, start_from=str(first)), tmp_path / "run", progress=False).steps == 3
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        train(experiment(steps=3, start_from=str(first)), tmp_path / "run", resume=False, progress=False)


@pytest.mark.parametrize(
    "spoil, line",
    [(lambda c: c[:-9], "is truncated: it has"), (lambda c: b"what", "is not a checkpoint")],
)
def test_a_spoiled_state_is_told_with_its_name(tmp_path, spoil, line):
    train(experiment(steps=1), tmp_path, progress=False)
    (tmp_path / STATE).write_bytes(spoil((tmp_path / STATE).read_bytes()))
    with pytest.raises(ValueError, match=f"{STATE} .*{line}"):
        train(experiment(steps=1), tmp_path, progress=False)


def test_a_model_is_no_state_and_a_state_no_model(whole, tmp_path):
    with pytest.raises(ValueError, match="no ttmem-checkpoint: it is ttmem-training"):
        load_model(whole / STATE)
    (tmp_path / STATE).write_bytes((whole / MODEL).read_bytes())
    with pytest.raises(ValueError, match="no ttmem-training: it is ttmem-checkpoint"):
        train(experiment(), tmp_path, progress=False)


def test_a_run_of_a_version_without_some_field_goes_on_where_the_field_is_at_its_default(tmp_path):
    before = experiment().as_dict()
    del before["model"]["window"], before["train"]["patience"]
    check_same(tmp_path, complete(before, experiment()), experiment().as_dict())
    with pytest.raises(ValueError, match=r"train.patience: None -> 3"):
        check_same(tmp_path, complete(before, experiment(patience=3)), experiment(patience=3).as_dict())
