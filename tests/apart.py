"""Scripts in processes of their own: the checks of shapes that tests switch on are nothing the compiler can follow."""

import os
import subprocess
import sys
from pathlib import Path


def printed(script: str, *words: str) -> str:
    """What a Python script prints."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    done = subprocess.run([sys.executable, "-c", script, *words], env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    return done.stdout
