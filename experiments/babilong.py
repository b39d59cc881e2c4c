"""BABILong: facts of bAbI in books, trained on up to 512 tokens (one variant: 4k), asked in up to 64k.

    TTMEM_DATA=DATA python experiments/babilong.py --study qa1 --seeds 0 1 2     # DATA holds babi/ and gutenberg/
    TTMEM_DATA=DATA python experiments/babilong.py --study qa1 --table

ARMT, PRMT4, RMT4 and Titans (MAC, LMM; linear memories), all small, with a token a word. The way there is BABILong's:
facts alone, then contexts of twice the length again and again. "prmt4 to 4k" goes on like this up to 4,096 tokens,
with the outer gradient through the last eight segments of 64 (`truncate`). "rmt4 addresses" finds its memory by
learned addresses; "rmt4" finds it by what it holds, and its outer gradient explodes on QA5 and QA2 (LOG.md). "rmt4
addresses on" goes on from the run of "rmt4 addresses" of its seed, in runs/ (so no --runs, and that variant first),
for 1,300 steps. The context is read once, then gone; the question is asked of the state alone. Accuracy (exact match)
on the test split, stories and books of its own, with 95 % intervals over samples (of several seeds a line each), and
with the memory reset: what the question alone gives away.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import study
from torch import nn

from ttmem.evals import evaluate
from ttmem.evals.plots import pyplot
from ttmem.models import Config, LayeredConfig, ModelConfig, TitansConfig
from ttmem.tasks import BabiLong, make_task
from ttmem.training import Stage, TrainConfig

SEGMENT, TRAINED = 64, "512"
CONV = 8
"""Kernel of the short convolutions: a place stands five or six words behind its person. With 4, PRMT4 names
any place that was told for 1,000 steps and more, with 8 for 350 (LOG.md)."""
SAMPLES = {"0k": 500, "512": 500, "1k": 250, "2k": 250, "4k": 100, "8k": 100, "16k": 50, "32k": 25, "64k": 25}
"""Contexts of each length on which a model is tested."""
ROWS = 25
"""Contexts that are read side by side in the test."""
TOKENS = 2**14
"""Tokens that are read at once in the test: each of them makes logits of the whole vocabulary."""
VOCAB, PAD = BabiLong.vocab, BabiLong.pad
ARMT = LayeredConfig("armt", vocab=VOCAB, dim=64, layers=3, conv=CONV, separator=None, segment_size=SEGMENT, pad=PAD)
VARIANTS: dict[str, Config] = {
    "armt": ARMT,
    "prmt4": replace(ARMT, architecture="prmt4", memory_heads=1, bound="overlap"),
}
VARIANTS["rmt4"] = ModelConfig(
    vocab=VOCAB, dim=64, layers=3, conv=CONV, memory="rmt4", slots=16, weigh=True, separator=None, segment_size=SEGMENT
)
VARIANTS["rmt4 addresses"] = replace(VARIANTS["rmt4"], addresses="learned")
ON = "rmt4 addresses on"
VARIANTS[ON] = VARIANTS["rmt4 addresses"]
for name in ("mac", "lmm"):
    VARIANTS[name] = TitansConfig(
        name,
        vocab=VOCAB,
        dim=64,
        layers=3,
        heads=2,
        conv=CONV,
        memory_depth=1,
        segment_size=SEGMENT,
        recompute=False,
        pad=PAD,
    )
LONG = "prmt4 to 4k"
VARIANTS[LONG] = replace(VARIANTS["prmt4"], truncate=8)
TRAIN = TrainConfig(
    steps=2000, batch=16, queries=4, muon_lr=0.02, warmup=100, decay=0.3, floor=0.01, eval_every=250, eval_samples=100
)


def stages(kind: str) -> tuple[Stage, ...]:
    """Facts alone until they are known, then ever more of the books around them; the last length stays until the steps
    are used up."""
    before = [Stage(f"babilong:{kind}:0k", threshold=0.9, max_steps=1000)]
    before += [Stage(f"babilong:{kind}:{length}", threshold=0.9, max_steps=300) for length in ("128", "256")]
    return (*before, Stage(f"babilong:{kind}:{TRAINED}", rehearsal=0.2))


def longer(kind: str) -> tuple[Stage, ...]:
    """The same, with `TRAINED` left after its share of the steps, up to eight times that length."""
    *before, last = stages(kind)
    more = [Stage(f"babilong:{kind}:{length}", threshold=0.95, max_steps=250, rehearsal=0.2) for length in ("1k", "2k")]
    return (*before, replace(last, threshold=0.95, max_steps=600), *more, Stage(f"babilong:{kind}:4k", rehearsal=0.4))


def further(kind: str) -> tuple[Stage, ...]:
    """For weights that know the way: 128 tokens again, then all of them."""
    return (
        Stage(f"babilong:{kind}:128", threshold=0.9, max_steps=500),
        Stage(f"babilong:{kind}:{TRAINED}", rehearsal=0.3),
    )


class InPieces(nn.Module):
    """A model that reads long contexts a piece of whole segments after the other, which gives the same memory."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        self.start, self.read = model.start, model.read

    def write(self, state: Any, context: Any, steps: None = None) -> Any:
        """The memory behind the context, and the log of its last piece."""
        size = max(TOKENS // len(context) // SEGMENT, 1) * SEGMENT
        *before, last = context.split(size, dim=1)
        write = getattr(self.model, "behind", self.model.write)  # as `write`, without the logits of its losses
        for piece in before:
            state, *_ = write(state, piece)
        return self.model.write(state, last, steps)


def measure(kind: str) -> Any:
    """Accuracy at every length."""

    def ask(model: Any) -> dict:
        found = {}
        for length, samples in SAMPLES.items():
            task = make_task(f"babilong:{kind}:{length}")
            reports = [evaluate(InPieces(model), task, ROWS, seed) for seed in range(1, samples // ROWS + 1)]
            right = sum(round(report.exact_match * ROWS) for report in reports)
            reset = sum(report.exact_match_reset for report in reports) / len(reports)
            found[length] = {"right": right, "samples": samples, "exact_match": right / samples, "reset": reset}
        return {"lengths": found, "state_bytes": reports[0].memory_bytes}

    return ask


def counts(row: dict) -> list[tuple[int, int]]:
    """Of a row the right answers and the questions at each length."""
    return [(row["lengths"][n]["right"], row["lengths"][n]["samples"]) for n in SAMPLES]


def draw(rows: list[dict], path: Path) -> None:
    """Accuracy against length, one line a variant."""
    figure, axes = pyplot().subplots(figsize=(9, 4.2), layout="constrained")
    places = list(range(len(SAMPLES)))
    study.accuracy_lines(axes, places, rows, counts)
    reset = [row["lengths"][n]["reset"] for row in rows for n in SAMPLES]
    axes.axhline(sum(reset) / len(reset), color="0.5", linewidth=0.8, linestyle=":", label="memory reset (all)")
    axes.axvline(list(SAMPLES).index(TRAINED), color="0.6", linewidth=0.8, linestyle="--")
    axes.set_xticks(places, list(SAMPLES))
    axes.set(xlabel="context, tokens (trained up to the dashed line)", ylabel="accuracy, test", ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    figure.legend(frameon=False, title="model (seeds)", loc="outside right upper")
    figure.savefig(path, dpi=150)


OWN: dict[str, dict[str, Any]] = {name: {"muon_lr": 0.005} for name in VARIANTS if name.startswith("rmt4")}
"""RMT4's chained writes diverge at .01 (LOG.md)."""
OWN[LONG] = {"steps": 2800}
OWN[ON] = {"muon_lr": 0.003, "steps": 1300, "decay": 0.4}


def facts(kind: str) -> study.Study:
    """The study of one kind of question."""
    start = f"runs/babilong_{kind}-rmt4 addresses-{{seed}}/model.safetensors"
    own = OWN | {ON: OWN[ON] | {"start_from": start}}
    curricula = {LONG: longer(kind), ON: further(kind)}
    task, way = f"babilong:{kind}:{TRAINED}", stages(kind)
    return study.Study(f"babilong_{kind}", task, VARIANTS, TRAIN, measure(kind), draw, way, own, curricula)


STUDIES = {kind: facts(kind) for kind in ("qa1", "qa2", "qa4", "qa5")}

if __name__ == "__main__":
    study.main(STUDIES, __doc__)
