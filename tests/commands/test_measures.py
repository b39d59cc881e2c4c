"""`ttmem eval` and `ttmem curve`: what is refused before the work, what is told when the picture fails."""

import json
from dataclasses import asdict
from math import exp, log

import pytest

from commands.room import refused, said
from ttmem import zoo
from ttmem.checkpoint import save_model
from ttmem.cli import main
from ttmem.commands.evaluate import trained_steps
from ttmem.evals import nats, plots, run
from ttmem.models import ModelConfig, build, preset
from ttmem.tasks import make_task
from untrained import checkpoint

ONE = ("--task", "N1-K1V1-V62", "--samples", "4")


@pytest.fixture
def working(monkeypatch):
    """Fails where anything is loaded."""

    def load(where):
        raise AssertionError("the work began")

    monkeypatch.setattr(zoo, "load", load)


@pytest.mark.parametrize("command", ["eval tokens-n2", "curve tokens-n2"])
@pytest.mark.parametrize(
    "plot, line",
    [
        ("x.foo", "plot must be a file with the ending .png, .svg or .pdf, got 'x.foo'"),
        (".", "plot must be a file with the ending .png, .svg or .pdf, got '.'"),
        ("", "plot must be a file with the ending"),
        ("shelf", "plot must be a file with the ending"),
        ("pairs.txt/x.png", "plot must go to a folder that can be written, got 'pairs.txt/x.png'"),
    ],
)
def test_a_picture_that_cannot_be_is_refused_before_the_work(shelf, working, capsys, command, plot, line):
    pytest.importorskip("matplotlib")
    assert line in refused(capsys, *command.split(), "--plot", plot)


@pytest.mark.parametrize("command", ["eval tokens-n2", "curve tokens-n2 --steps 1"])
def test_the_numbers_are_told_though_the_picture_fails(shelf, monkeypatch, capsys, command):
    pytest.importorskip("matplotlib")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(plots, "save", full)
    assert main([*command.split(), *ONE, "--plot", "a.png", "--json"]) == 2
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert {"exact_match", "curve"} <= found.keys() or found["points"]
    assert err == "ttmem: no space left\n"


