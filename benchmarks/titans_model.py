"""Whole Titans language models beside an equally large Llama, in one run: training steps, decoding, memory.

    python benchmarks/titans_model.py                                    170M; the long contexts take hours on one core
    python benchmarks/titans_model.py --quick                            tiny shapes, to see that it works (a minute)
    python benchmarks/titans_model.py --only training --tokens 512       one kind of row
    python benchmarks/titans_model.py --architectures lmm mac --contexts 1024 4096
    python benchmarks/titans_model.py --json out.json                    the numbers as JSON too
    python benchmarks/titans_model.py --read out.json --plot out.png     a picture of decoding, nothing measured

The peer is LlamaForCausalLM of transformers: width, blocks, heads and vocabulary of the preset, the hidden width that
brings it to the size of the first architecture asked for, random weights, sdpa attention. Without transformers its
rows are left out. All run in float32 on the CPU, on the same random tokens, each in a process of its own. No speed is
printed of what breaks a law (`titans_model_row.py`).

    training   forward and backward of the next-token loss; blocks are computed again in backward as the preset says,
               in the Llama too; `--no-checkpoint`: in neither
    decoding   one token at a time, behind a context that was read in pieces. The Llama's cache is that of transformers
               (DynamicCache); contexts whose cache would pass 4 GB, or take over a minute to fill, are left out
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from titans_cell import Setting
from titans_model_row import KINDS, LLAMA, Cell

from ttmem.models import MIXERS, PRESETS

HEADERS = {
    "training": f"{'':10}{'tokens':>8}{'tokens/s':>10}{'MB':>8}{'parameters':>14}",
    "decoding": f"{'':10}{'read':>8}{'tokens/s':>10}{'MB':>8}{'parameters':>14}{'error':>10}",
}
FOOT = """\
tokens/s: by the least CPU time (more threads: wall). MB: of a training step, its peak beyond what was held before it,
gradients included; of decoding, the bytes of the state. error: largest difference of the logits of 64 one-token steps
from those of one pass behind the same context, as a part of the largest."""
TINY = Cell(preset="tiny", tokens=64, contexts=(64, 256))
USUAL = Setting(repeats=3, seconds=30.0)
QUICK = Setting(repeats=2, seconds=0.5)


def jobs_of(given: argparse.Namespace) -> list[tuple[str, Cell]]:
    """The rows that the command line asks for."""
    asked = {"preset": given.preset, "tokens": given.tokens, "contexts": given.contexts, "fill_seconds": given.fill}
    base = TINY if given.quick else Cell()
    base = replace(base, **{name: value for name, value in asked.items() if value is not None})
    base = replace(base, like=given.architectures[0], batch=given.batch, checkpoint=given.checkpoint)
    names = [*given.architectures, LLAMA]
    if not find_spec("transformers"):
        names.pop()
        print('transformers is not installed: the Llama is left out (pip install -e ".[bench]")')
    return [(kind, replace(base, name=name)) for kind in KINDS if given.only in kind for name in names]


def measured(kind: str, cell: Cell, setting: Setting) -> Iterator[dict]:
    """The row's results as they come, from a fresh process; SystemExit if it breaks a law."""
    job = json.dumps({"kind": kind, "cell": asdict(cell), "setting": asdict(setting)})
    command = [sys.executable, str(Path(__file__).with_name("titans_model_row.py")), job]
    environment = os.environ | {"OMP_NUM_THREADS": str(setting.threads)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for found in process.stdout:
            yield json.loads(found)
    if process.returncode:
        sys.exit(f"no speed is printed: {kind}, {cell.name} failed (above)")


def line(result: dict) -> str:
    """A result as a row of the table."""
    training = result["kind"] == "training"
    start = f"  {result['name']:8}{result['tokens' if training else 'context']:8}"
    if "left_out" in result:
        return f"{start}  {result['left_out']}"
    held = result["peak_bytes" if training else "state_bytes"]
    end = "" if training else f"{result['error']:10.0e}"
    return f"{start}{result['rate']:10,.1f}{held / 1e6:8,.1f}{result['parameters']:14,}{end}"


def compared(results: list[dict]) -> list[str]:
    """What the table says: each model's training beside the Llama's, and its decoding behind the longest context."""
    rates = {(each["kind"], each["name"], each.get("context")): each["rate"] for each in results if "rate" in each}
    lines, peer = [], rates.get(("training", LLAMA, None))
    for (kind, name, _), rate in rates.items():
        if kind == "training" and peer and name != LLAMA:
            lines.append(f"  {name} trains at {rate / peer:.2f} x the speed of the Llama")
    for name in dict.fromkeys(name for kind, name, _ in rates if kind == "decoding"):
        behind = sorted(context for kind, found, context in rates if (kind, found) == ("decoding", name))
        first, last = (rates["decoding", name, behind[i]] for i in (0, -1))
        if len(behind) > 1:
            lines.append(
                f"  {name} decodes at {last / first:.2f} x the speed behind {behind[-1]} as behind {behind[0]}"
            )
    return lines


def positive(text: str) -> int:
    """A number of tokens."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny shapes")
    parser.add_argument("--only", default="", choices=list(KINDS), help="one kind of row")
    parser.add_argument("--preset", choices=list(PRESETS), help="default 170M")
    parser.add_argument("--architectures", nargs="+", choices=list(MIXERS), default=["lmm", "mac", "mag", "mal"])
    parser.add_argument("--contexts", type=positive, nargs="+", help="tokens read before decoding")
    parser.add_argument("--batch", type=positive, default=1, help="default 1")
    parser.add_argument("--tokens", type=positive, help="of a training step's rows; default 1024")
    parser.add_argument("--no-checkpoint", dest="checkpoint", action="store_false", help="compute no blocks again")
    parser.add_argument("--fill", type=float, help="seconds that filling the Llama's cache may take; default 60")
    parser.add_argument("--threads", type=positive, default=1, help="default 1")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    parser.add_argument("--plot", type=Path, help="leave a picture of decoding here")
    parser.add_argument("--read", type=Path, help="measure nothing: take the numbers of a --json file")
    return parser.parse_args()


def draw(results: list[dict], path: Path) -> None:
    """Tokens a second of one-token steps against what was read before, a line a model."""
    from ttmem.evals.plots import pyplot

    rows = [each for each in results if each["kind"] == "decoding" and "rate" in each]
    figure, axes = pyplot().subplots(figsize=(6.5, 3.8), layout="constrained")
    for name in dict.fromkeys(each["name"] for each in rows):
        own = [(each["context"], each["rate"]) for each in rows if each["name"] == name]
        axes.plot(*zip(*own, strict=True), marker="o", label=name, linestyle="--" if name == LLAMA else "-")
    contexts = sorted({each["context"] for each in rows})
    axes.set(xscale="log", yscale="log", xlabel="tokens read before", ylabel="tokens a second, one at a time")
    axes.set_xticks(contexts, [f"{context:,}" for context in contexts])
    axes.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measures row by row and prints each as it comes."""
    given = options()
    if given.read:
        return draw(json.loads(given.read.read_text())["rows"], given.plot or given.read.with_suffix(".png"))
    setting, results = replace(QUICK if given.quick else USUAL, threads=given.threads), []
    jobs = jobs_of(given)
    first = jobs[0][1]
    print(f"{first.preset}, {first.batch} x {first.tokens}, blocks computed again: {first.config().checkpoint}")
    print(f"{setting}\ntorch {torch.__version__}, {platform.machine()}")
    for kind, cell in jobs:
        for found in measured(kind, cell, setting):
            if not results or results[-1]["kind"] != kind:
                print(f"\n{kind}\n{HEADERS[kind]}")
            results.append(found)
            print(line(found), flush=True)
            if given.json:
                said = {"setting": asdict(setting), "cell": asdict(first), "rows": results}
                given.json.write_text(json.dumps(said, indent=1) + "\n")
    print("\n".join([f"\n{FOOT}\n", *compared(results)]))
    if given.plot:
        draw(results, given.plot)


if __name__ == "__main__":
    main()
