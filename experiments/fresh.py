"""Every shipped checkpoint on test draws that no recipe was ever chosen by.

    python experiments/fresh.py              # a minute or two a checkpoint, on one core
    python experiments/fresh.py --names tokens-n1 tokens-n2

5,000 contexts of the test split, drawn with a seed that is raised whenever a recipe changes after its draws were seen
(the cells' own are seed 1; seed 2 had been seen before the last recipes of N2, seed 3 before those of RMT4, seed 4
before those of PRMT4). A row says its seed, and stays as long as its checkpoint does. fresh.json.
"""

import argparse
import json
from pathlib import Path

import torch
from study import known

from ttmem.checkpoint import replace_file
from ttmem.evals import evaluate
from ttmem.zoo import NAMES, load

SAMPLES, SEED = 5000, 5
PATH = Path(__file__).parent / "fresh.json"


def asked(name: str) -> dict:
    """The row of one checkpoint, on the set it was trained for."""
    loaded = load(name)
    report = evaluate(loaded.model, loaded.make_task(), samples=SAMPLES, seed=SEED)
    kept = ("exact_match", "interval", "exact_match_reset")
    row = {"checkpoint": name, "fingerprint": loaded.fingerprint, "samples": SAMPLES, "seed": SEED}
    return row | {key: getattr(report, key) for key in kept}


def current() -> dict[str, dict]:
    """The rows of today's checkpoints."""
    shipped = {name: load(name).fingerprint for name in NAMES}
    return {row["checkpoint"]: row for row in known(PATH) if shipped.get(row["checkpoint"]) == row["fingerprint"]}


def main() -> None:
    """Ask what was not asked yet, keep what is still true of the shipped checkpoints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--names", nargs="*", default=list(NAMES))
    names = parser.parse_args().names
    torch.set_num_threads(1)
    for name in names:
        if name not in current():
            row = asked(name)
            kept = current() | {name: row}  # read now: others may have written meanwhile
            replace_file(PATH, (json.dumps([kept[each] for each in NAMES if each in kept], indent=1) + "\n").encode())
            print(f"{name}: {row['exact_match']:.4f}, reset {row['exact_match_reset']:.4f}", flush=True)


if __name__ == "__main__":
    main()
