"""`ttmem eval`: how often a memory answers right."""

import json as jsonlib
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from .base import Command, at_least_one, checkpoint, lines, unset

if TYPE_CHECKING:
    from ..evals import Report

CURVE_STEPS, CURVE_SAMPLES = range(1, 31), 2_000


@dataclass(frozen=True, kw_only=True)
class Eval(Command):
    """Exact match on the test split, with a 95 % interval and the control that the memory was reset; of text, nats."""

    checkpoint: Annotated[str, tyro.conf.Positional, checkpoint()]
    """A file, or the name of a shipped checkpoint (ttmem models)."""
    task: Annotated[str | None, unset("NAME")] = None
    """Such as N2-K4V4-S2_16-32; by default the task it was trained for."""
    samples: int = 10_000
    """Contexts, or windows of a text."""
    queries: int = 1
    """Questions of each context: the published metric is one; more tell good memories apart by the same writes."""
    seed: int = 1
    """Of the test split."""
    steps: Annotated[int | None, unset("K")] = None
    """Write steps; by default as many as in training."""
    curve: bool = False
    """Also exact match against 1 to 30 write steps (one point where the write takes none), on at most 2,000 samples."""
    plot: Annotated[Path | None, unset("PATH")] = None
    """Where to leave that curve as an image (.png, .svg, .pdf); implies --curve."""
    device: str = "cpu"
    """Such as cuda."""

    def run(self) -> None:
        from ..evals import evaluate
        from ..zoo import load

        at_least_one(samples=self.samples, queries=self.queries, steps=self.steps)
        drawable(self.plot)
        loaded = load(self.checkpoint)
        task, model = loaded.make_task(self.task), placed(loaded.model, self.device)
        if getattr(task, "measure", "") == "nats":
            return self.predicted(loaded.name, model, task)
        report = evaluate(model, task, self.samples, self.seed, self.steps, queries=self.queries)
        found = {"checkpoint": loaded.name} | jsonlib.loads(report.to_json())
        reports = self.more_steps(model, task) if self.curve or self.plot else []
        if reports:
            wanted = ("steps", "exact_match", "interval", "exact_match_reset", "samples")
            found["curve"] = [{name: getattr(each, name) for name in wanted} for each in reports]
        self.tell(found, summary(report, found))
        if self.plot:  # last: what was measured is told, whatever becomes of the picture
            from ..evals.plots import curve_image

            curve_image(self.plot, reports, trained_steps(model))

    def predicted(self, name: str, model: Any, task: Any) -> None:
        """How well a text is predicted, window by window: no whole window is ever right."""
        from ..evals import nats

        if self.curve or self.plot or self.steps or self.queries > 1:
            raise ValueError(f"--curve, --plot, --steps and --queries are of exact match, and {task.name} is text")
        found = nats(model, task, self.samples, self.seed)
        asked = {"checkpoint": name, "task": task.name, "split": "test", "samples": self.samples, "seed": self.seed}
        told = {
            "checkpoint": name,
            "task": f"{task.name}, {self.samples} test windows, seed {self.seed}",
            "nats per token": f"{found:.4f}",
            "bits per token": f"{found / log(2):.4f}",
            "perplexity": f"{exp(found):.3f}",
        }
        self.tell(asked | {"nats": found, "perplexity": exp(found)}, lines(told))

    def more_steps(self, model: Any, task: Any) -> list["Report"]:
        """The curve; of one point for a model that takes no gradient steps."""
        from ..evals import evaluate

        steps = CURVE_STEPS if getattr(model, "takes_steps", False) else [None]
        samples = min(self.samples, CURVE_SAMPLES)
        return [evaluate(model, task, samples, self.seed, number, queries=self.queries) for number in steps]


def drawable(plot: Path | None) -> None:
    """Raise before the work where no picture could be left at --plot."""
    if plot is not None:
        from ..evals.plots import ready

        ready(plot)


def placed(model: Any, device: str) -> Any:
    """The model on a device; ValueError where there is no such device, or it keeps no numbers."""
    if device.split(":")[0] == "meta":
        raise ValueError("--device meta keeps no numbers: take cpu, or cuda where there is one")
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device} is not there: {error}") from error


def trained_steps(model: Any) -> int | None:
    """Write steps in training, where the model has such a number."""
    return model.config.steps if getattr(model, "takes_steps", False) else None


def summary(report: "Report", found: dict[str, Any]) -> str:
    """A report for people."""
    low, high = report.interval
    each = f" of {report.queries} questions each" if report.queries > 1 else ""
    told = {
        "checkpoint": found["checkpoint"],
        "task": f"{report.task}, {report.samples} {report.split} samples{each}, seed {report.seed}",
        "write steps": "as trained" if report.steps is None else report.steps,
        "exact match": f"{report.exact_match:.4f}  (95 %: {low:.4f} to {high:.4f})",
        "memory reset": f"{report.exact_match_reset:.4f}  (the control)",
        "token accuracy": f"{report.token_accuracy:.4f}",
        "memory": f"{report.memory_bytes} bytes",
        "write": f"{1e3 * report.write_seconds:.3f} ms per context",
        "answer": f"{1e3 * report.answer_seconds:.3f} ms per question",
        "write loss": " ".join(f"{loss:.3f}" for loss in report.write_loss) or "none",
    }
    told |= {f"by {name}": _rates(rates) for name, rates in report.slices.items()}
    told |= {
        "as trained" if point["steps"] is None else f"{point['steps']} steps": f"{point['exact_match']:.4f}"
        for point in found.get("curve", [])
    }
    return lines(told)


def _rates(rates: dict[str, dict[str, float]]) -> str:
    return ", ".join(f"{label}: {rate['exact_match']:.4f}" for label, rate in rates.items())
