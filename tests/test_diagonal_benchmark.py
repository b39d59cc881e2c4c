"""The benchmark of the two walks measures what it says, and refuses to where they differ."""

import importlib.util
import json
import subprocess
import sys

import pytest


def test_a_quick_run_leaves_numbers_and_a_picture(benchmarks, tmp_path):
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(benchmarks / "diagonal.py"), "--quick", "--kinds", "prmt4", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads((tmp_path / "diagonal.json").read_text())
    assert "prmt4" in done.stdout and {row["kind"] for row in found["rows"]} == {"prmt4"}
    assert (tmp_path / "diagonal.png").read_bytes().startswith(b"\x89PNG")


def test_a_quick_run_without_a_folder_keeps_nothing(benchmarks, tmp_path):
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(benchmarks / "diagonal.py"), "--quick", "--kinds", "armt"]
    subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_walks_that_differ_are_not_timed(benchmarks, monkeypatch):
    spec = importlib.util.spec_from_file_location("diagonal", benchmarks / "diagonal.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "diagonal", made)
    spec.loader.exec_module(made)
    model = made.make("armt", 8, made.Setting(layers=1, dim=16, heads=2))
    weight = next(model.parameters())

    def wrong(schedule):
        return (weight * (1.001 if schedule == "diagonal" else 1.0)).square().sum()

    with pytest.raises(made.LawBroken, match="armt: diagonal is .* off sequential"):
        made.check_same("armt", model, wrong, 1e-10)
