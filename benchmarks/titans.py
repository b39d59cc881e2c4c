"""The exact Titans memory beside its peer, in one run: speed, memory, and the error against the recurrence.

    python benchmarks/titans.py                              the table (about ten minutes on one quiet core)
    python benchmarks/titans.py --quick                      tiny sizes, to see that it works (under a minute)
    python benchmarks/titans.py --only layer                 rows whose kind holds this
    python benchmarks/titans.py --depths 3 --chunks 16 256   every kind of row on a grid of one's own
    python benchmarks/titans.py --json out.json              the numbers as JSON too

The peer is titans-pytorch 0.5.5 (`titans_peer.py` says what it computes); without it, its rows are left out. Each row
runs in a process of its own. It first shows that `chunkwise` is the token-by-token recurrence to 1e-10 in float64
(outputs, end state, gradients; `titans_row.py`), that the peer's exact mode is our function, and that the outputs it
will time are right. A row that breaks a law ends the run without a speed.

    peer, same function   a gradient per token at the last chunk's end, as ours. It holds the weights of every token:
                          where they would not fit, it gets fewer tokens, which is to its advantage, since its time per
                          token grows with them, too
    peer, coarse          one summed gradient per chunk: another function
    token loop            our recurrence token by token, on one sample of two chunks
    chunks                our memory alone, chunks computed again in backward; `stored`: not; `compiled`: stored, by
                          torch.compile
    layer                 LongTermMemory whole, norm and clip off. It does more than the peer: convolution and SiLU on
                          q, k, v, |q| = |k| = 1, gates for each memory layer, normalised and gated output, projected;
                          `stored` and `compiled` as above, `torch.compile(memory)` being all that it takes
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from titans_cell import Cell, Setting
from titans_peer import INSTALL, installed
from titans_row import ROWS

TINY = Cell(depth=2, chunk=8, width=16, tokens=64)
QUICK = Setting(repeats=2, seconds=0.5, backend="aot_eager")
EVERY = list(ROWS)
PEERS = [kind for kind in EVERY if kind.startswith("peer")]
FEW = [*PEERS, "chunks, stored", "layer", "layer, stored"]
HEADER = f"{'':24}{'tokens':>8}{'forward':>10}{'and back':>10}{'MB':>8}{'error':>10}{'products':>10}"
FOOT = """\
forward, and back: tokens a second, forward alone and with backward; by the least CPU time (more threads, or a GPU:
wall). MB: peak of the first step beyond what was held before it. error: largest, in float32, against the recurrence in
float64 over the first three chunks (at least 128 tokens), as a part of the largest output. products: the time that the
step's matrix products take by themselves, as a part of the step's (products.py)."""


def default_jobs() -> list[tuple[str, Cell]]:
    """Every kind over the depths; a few at other chunks and heads; four compiled, which take minutes each."""
    jobs = [(kind, Cell(depth)) for depth in (1, 2, 3, 4) for kind in EVERY if depth < 3 or "compiled" not in kind]
    cells = [Cell(2, chunk=16), Cell(2, chunk=256)]
    cells += [Cell(depth, heads=2, width=64) for depth in (1, 2)] + [Cell(1, heads=4), Cell(1, heads=4, width=64)]
    return jobs + [(kind, cell) for cell in cells for kind in FEW]


def jobs_of(given: argparse.Namespace) -> list[tuple[str, Cell]]:
    """The rows that the command line asks for."""
    axes = [getattr(given, name) for name in ("depths", "chunks", "heads", "widths")]
    if given.quick:
        jobs = [(kind, TINY) for kind in EVERY]
    elif any(axes):
        usual = (1, 64, 1, 128)
        values = [axis or [one] for axis, one in zip(axes, usual, strict=True)]
        jobs = [(kind, Cell(*each)) for each in product(*values) for kind in EVERY]
    else:
        jobs = default_jobs()
    jobs = [(kind, replace(cell, device=given.device)) for kind, cell in jobs if given.only in kind]
    if not jobs:
        sys.exit(f"no kind of row holds {given.only!r}: there are {', '.join(EVERY)}")
    return jobs


def measured(kind: str, cell: Cell, setting: Setting) -> dict:
    """The row's numbers, from a fresh process with an empty compiler cache; SystemExit if it breaks a law."""
    job = json.dumps({"kind": kind, "cell": asdict(cell), "setting": asdict(setting)})
    command = [sys.executable, str(Path(__file__).with_name("titans_row.py")), job]
    with tempfile.TemporaryDirectory() as cache:
        threads = {"OMP_NUM_THREADS": str(setting.threads), "TORCHINDUCTOR_COMPILE_THREADS": str(setting.threads)}
        environment = os.environ | threads | {"TORCHINDUCTOR_CACHE_DIR": cache}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"no speed is printed: {kind}, {title(asdict(cell))} failed (above)")
    return json.loads(done.stdout.splitlines()[-1]) | {"cell": title(asdict(cell))}


