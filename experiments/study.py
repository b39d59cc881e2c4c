"""What all studies share: train variants seed by seed, keep a row each, draw the picture.

A study is a table of variants (a config each), one task, one outer loop, and a measure of the trained model. Rows
go to NAME.json beside the study, the picture to NAME.png. A run that was stopped goes on; a finished one is not done
again, and a row whose recipe has changed is dropped.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ttmem.checkpoint import read_file, replace_file
from ttmem.evals import wilson
from ttmem.models import Config
from ttmem.training import Experiment, Result, Stage, TrainConfig, train
from ttmem.training.state import FORMAT
from ttmem.zoo import load

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Study:
    """One question asked of several models."""

    name: str
    task: str
    variants: dict[str, Config]
    train: TrainConfig
    measure: Callable[[Any], dict]
    draw: Callable[[list[dict], Path], None]
    stages: tuple[Stage, ...] = ()
    own: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Fields of `train` that a variant has otherwise; `{seed}` in `start_from` is the run's own."""
    curricula: Mapping[str, tuple[Stage, ...]] = field(default_factory=dict)
    """Stages that a variant has otherwise; the last of them is its task."""

    def experiment(self, variant: str, seed: int) -> Experiment:
        """One run."""
        settings = replace(self.train, seed=seed, **self.own.get(variant, {}))
        settings = replace(settings, start_from=settings.start_from and settings.start_from.format(seed=seed))
        stages, task = self.stages, self.task
        if variant in self.curricula:
            stages = self.curricula[variant]
            task = stages[-1].task
        return Experiment(f"{self.name}-{variant}", task, self.variants[variant], stages, settings)

    def run(self, variant: str, seed: int, runs: Path) -> None:
        """Train and measure, unless that is done."""
        out, experiment = runs / f"{self.name}-{variant}-{seed}", self.experiment(variant, seed)
        if done(out / "row.json", recipe(experiment)):
            return
        result = trained(experiment, out)
        loaded = load(out / "model.safetensors")
        row = {
            "variant": variant,
            "seed": seed,
            "recipe": recipe(experiment),
            "parameters": sum(p.numel() for p in loaded.model.parameters()),
        }
        row |= cost(result)
        keep(out / "row.json", row | self.measure(loaded.model))

    def collect(self, runs: Path) -> list[dict]:
        """All rows of today's recipes, those of `runs` before those known."""
        path = HERE / f"{self.name}.json"
        here = [json.loads(found.read_text()) for found in sorted(runs.glob(f"{self.name}-*/row.json"))]
        found = [row for row in [*known(path), *here] if row["variant"] in self.variants]
        found = [row for row in found if row["recipe"] == recipe(self.experiment(row["variant"], row["seed"]))]
        kept = [row for _, row in sorted({(row["variant"], row["seed"]): row for row in found}.items())]
        keep_all(path, kept)
        return kept


def done(path: Path, asked: str) -> bool:
    """Whether a run's row is there; one of another recipe stops here, and is not trained over."""
    if not path.is_file():
        return False
    if json.loads(path.read_text())["recipe"] != asked:
        raise SystemExit(f"{path.parent} holds a run of another recipe: move it away, or give --runs another folder")
    return True


def known(path: Path) -> list[dict]:
    """The rows of a study's file, where there is one."""
    return json.loads(path.read_text()) if path.is_file() else []


def keep(path: Path, row: dict) -> None:
    """Write a row, whole or not at all."""
    replace_file(path, (json.dumps(row, indent=1) + "\n").encode())


def keep_all(path: Path, rows: list[dict]) -> None:
    """Write a study's file, a line a row, as some are long."""
    replace_file(path, ("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n").encode())


def trained(experiment: Experiment, out: Path) -> Result:
    """Train to the end; a run that was stopped leaves with one line and goes on the next time.

    One of another number of steps does not: its step size has already followed that number.
    """
    try:
        state = out / "state.safetensors"
        steps = read_file(state, FORMAT)[1]["experiment"]["train"]["steps"] if state.is_file() else None
        if steps not in (None, experiment.train.steps):
            mend = "move it away, or give --runs another folder"
            raise ValueError(f"{out} holds a run of {steps} steps, not of {experiment.train.steps}: {mend}")
        result = train(experiment, out)
    except ValueError as error:  # the folder holds a run of another recipe
        raise SystemExit(str(error)) from None
    if result.stopped == "interrupted":
        raise SystemExit(f"{out} was interrupted at step {result.steps}; the same command goes on there")
    return result


def cost(result: Result) -> dict:
    """What a training took, and of what."""
    return {
        "steps": result.steps,
        "stopped": result.stopped,
        "train_minutes": round(result.seconds / 60, 2),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def accuracy_lines(
    axes: Any, places: Sequence[float], rows: list[dict], counts: Callable[[dict], list[tuple[int, int]]]
) -> None:
    """A line a variant; `counts(row)` has (right, asked) for each place.

    Of one seed with the 95 % interval of its answers; of several the mean with a thin line a seed, as these are often
    further apart than that.
    """
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [counts(row) for row in rows if row["variant"] == variant]
        seeds = [[right / asked for right, asked in found] for found in own]
        mean = [sum(found) / len(found) for found in zip(*seeds, strict=True)]
        (line,) = axes.plot(places, mean, marker="o", label=f"{variant} ({len(own)})")
        if len(own) == 1:
            low, high = zip(*(wilson(*found) for found in own[0]), strict=True)
            axes.fill_between(places, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        for found in seeds if len(own) > 1 else ():
            axes.plot(places, found, color=line.get_color(), alpha=0.4, linewidth=0.9)


def recipe(experiment: Experiment) -> str:
    """A digest of everything in an experiment that can change its numbers but the seed; what is at its default is left
    out, so that a new field with a default changes no digest."""
    said = {"task": experiment.task, "model": changed(experiment.model)}
    said["train"] = changed(replace(experiment.train, seed=0))
    said["stages"] = [changed(stage) for stage in experiment.stages]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def changed(config: Any) -> dict[str, Any]:
    """The fields of a config that differ from their defaults."""
    found = {
        each.name: getattr(config, each.name) for each in fields(config) if getattr(config, each.name) != each.default
    }
    return {name: asdict(value) if is_dataclass(value) else value for name, value in found.items()}


def main(studies: Mapping[str, Study | Callable[[], Study]], told: str | None = None) -> None:
    """The command line of a study file, `told` its docstring; what makes a study that needs data is called when that
    one is asked for."""
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=list(studies), default=next(iter(studies)))
    parser.add_argument("--variants", nargs="*", default=None, help="default: all")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--table", action="store_true", help="train nothing; collect and draw")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study = made(studies[asked.study])
    unknown = [each for each in asked.variants or () if each not in study.variants]
    if unknown:
        parser.error(f"--variants must be of {', '.join(study.variants)}, got {unknown[0]!r}")
    for seed in [] if asked.table else asked.seeds:
        for variant in asked.variants or study.variants:
            study.run(variant, seed, asked.runs)
    rows = study.collect(asked.runs)
    if rows:
        study.draw(rows, HERE / f"{study.name}.png")


def made(study: Study | Callable[[], Study]) -> Study:
    """The study, or one line where its data are not there."""
    try:
        found = study if isinstance(study, Study) else study()
        found.experiment(next(iter(found.variants)), 0)
        return found
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(str(error)) from None
