"""Trains two steps eager and two compiled, and prints the largest difference of their losses.

A script, because the checks of shapes that the tests switch on are nothing the compiler can follow.
"""

import sys
import tempfile
from pathlib import Path

from training.short import experiment, history
from ttmem.training import parallel, train

if __name__ == "__main__":
    compile_loss, used = parallel.compile_loss, []

    def quickly(model, tasks):
        used.append(model)
        compile_loss(model, tasks, backend="aot_eager")

    parallel.compile_loss = quickly
    losses = []
    for compile in (False, True):
        with tempfile.TemporaryDirectory() as out:
            train(experiment((), steps=2, compile=compile), out, progress=False)
            losses.append([line["loss"] for line in history(Path(out)) if "loss" in line])
    assert len(used) == 1 and len(losses[1]) == 2
    sys.stdout.write(str(max(abs(a - b) for a, b in zip(*losses, strict=True))))