def title(cell: dict) -> str:
    """A cell in words.

    >>> title({"depth": 2, "chunk": 64, "heads": 1, "width": 128})
    'depth 2, chunk 64, 1 x 128'
    """
    return "depth {depth}, chunk {chunk}, {heads} x {width}".format(**cell)


def line(result: dict) -> str:
    """A result as a row of the table."""
    error = "other" if result["error"] is None else f"{result['error']:.0e}"
    share = "" if result["of_products"] is None else f"{result['of_products']:.0%}"
    return (
        f"  {result['kind']:22}{result['batch'] * result['tokens']:8}{result['forward_rate']:10,.0f}"
        f"{result['rate']:10,.0f}{result['peak_bytes'] / 1e6:8,.0f}{error:>10}{share:>10}"
    )


def goals(results: list[dict]) -> list[str]:
    """What was asked of the layer, projections included, and whether it was reached; a line for each cell and layer."""
    lines = []
    for ours in results:
        if not ours["kind"].startswith("layer"):
            continue
        beside = {each["kind"]: each["rate"] for each in results if each["cell"] == ours["cell"]}
        said = []
        for kind, least in zip(PEERS, (50, 2), strict=True):
            if kind in beside:
                times = ours["rate"] / beside[kind]
                said.append(f"{times:.1f} x {kind} ({verdict(times, least)} {least})")
        if ours["width"] >= 128 and ours["chunk"] == 64 and ours["of_products"] is not None:  # compiled: not counted
            said.append(f"{ours['of_products']:.0%} products ({verdict(ours['of_products'], 0.5)} 50%)")
        lines += [f"  {ours['cell']}, {ours['kind']}: {', '.join(said)}"] if said else []
    return lines


def verdict(value: float, least: float) -> str:
    """Whether a goal is met."""
    return "met: >=" if value >= least else "missed: >="


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, compiled by aot_eager")
    parser.add_argument("--only", default="", help="kinds of rows whose name holds this")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    parser.add_argument("--device", default="cpu", help="default cpu")
    for name in ("depths", "chunks", "heads", "widths"):
        parser.add_argument(f"--{name}", type=int, nargs="+", help="a grid of one's own; what is left out stays usual")
    parser.add_argument("--threads", type=int, default=1, help="default 1")
    return parser.parse_args()


def main() -> None:
    """Measures row by row and prints each as it comes."""
    given = options()
    setting = replace(QUICK if given.quick else Setting(), threads=given.threads)
    jobs, results = jobs_of(given), []
    print(f"{setting}\ntorch {torch.__version__}, {platform.machine()}, {given.device}")
    if not installed():
        jobs = [(kind, cell) for kind, cell in jobs if kind not in PEERS]
        print(f"titans-pytorch is not installed: its rows are left out ({INSTALL})")
    print(f"\n{HEADER}")
    for kind, cell in jobs:
        results.append(measured(kind, cell, setting))
        if len(results) == 1 or results[-1]["cell"] != results[-2]["cell"]:
            print(results[-1]["cell"])
        print(line(results[-1]), flush=True)
        if given.json:
            given.json.write_text(json.dumps({"setting": asdict(setting), "rows": results}, indent=1) + "\n")
    print(f"\n{FOOT}")
    if not given.quick:
        print("\n".join(["\nThe goals, of the layer:", *goals(results)]))


if __name__ == "__main__":
    main()
