import json
import signal
import sys

import pytest

from training.short import experiment
from ttmem.training import train
from ttmem.training.progress import HISTORY, Clock, LiveLine, Reporter, clock, keep_until
from ttmem.training.signals import Interruption

RECORD = {"step": 3, "end": 9, "rate": 2.0, "loss": 1.5, "running": 0.25, "task": "N1", "stage": 0, "stages": 2}


def lines(folder):
    return [json.loads(line) for line in (folder / HISTORY).read_text().splitlines()]


def test_a_run_speaks_one_line_per_interval_where_there_is_no_terminal(tmp_path, capsys):
    train(experiment(log_every=6), tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    said = [line for line in err.splitlines() if " left" in line]
    assert [line.split()[1] for line in said] == ["6/12", "12/12"]
    assert "N1-K1V1-V2 (1/2)" in said[0] and "N2-K1V1-V2 (2/2)" in said[1]
    assert "N1-K1V1-V2 passed at exact match" in err and "validation exact match" in err


def test_without_progress_a_run_is_silent(tmp_path, capsys):
    train(experiment(steps=1), tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")


def test_records_are_kept_and_only_the_main_process_writes(tmp_path):
    Reporter(tmp_path / "main", show=False).log(RECORD)
    Reporter(tmp_path / "other", show=True, main=False).log(RECORD)
    assert lines(tmp_path / "main") == [RECORD]
    assert not (tmp_path / "other").exists()


def test_the_history_after_a_step_and_a_half_written_line_are_dropped(tmp_path):
    path = tmp_path / HISTORY
    path.write_text("".join(json.dumps({"step": i}) + "\n" for i in (1, 2, 3, 2)) + '{"step": 1, "lo')
    keep_until(path, 2)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 2]
    keep_until(tmp_path / "none", 2)
    assert not (tmp_path / "none").exists()


def test_the_live_line_shows_the_last_step_and_keeps_notes(capsys):
    live = LiveLine()
    live.set("step 1 [half]")
    live.say("a note [kept]")
    live.set("step 2 [half]")
    live.close()
    said = capsys.readouterr().err
    assert "a note [kept]" in said and "step 2 [half]" in said


def test_on_a_terminal_the_reporter_takes_the_live_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    reporter = Reporter(tmp_path)
    reporter.step(RECORD)
    reporter.log(RECORD)
    reporter.close()
    assert reporter.live is not None and lines(tmp_path) == [RECORD]


def test_tensorboard_gets_its_file(tmp_path):
    train(experiment(steps=2, tensorboard=True), tmp_path, progress=False)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes() and b"validation" in events.read_bytes()


def test_tensorboard_missing_is_told_and_stops_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    reporter = Reporter(tmp_path, board=True)
    reporter.log(RECORD)
    assert "no TensorBoard scalars" in capsys.readouterr().err and reporter.board is None


def test_a_rate_leaves_out_the_first_step_and_a_budget_the_steps_that_do_not_fit(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ttmem.training.progress.time.perf_counter", lambda: now[0])
    made = Clock(50.0, 7)
    now[0] += 240  # it compiles
    assert made.rate(8) == 1 / 240
    now[0] += 2
    made.rate(8)  # asked once more, in the midst of the second step
    now[0] += 3
    assert made.rate(18) == 2.0
    assert made.seconds() == 295
    assert not made.late(18, 600, 596.0) and made.late(18, 600, 595.0)
    assert (made.fits(18, 600, 305.0), made.fits(18, 600, 1000.0), made.fits(18, 600, 1.0)) == (20, 600, 1)
    assert made.fits(18, 0, 305.0) == 0 and made.fits(18, 600, None) == 600 and not made.late(18, 600, None)


@pytest.mark.parametrize("seconds, said", [(0.0, "0:00"), (59.6, "1:00"), (3599.9, "1:00:00"), (7325.0, "2:02:05")])
def test_clocks_carry(seconds, said):
    assert clock(seconds) == said


def test_the_first_signal_is_noted_and_the_second_goes_where_it_always_went():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *rest: seen.append(rest))
    try:
        with Interruption() as interruption:
            assert not interruption
            signal.raise_signal(signal.SIGTERM)
            assert interruption and not seen
            signal.raise_signal(signal.SIGTERM)
            assert len(seen) == 1
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_long_task_name_loses_its_middle_in_the_line_and_not_in_the_history(tmp_path, capsys):
    task = "text:256:" + "+".join(f"gutenberg/{number}.txt" for number in range(10136, 10146))
    record = {"step": 1, "end": 2, "rate": 1.0, "loss": 1.0, "running": 0.0, "task": task, "stage": 0, "stages": 1}
    reporter = Reporter(tmp_path)
    reporter.log(record)
    (told,) = capsys.readouterr().err.splitlines()
    assert len(told) < 120 and "text:256:gutenberg" in told and "10145.txt (1/1)" in told
    assert json.loads((tmp_path / "history.jsonl").read_text())["task"] == task


def test_a_history_that_is_there_stays_until_the_new_one_is_released(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 9}\n')
    reporter = Reporter(tmp_path, show=False)
    reporter.log({"step": 1})
    assert path.read_text() == '{"step": 9}\n'
    reporter.release()
    reporter.log({"step": 2})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
