"""`ttmem curve`: what several memories hold, against what they cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from .base import Command, at_least_one, columns, unset
from .evaluate import drawable, placed

if TYPE_CHECKING:
    from ..evals import Point
    from ..zoo import Loaded


@dataclass(frozen=True, kw_only=True)
class Curve(Command):
    """Exact match of several checkpoints on one task, against bytes of memory, write steps and seconds to write."""

    checkpoints: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT ...")]
    """Files, or names of shipped checkpoints; those of one name (seeds of one experiment) are pooled."""
    task: Annotated[str | None, unset("NAME")] = None
    """Such as N8-K2V2-V62; by default the task of the first checkpoint."""
    steps: Annotated[tuple[int, ...], tyro.conf.arg(metavar="K ...")] = (1, 2, 3, 5, 8)
    """Write steps, for memories that are written by gradient steps."""
    samples: int = 2_000
    """Contexts for each point, with one question each."""
    seed: int = 1
    """Of the test split."""
    plot: Annotated[Path | None, unset("PATH")] = None
    """Where to leave the picture (.png, .svg, .pdf)."""
    device: str = "cpu"
    """Such as cuda."""

    def run(self) -> None:
        if not self.checkpoints:
            raise ValueError("CHECKPOINT is missing: name one or more, as in ttmem curve tokens-n2 neural-memory-n2")
        if not self.steps:
            raise ValueError("--steps needs one number or more, as in --steps 1 2 4")
        at_least_one(samples=self.samples)
        for count in self.steps:
            at_least_one(steps=count)
        drawable(self.plot)
        task, points = self.measured()
        self.tell({"task": task, "points": [point.as_dict() for point in points]}, table(points))
        if self.plot:  # last: what was measured is told, whatever becomes of the picture
            from ..evals.plots import capacity_image

            capacity_image(self.plot, points, task)

    def measured(self) -> tuple[str, list["Point"]]:
        """The task's name, and the points of all checkpoints."""
        from ..evals.capacity import measure, pooled
        from ..zoo import load

        loaded = [load(where) for where in self.checkpoints]
        check_different(loaded)
        task = loaded[0].make_task(self.task)
        points = [
            point
            for each, name in zip(loaded, titles(loaded), strict=True)
            for point in measure(
                name,
                placed(each.model, self.device),
                task,
                self.steps,
                self.samples,
                self.seed,
            )
        ]
        return task.name, pooled(points)


def titles(loaded: list["Loaded"]) -> list[str]:
    """How the memories are called: by the experiment's name, and by the file where runs of one name differ.

    Points of one title are pooled, and only seeds of one experiment may be.
    """
    names = [str(each.facts.get("name", each.name)) for each in loaded]
    recipes: dict[str, list[dict[str, Any]]] = {}
    for each, name in zip(loaded, names, strict=True):
        recipes.setdefault(name, []).append(recipe(each))
    alike = {name: all(each == found[0] for each in found) for name, found in recipes.items()}
    return [name if alike[name] else f"{name} ({each.path})" for each, name in zip(loaded, names, strict=True)]


def recipe(loaded: "Loaded") -> dict[str, Any]:
    """What a model was made by, whatever the seed and the run it went on from."""
    experiment = dict(loaded.facts.get("experiment") or {})
    train = {name: value for name, value in experiment.pop("train", {}).items() if name not in ("seed", "start_from")}
    return {"model": loaded.config, "task": loaded.facts.get("task"), "experiment": experiment, "train": train}


def check_different(loaded: list["Loaded"]) -> None:
    """Raise ValueError for one model named twice: pooled, its answers would count twice, and look surer than they are.

    Files are one model where their weights are the same, wherever they lie.
    """
    seen: dict[str, Path] = {}
    for each in loaded:
        if each.fingerprint in seen:
            raise ValueError(f"CHECKPOINT {each.path} is the model of {seen[each.fingerprint]}: name it once")
        seen[each.fingerprint] = each.path


def table(points: list[Any]) -> str:
    """The points for people."""
    rows = [["memory", "steps", "exact match", "95 %", "reset", "bytes", "ms to write"]]
    for p in points:
        low, high = p.interval
        cells = [p.name, "-" if p.steps is None else str(p.steps), f"{p.exact_match:.4f}", f"{low:.4f} to {high:.4f}"]
        rows.append([*cells, f"{p.exact_match_reset:.4f}", f"{p.memory_bytes:,}", f"{1e3 * p.write_seconds:.2f}"])
    return columns(rows)
