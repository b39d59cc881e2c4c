"""Speed and memory of the training step: forward and backward of `MetaMemory.loss`, eager and compiled.

    python benchmarks/train_step.py                       the table (minutes; the compiled rows take most of them)
    python benchmarks/train_step.py --no-compiled         eager rows only
    python benchmarks/train_step.py --only "second, K=2"  rows whose label holds this
    python benchmarks/train_step.py --profile             where the time of a step goes
    python benchmarks/train_step.py --quick               tiny sizes, to see that it works
    python benchmarks/train_step.py --json out.json       the numbers as JSON too

The unit of cost is one forward and backward of the plain backbone as a language model over as many tokens as one write
reads (memory and context), eager, measured in turns with the row. Each row runs in a process of its own. It first shows
that it keeps its laws (second order = finite differences, compiled = eager, recomputed = stored, anew = once); a row
that breaks one ends the run without a speed. `make bench` runs the tests of the engine before. "anew": what no memory
changes is made at each step of a write, not once.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from one_row import Row, Setting
from where import report

SINES = {"addresses": "sines", "slots": 8, "stem": True, "window": 1, "layers": 2}
"""The decoder that holds most (experiments/tokens_n32.py)."""
ROPE = {"positions": "rope", "conv": 0}
"""The decoder GradMem was published with; ours has a short convolution and no positions."""
QUICK = Setting(task="N2-K1V1-V62", batch=2, dim=16, layers=1, heads=2, repeats=1, backend="aot_eager")
HEADER = (
    f"{'':44}{'steps/s':>9}{'samples/s':>11}{'wall ms':>9}{'CPU ms':>8}{'units':>7}{'FLOPs':>7}{'MB':>7}{'first':>8}"
)
FOOT = """\
steps/s, samples/s: by the median wall time. wall, CPU ms: median, least. units: cost in plain forward+backward passes,
by the least CPU time (GPU: wall). FLOPs: the same, counted in matrix products. MB: peak beyond what was held before
the step. first: seconds of the first call, which compiles."""


def eager_rows() -> list[Row]:
    """Second order over K, stored and recomputed, every pair asked and one; the others beside it."""
    rows = [Row("plain backbone", plain=True)]
    rows += [Row(f"second, K={k}", {"steps": k}) for k in (1, 2, 5)]
    rows += [Row(f"second, K={k}, recompute", {"steps": k, "recompute": True}) for k in (1, 2, 5)]
    rows += [Row(f"second, K={k}, one pair asked", {"steps": k}, queries=1) for k in (1, 2, 5)]
    rows += [
        Row("second, K=2, one pair, no write loss", {"steps": 2, "weight": 0.0}, queries=1),
        Row("first, K=2", {"steps": 2, "meta_gradient": "first"}),
        Row("forward write", {"memory": "forward"}),
        Row("sines, stem, 2 layers: plain backbone", dict(SINES), plain=True),
        *(Row(f"sines, stem, 2 layers: second, K={k}", {"steps": k, "weight": 0.0} | SINES) for k in (2, 5)),
        Row("sines, stem, 2 layers: second, K=5, anew", {"steps": 5, "weight": 0.0} | SINES, anew=True),
        Row("rope, no conv: plain backbone", dict(ROPE), plain=True),
        Row("rope, no conv: second, K=2", {"steps": 2} | ROPE),
        Row("rope, no conv: second, K=2, one pair asked", {"steps": 2} | ROPE, queries=1),
    ]
    return rows


def compiled_rows() -> list[Row]:
    """The eager rows worth compiling."""
    labels = ["plain backbone", *(f"second, K={k}" for k in (1, 2, 5)), "second, K=2, one pair asked", "forward write"]
    return [replace(r, label=f"compiled: {r.label}", compiled=True) for r in eager_rows() if r.label in labels]


def measured(row: Row, setting: Setting) -> dict:
    """The row's numbers, from a fresh process with an empty compiler cache; SystemExit if it breaks a law."""
    job = json.dumps({"row": asdict(row), "setting": asdict(setting)})
    command = [sys.executable, str(Path(__file__).with_name("one_row.py")), job]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "OMP_NUM_THREADS": str(setting.threads),
            "TORCHINDUCTOR_CACHE_DIR": cache,
            "TORCHINDUCTOR_COMPILE_THREADS": str(setting.threads),
        }
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"no speed is printed: {row.label} failed (above)")
    return json.loads(done.stdout.splitlines()[-1])


def line(result: dict) -> str:
    """A result as a row of the table."""
    wall, cpu = result["seconds"]["wall_median"], result["seconds"]["cpu_min"]
    counted = "" if result["unit_flops"] is None else f"{result['unit_flops']:.2f}"
    return (
        f"{result['label']:44}{1 / wall:9.3f}{result['samples_per_second']:11.1f}{wall * 1e3:9.0f}{cpu * 1e3:8.0f}"
        f"{result['units']:7.2f}{counted:>7}{result['peak_bytes'] / 1e6:7.0f}{result['first_call_seconds']:8.1f}"
    )


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one repeat, compiled rows by aot_eager")
    parser.add_argument("--no-compiled", action="store_true", help="leave the compiled rows out")
    parser.add_argument("--only", default="", help="rows whose label holds this")
    parser.add_argument("--profile", action="store_true", help="where the time goes, instead of the table")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    for name in ("task", "device", "backend"):
        parser.add_argument(f"--{name}", help=f"default {getattr(Setting(), name)}")
    for name in ("batch", "dim", "layers", "heads", "repeats", "threads"):
        parser.add_argument(f"--{name}", type=int, help=f"default {getattr(Setting(), name)}")
    return parser.parse_args()


def setting_of(given: argparse.Namespace) -> Setting:
    """The default setting or the quick one, with what the command line says changed."""
    base = QUICK if given.quick else Setting()
    said = {name: getattr(given, name) for name in asdict(base) if getattr(given, name, None) is not None}
    return replace(base, **said)


def main() -> None:
    """Measures row by row and prints each as it comes."""
    given = options()
    setting = setting_of(given)
    rows = [r for r in eager_rows() + ([] if given.no_compiled else compiled_rows()) if given.only in r.label]
    if not rows:
        sys.exit(f"no row's label holds {given.only!r}")
    if given.profile:
        chosen = rows if given.only else [r for r in rows if r.label in ("plain backbone", "second, K=2")]
        return print("\n\n".join(report(row, setting) for row in chosen))
    print(f"{setting}\ntorch {torch.__version__}, {platform.machine()}\n\n{HEADER}")
    results = []
    for row in rows:
        results.append(measured(row, setting))
        print(line(results[-1]), flush=True)
        if given.json:
            given.json.write_text(json.dumps({"setting": asdict(setting), "rows": results}, indent=1) + "\n")
    print(f"\n{FOOT}")


if __name__ == "__main__":
    main()
