"""What `import ttmem` gives."""

import os
import subprocess
import sys

import pytest

import ttmem

FRESH = """
import sys, ttmem
assert not {"torch", "tyro"} & set(sys.modules), "import ttmem must be light"
assert "models" in dir(ttmem)
print(ttmem.models.Titans.__name__, ttmem.training.Stage.__name__, ttmem.load.__module__)
"""


def test_modules_are_there_in_a_fresh_process_and_come_only_when_asked_for():
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, env=env)
    assert done.stdout == "Titans Stage ttmem.zoo\n", done.stderr


def test_a_name_that_is_not_there_is_told():
    for name in ("nothing", "__path_of_nothing__"):
        with pytest.raises(AttributeError, match=f"module 'ttmem' has no attribute '{name}'"):
            getattr(ttmem, name)
