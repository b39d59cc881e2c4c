"""One model, two walks over its (segment, layer) grid: where grouped calls beat one call per cell, and where they stop.

    python benchmarks/diagonal.py                     the table, diagonal.json and diagonal.png (half an hour, one core)
    python benchmarks/diagonal.py --quick             a few small cells, to see that it works
    python benchmarks/diagonal.py --kinds prmt4 --segments 2 64 --sizes 32 1024
    python benchmarks/diagonal.py --device cuda       or --threads 2; both are timed by wall clock
    python benchmarks/diagonal.py --device cuda --shape llama-1b --kinds armt --segments 8 32 128 --sizes 1024 --out gpu

ARMT, PRMT4 and a Titans LMM of 8 layers, width 64, batch 1 (`--dim`, `--batch`), or in the shape of LLaMA-1B (16
layers, width 2,048, 32 heads, feed-forward 8,192, bfloat16): training (forward and backward of the language-model loss,
up to 8,192 tokens) and prefill (forward alone), over 2 to 64 segments of 32 to 1024 tokens. Before anything is timed,
losses and gradients of both walks must be equal to 1e-10 in float64. The walks take turns, so that they see the same
load; the least time counts, CPU time on one thread.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from one_row import LawBroken, clock, summary
from torch import Tensor, nn

from ttmem.evals.plots import pyplot
from ttmem.models import LayeredConfig, Titans, build, preset
from ttmem.models.lmm_stack import walk

HERE = Path(__file__).parent
KINDS = ("armt", "prmt4", "lmm")
WALKS = ("sequential", "diagonal")
HEADER = f"{'':8}{'tokens':>8}{'segments':>10}{'training, ms':>36}{'prefill, ms':>36}"
Walk = Callable[[str], Tensor]
SHAPES: dict[str, dict] = {
    "small": {},
    "llama-1b": {"layers": 16, "dim": 2048, "heads": 32, "hidden": 8192, "dtype": "bfloat16"},
}
TOLERANCE = {"float32": 0.05, "bfloat16": 0.3}
"""Of gradients: what rounding grows to over the segments. In float64 the two walks agree to 1e-10."""


@dataclass(frozen=True)
class Setting:
    """What all cells share: the model's shape, and how it is timed."""

    layers: int = 8
    dim: int = 64
    heads: int = 4
    hidden: int | None = None
    dtype: str = "float32"
    batch: int = 1
    repeats: int = 5
    seconds: float = 3.0
    most: int = 8_192
    device: str = "cpu"
    threads: int = 1


def make(kind: str, size: int, setting: Setting) -> nn.Module:
    """The model, whose segments have `size` tokens."""
    shape = {"layers": setting.layers, "dim": setting.dim, "heads": setting.heads, "vocab": 70, "pad": 0}
    shape["hidden"] = setting.hidden
    if kind == "lmm":
        config = preset("tiny", "lmm", chunk_size=min(size, 32), memory_depth=1, **shape)
    else:
        config = LayeredConfig(kind, separator=None, segment_size=size, **shape)
    return build(config, seed=0).to(setting.device, getattr(torch, setting.dtype))


def loss_of(model: nn.Module, ids: Tensor, size: int) -> Walk:
    """The language-model loss of a text by one of the walks: nats per token, of all tokens but each segment's first."""

    def of_titans(schedule: str) -> Tensor:
        hidden, _ = walk(model, ids, segment=size, schedule=schedule)
        logits = model.logits(hidden).unflatten(1, (-1, size))[:, :, :-1]
        told = ids.unflatten(1, (-1, size))[:, :, 1:]
        return nn.functional.cross_entropy(logits.flatten(0, 2), told.flatten())

    def of_layered(schedule: str) -> Tensor:
        model.config = replace(model.config, schedule=schedule)
        return model.read_context(model.start(len(ids)), ids)[1].mean()

    return of_titans if isinstance(model, Titans) else of_layered


def text(segments: int, size: int, setting: Setting) -> Tensor:
    """Random ids."""
    ids = torch.randint(1, 70, (setting.batch, segments * size), generator=torch.Generator().manual_seed(0))
    return ids.to(setting.device)


