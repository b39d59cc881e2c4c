"""Compiled, a write and its meta-gradient are what they are eagerly: torch.func's gradient against autograd's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import compiled

TESTS = Path(__file__).parent
METAS = ["first", "none", "last_1"]
NAMES = [f"model {name}" for name in compiled.MODELS] + [f"window {window}" for window in compiled.WINDOWS]
TOYS = [f"toy {rule} second" for rule in compiled.RULES] + [f"toy titans {meta}" for meta in METAS] + ["toy no_grad"]


@pytest.fixture(scope="module")
def found() -> dict:
    """Every case in one fresh process, in which nobody checks shapes; a warning of the compiler is an error."""
    paths = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    command = [sys.executable, "-W", "error::UserWarning", str(TESTS / "compiled.py")]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", [*TOYS, *NAMES])
def test_compiled_losses_and_gradients_are_the_eager_ones(found, case):
    if case not in found and not compiled.COMPILER:
        pytest.skip("no compiler of C++ on this machine: machine code is not tested")
    assert found[case]["far"] < 1e-10
    assert found[case]["same_graph"], "compiling gave a gradient to what eagerly has none, or took one away"


def test_every_case_is_tested(found):
    assert set(found) == {case for case in (*TOYS, *NAMES) if compiled.COMPILER or not case.startswith("window")}