@pytest.mark.parametrize("memory", ["none", "full", "forward"])
def test_a_model_without_gradient_steps_has_a_curve_of_one_point(shelf, capsys, memory):
    pytest.importorskip("matplotlib")
    checkpoint(shelf / "plain.safetensors", memory=memory)
    found = said(capsys, "eval", "plain.safetensors", *ONE, "--plot", "plain.png")
    (point,) = found["curve"]
    assert point["steps"] is None and point["exact_match"] == found["exact_match"]
    assert (shelf / "plain.png").read_bytes().startswith(b"\x89PNG")
    assert main(["eval", "plain.safetensors", *ONE, "--curve"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("as trained")


def test_a_memory_of_no_bytes_is_drawn_without_a_warning(shelf, capsys):
    pytest.importorskip("matplotlib")
    checkpoint(shelf / "none.safetensors", memory="none")
    found = said(capsys, "curve", "none.safetensors", *ONE, "--plot", "none.png")  # warnings are errors here
    assert [point["memory_bytes"] for point in found["points"]] == [0]
    assert (shelf / "none.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "words, line",
    [
        ("curve tokens-n2 --samples 0", "--samples must be >= 1, got 0"),
        ("curve tokens-n2 --steps", "--steps needs one number or more, as in --steps 1 2 4"),
        ("curve tokens-n2 --steps 2 0", "--steps must be >= 1, got 0"),
        ("eval tokens-n2 --samples 0", "--samples must be >= 1, got 0"),
        ("eval tokens-n2 --steps 0", "--steps must be >= 1, got 0"),
    ],
)
def test_counts_below_one_are_refused_before_the_work(shelf, working, capsys, words, line):
    assert line in refused(capsys, *words.split())


@pytest.mark.parametrize("other", ["tokens-n2", "shelf/tokens-n2.safetensors", "copy.safetensors"])
def test_a_model_named_twice_is_refused_as_its_answers_would_count_twice(shelf, capsys, other):
    (shelf / "copy.safetensors").write_bytes((shelf / "shelf" / "tokens-n2.safetensors").read_bytes())
    assert "tokens-n2.safetensors: name it once" in refused(capsys, "curve", "tokens-n2", other, *ONE)


def test_models_of_one_name_are_pooled_only_where_they_are_seeds_of_one_model(shelf, capsys):
    for seed in (0, 1):
        checkpoint(shelf / f"seed{seed}.safetensors", seed=seed, name="mine")
    checkpoint(shelf / "other.safetensors", memory="mlp", name="mine")
    files = ["seed0.safetensors", "seed1.safetensors"]
    found = said(capsys, "curve", *files, *ONE, "--steps", "1")["points"]
    assert [(point["name"], point["samples"]) for point in found] == [("mine", 8)]
    found = said(capsys, "curve", *files, "other.safetensors", *ONE, "--steps", "1")["points"]
    assert [point["name"] for point in found] == [f"mine ({name})" for name in (*files, "other.safetensors")]


@pytest.mark.parametrize("change", [{"task": "N1-K1V1-V62"}, {"train": {"seed": 1, "lr": 0.1}}, {"stages": ["other"]}])
def test_models_of_one_name_that_were_trained_otherwise_are_not_pooled(shelf, capsys, change):
    said_of = {"name": "mine", "train": {"seed": 0, "start_from": "a", "lr": 0.2}, "stages": []}
    other = said_of | {"train": {"seed": 1, "start_from": "b", "lr": 0.2}}
    for seed, experiment in enumerate((said_of, other, said_of | change)):
        checkpoint(shelf / f"{seed}.safetensors", seed=seed, name="mine", experiment=experiment)
    names = [point["name"] for point in said(capsys, "curve", "0.safetensors", "1.safetensors", *ONE)["points"]]
    assert set(names) == {"mine"}
    found = said(capsys, "curve", "0.safetensors", "2.safetensors", *ONE, "--steps", "1")["points"]
    assert [point["name"] for point in found] == ["mine (0.safetensors)", "mine (2.safetensors)"]


@pytest.mark.parametrize("memory, steps", [("tokens", 2), ("rmt4", 2), ("rmt", None), ("full", None)])
def test_only_what_takes_steps_was_trained_with_a_number_of_them(memory, steps):
    assert trained_steps(build(ModelConfig(memory=memory, dim=16, layers=1), 0)) == steps


def test_a_model_of_text_is_told_in_nats(shelf, capsys):
    (shelf / "a.txt").write_text("To be, or not to be. " * 99)
    config = preset("tiny", "lmm")
    model = build(config, 0)
    save_model(shelf / "text.safetensors", asdict(config), model.state_dict(), {"task": f"text:16:{shelf / 'a.txt'}"})
    found = said(capsys, "eval", "text.safetensors", "--samples", "20")
    assert found["nats"] == pytest.approx(nats(model, make_task(found["task"]), 20))
    assert found["perplexity"] == pytest.approx(exp(found["nats"])) and "exact_match" not in found
    assert main(["eval", "text.safetensors", "--samples", "20"]) == 0
    assert f"{found['nats'] / log(2):.4f}" in capsys.readouterr().out
    line = "--curve, --plot, --steps and --queries are of exact match, and text:16:"
    for words in (["--curve"], ["--steps", "2"], ["--queries", "2"]):
        assert line in refused(capsys, "eval", "text.safetensors", *words)


def test_a_number_of_steps_given_twice_is_measured_once(shelf, capsys):
    found = said(capsys, "curve", "tokens-n2", *ONE, "--steps", "1", "1")
    assert [(point["steps"], point["samples"]) for point in found["points"]] == [(1, 4)]


def test_a_device_without_numbers_is_refused(shelf, monkeypatch, capsys):
    monkeypatch.setattr(run, "count", None)
    assert "--device meta keeps no numbers" in refused(capsys, "eval", "tokens-n2", *ONE, "--device", "meta")


@pytest.mark.parametrize(
    "name, line",
    [
        ("N2-K4V4-S99999_16-32", "segments must be <= 10,000, got 99999"),
        ("N2-K4V4-S9999_16-32", "context must have at most 100,000 characters, N2-K4V4-S9999_16-32 has up to"),
        ("N2-K4V4-S2_16-9999999999999", "fill_max must be <= 100,000, got 9999999999999"),
        ("N99999999999999999999999-K4V4-V62", "pairs must be <= 10,000, got 99999999999999999999999"),
        ("N2-K99999999V4-V62", "key must be <= 100, got 99999999"),
        ("needle:passkey:99999999999999", "length must be <= 1,000,000, got 99999999999999"),
    ],
)
def test_a_task_too_long_for_any_machine_is_refused_in_one_line(shelf, capsys, name, line):
    assert line in refused(capsys, "eval", "tokens-n2", "--task", name)