def step_of(model: nn.Module, loss: Walk, schedule: str) -> Callable[[], list[Tensor]]:
    """Forward and backward by one of the walks: the loss and all gradients."""

    def step() -> list[Tensor]:
        model.zero_grad(set_to_none=True)
        value = loss(schedule)
        value.backward()
        return [value.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    return step


def check_same(kind: str, model: nn.Module, loss: Walk, tolerance: float) -> None:
    """The diagonal walk's loss and gradients are the sequential one's."""
    one, other = (step_of(model, loss, schedule)() for schedule in WALKS)
    for a, b in zip(one, other, strict=True):
        if not (a - b).norm() <= tolerance * (a.norm() + 1e-3):
            raise LawBroken(f"{kind}: diagonal is {float((a - b).norm() / a.norm()):.0e} off sequential")


def check_laws(kinds: list[str]) -> None:
    """In float64, on a small model of each kind, to 1e-10."""
    small = Setting(layers=3, dim=16, heads=2, batch=2)
    for kind in kinds:
        model = make(kind, 8, small).double()
        check_same(kind, model, loss_of(model, text(5, 8, small), 8), 1e-10)


def timed(steps: dict[str, Callable[[], object]], setting: Setting) -> dict[str, dict[str, float]]:
    """Seconds of each step; they take turns."""
    seconds: dict[str, list[tuple[float, float]]] = {
        name: [clock(step, setting.device)] for name, step in steps.items()
    }
    first = sum(times[0][0] for times in seconds.values())
    for _ in range(max(1, min(setting.repeats, int(setting.seconds / first)))):
        for name, step in steps.items():
            seconds[name].append(clock(step, setting.device))
    return {name: summary(times[1:]) for name, times in seconds.items()}


def measured(kind: str, segments: int, size: int, setting: Setting) -> dict:
    """Everything the table says of a cell; training is left out where its activations would not fit."""
    model = make(kind, size, setting)
    loss = loss_of(model, text(segments, size, setting), size)
    row = {"kind": kind, "segments": segments, "size": size}
    steady = "cpu_min" if setting.device == "cpu" and setting.threads == 1 else "wall_min"
    with torch.no_grad():
        found = {"prefill": timed({name: lambda name=name: loss(name) for name in WALKS}, setting)}
    if segments * size * setting.batch <= setting.most:
        check_same(kind, model, loss, TOLERANCE[setting.dtype])
        found["training"] = timed({name: step_of(model, loss, name) for name in WALKS}, setting)
    for what, times in found.items():
        one, other = (times[name][steady] for name in WALKS)
        row[what] = {"sequential": one, "diagonal": other, "times": one / other}
    return row


def line(row: dict) -> str:
    """A cell as a row of the table.

    >>> line({"kind": "armt", "segments": 2, "size": 32, "prefill": {"sequential": 2.0, "diagonal": 1.0, "times": 2.0}})
    'armt          32         2                            left out          2000.0 ->   1000.0  2.00 x'
    """
    said = f"{row['kind']:8}{row['size']:8}{row['segments']:10}"
    for what in ("training", "prefill"):
        part = row.get(what)
        told = part and f"{part['sequential'] * 1e3:.1f} ->{part['diagonal'] * 1e3:9.1f}{part['times']:6.2f} x"
        said += f"{told or 'left out':>36}"
    return said


def picture(rows: list[dict], setting: Setting, path: Path) -> None:
    """How many times faster, against the segment's size; a line for each number of segments."""
    kinds, parts = list(dict.fromkeys(row["kind"] for row in rows)), ("training", "prefill")
    figure, axes = pyplot().subplots(
        2, len(kinds), figsize=(4 * len(kinds), 6), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for (i, part), (j, kind) in ((a, b) for a in enumerate(parts) for b in enumerate(kinds)):
        for segments in sorted({row["segments"] for row in rows}):
            own = [row for row in rows if (row["kind"], row["segments"]) == (kind, segments) and part in row]
            sizes, times = [row["size"] for row in own], [row[part]["times"] for row in own]
            axes[i][j].plot(sizes, times, marker="o", label=f"{segments} segments")
        axes[i][j].axhline(1, color="black", linewidth=1)
        axes[i][j].axhline(1.5, color="gray", linewidth=1, linestyle="--")
        axes[i][j].set(title=f"{kind}, {part}", xscale="log")
        axes[i][j].set_xticks(sorted({row["size"] for row in rows}), sorted({row["size"] for row in rows}))
        axes[i][j].minorticks_off()
        axes[i][j].grid(alpha=0.3)
    axes[0][0].set_ylim(0, 1.05 * max(row[part]["times"] for row in rows for part in parts if part in row))
    axes[0][-1].legend(loc="lower right")
    figure.supylabel("sequential / diagonal, times faster")
    figure.supxlabel(f"tokens of a segment ({setting.layers} layers, width {setting.dim}, batch {setting.batch})")
    figure.savefig(path, dpi=130)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few small cells, nothing kept unless --out is given")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--segments", type=int, nargs="+", default=[2, 8, 32, 64])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256, 512, 1024])
    for name, kind in (("dim", int), ("batch", int), ("threads", int), ("seconds", float), ("device", str)):
        parser.add_argument(f"--{name}", type=kind, default=getattr(Setting, name), help="default %(default)s")
    parser.add_argument("--shape", choices=list(SHAPES), default="small", help="llama-1b goes before --dim")
    parser.add_argument("--out", type=Path, default=None, help="folder of diagonal.json and diagonal.png")
    return parser.parse_args()


def main() -> None:
    """Laws, then cell by cell; keeps what there is after each."""
    given = options()
    setting = Setting(**{name: getattr(given, name) for name in ("dim", "batch", "threads", "seconds", "device")})
    setting = replace(setting, **SHAPES[given.shape])
    segments, sizes = ([2, 4], [8, 16]) if given.quick else (given.segments, given.sizes)
    setting = replace(setting, layers=3, dim=16, heads=2, seconds=0.05) if given.quick else setting
    out = given.out or (None if given.quick else HERE)
    torch.set_num_threads(setting.threads)
    try:
        check_laws(given.kinds)
        print(f"{setting}\ntorch {torch.__version__}, {platform.machine()}, {setting.device}\n\n{HEADER}")
        rows = []
        for kind, size, count in ((k, t, s) for k in given.kinds for t in sizes for s in segments):
            rows.append(measured(kind, count, size, setting))
            print(line(rows[-1]), flush=True)
            if out:
                said = {"setting": asdict(setting), "torch": torch.__version__, "rows": rows}
                out.mkdir(parents=True, exist_ok=True)
                (out / "diagonal.json").write_text(json.dumps(said, indent=1) + "\n")
    except LawBroken as broken:
        sys.exit(f"no speed is printed, a law is broken: {broken}")
    if out:
        picture(rows, setting, out / "diagonal.png")


if __name__ == "__main__":
    main()
