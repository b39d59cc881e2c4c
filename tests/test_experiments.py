"""The files of experiments/: every one can be asked for its help, wherever the data are."""

import os
import subprocess
import sys

import pytest

from guards_code import ROOT

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
