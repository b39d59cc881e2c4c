"""`ttmem demo`: train a small memory from scratch, then write with a shipped one, delete the text, and ask."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .base import Command, at_least_one
from .evaluate import drawable
from .memory import answers, ask_memory, write_memory

if TYPE_CHECKING:
    from rich.console import Console

    from ..evals import Report
    from ..training import Experiment
    from ..zoo import Loaded

SMALL_TASK = "N1-K4V4-S1_16-32"
DECK = {SMALL_TASK: 0.999, "N2-K4V4-S2_16-32": 0.721}
"""Exact match of NeuralMemory in the deck "Meta-learned memory"."""
PREFERRED = ("neural-memory-n2", "tokens-n2")
SHOWN_SEED = 7
PICTURE = "demo.png"


def small_experiment(seconds: float) -> "Experiment":
    """A NeuralMemory small enough to learn its task from nothing in a few minutes on one core."""
    from ..models import ModelConfig
    from ..training import Experiment, Stage, TrainConfig

    train = TrainConfig(
        steps=3000,
        seconds=seconds,
        batch=32,
        muon_lr=0.01,
        rates_lr=2.0,
        warmup=100,
        decay=150,
        floor=0.01,
        target=0.99,
        settle=True,
        eval_every=50,
        eval_samples=500,
    )
    model = ModelConfig(memory="neural", layers=2, hidden=96, window=1, slots=16)
    return Experiment("demo", SMALL_TASK, model, (Stage("N1-K2V2-S1_8-16", threshold=0.8),), train)


class Use(NamedTuple):
    """What the memory of one shown context answered: a row per key, and the same of a memory that was reset."""

    context: str
    memory: Path
    rows: list[tuple[str, str, str, str]]

    @property
    def right(self) -> int:
        """Keys answered with the value they had."""
        return sum(value == answer for _, value, answer, _ in self.rows)


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Meta-train a small NeuralMemory, then write a text with a shipped model, delete it, and ask the memory file."""

    out: Path = Path("demo")
    """Folder for the trained checkpoint, the memory file and the picture."""
    seconds: float = 150.0
    """After this long, or sooner when it has learned, training ends with its last 150 steps (a minute or two)."""
    samples: int = 2_000
    """Contexts of each evaluation."""

    def run(self) -> None:
        from rich.console import Console

        at_least_one(samples=self.samples)
        drawable(self.out / PICTURE)
        console, begun = Console(quiet=self.json, highlight=False), time.perf_counter()
        small, learned = train_small(console, self.out, small_experiment(self.seconds), self.samples)
        loaded = choose(console, small)
        use = use_memory(console, loaded, self.out)
        reports = more_steps(console, loaded, self.samples)
        image = picture(self.out / PICTURE, loaded, reports, learned)
        console.rule("[bold]Done", align="left")
        console.print(f"{time.perf_counter() - begun:.0f} seconds. Look at [bold]{image}[/]; the rest is beside it.")
        if self.json:
            self.tell(told(learned, use, reports, image), "")


def train_small(console: "Console", out: Path, experiment: "Experiment", samples: int) -> tuple["Loaded", "Report"]:
    """Part 1: meta-train from scratch and evaluate on the test split."""
    from ..evals import evaluate
    from ..training import train
    from ..zoo import load

    console.rule(f"[bold]1  Meta-train a small NeuralMemory from scratch on {SMALL_TASK}", align="left")
    result = train(experiment, out / "training", resume=False, progress=not console.quiet)
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    small = load(result.checkpoint)
    report = evaluate(small.model, small.make_task(), samples)
    low, high = report.interval
    console.print(f"trained for {result.steps} steps in {result.seconds:.0f} s; on {samples} contexts never seen:")
    console.print(f"  exact match   [bold]{report.exact_match:.4f}[/]  (95 %: {low:.4f} to {high:.4f})")
    console.print(f"  memory reset  {report.exact_match_reset:.4f}  (the control: guessing)")
    return small, report


def choose(console: "Console", small: "Loaded") -> "Loaded":
    """The shipped checkpoint to go on with; the one just trained where none is shipped."""
    from ..zoo import is_shipped, load

    console.rule("[bold]2  Write a text into memory, delete it, ask", align="left")
    name = next((name for name in PREFERRED if is_shipped(name)), None)
    if name != PREFERRED[0]:
        console.print(
            f"[yellow]{PREFERRED[0]} is not in this installation; {name or 'the model just trained'} stands in."
        )
    return load(name) if name else small


def use_memory(console: "Console", loaded: "Loaded", out: Path) -> Use:
    """Part 2: show a context, write it into a file, delete the text, answer every key from the file."""
    task = loaded.make_task()
    episode = task.sample(1, "test", SHOWN_SEED)
    text, memory = out / "context.txt", out / "doc.memory"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text(task.decode(episode.context[0]))
    console.print(f"model    {loaded.name}\ncontext  [bold]{text.read_text()}[/]", soft_wrap=True)
    written = write_memory(loaded, task, task.episode_from_text(text.read_text()), memory)
    losses = " -> ".join(f"{loss:.3f}" for loss in written["losses"])
    console.print(
        f"written  {memory}, {written['bytes']} bytes; write loss {losses} nats per character", soft_wrap=True
    )
    context = text.read_text()
    text.unlink()
    console.print(f"deleted  {text}")
    use = Use(context, memory, ask_all(loaded, memory, task, episode))
    show_answers(console, use)
    return use


def ask_all(loaded: "Loaded", memory: Path, task: Any, episode: Any) -> list[tuple[str, str, str, str]]:
    """Key, value, the answer from the memory file, and the answer of a memory that read nothing."""
    keys = [task.decode(query)[2:-1] for query in episode.query[0]]
    values = [task.decode(target)[: task.value] for target in episode.target[0]]
    asked = ask_memory(loaded, memory, tuple(keys))["answers"]
    control = answers(loaded, task, loaded.model.start(1), episode.query)
    found = zip(keys, values, control, strict=True)
    return [(key, value, asked[key]["value"], guess["value"]) for key, value, guess in found]


def show_answers(console: "Console", use: Use) -> None:
    """A table of the answers."""
    from rich.table import Table

    table = Table("key", "was", "answer from the file", "memory reset (control)", box=None, padding=(0, 3, 0, 0))
    for key, value, answer, guess in use.rows:
        table.add_row(key, value, f"[green]{answer}" if answer == value else f"[red]{answer}", f"[dim]{guess}")
    console.print(table)


def more_steps(console: "Console", loaded: "Loaded", samples: int) -> list["Report"]:
    """Part 3: exact match against 1 to 10 write steps."""
    console.rule("[bold]3  Does writing longer help?", align="left")
    reports = steps_to_ten(loaded, samples)
    shown = "  ".join(f"{report.steps}: {report.exact_match:.3f}" for report in reports)
    trained = loaded.model.config.steps
    console.print(f"{loaded.name} on {reports[0].task}, trained with {trained} write steps")
    console.print(f"exact match by steps  {shown}", soft_wrap=True)
    return reports


def steps_to_ten(loaded: "Loaded", samples: int) -> list["Report"]:
    """Reports for 1 to 10 write steps: as trained on all samples, the others on a quarter."""
    from ..evals import evaluate, steps_curve

    task, trained = loaded.make_task(), loaded.model.config.steps
    reports = steps_curve(loaded.model, task, range(1, 11), max(samples // 4, 1))
    if 1 <= trained <= len(reports):
        reports[trained - 1] = evaluate(loaded.model, task, samples, steps=trained)
    return reports


def picture(path: Path, loaded: "Loaded", reports: list["Report"], learned: "Report") -> Path:
    """Three panels: write loss per step, exact match against steps, ours beside the deck's."""
    from ..evals import plots

    trained = loaded.model.config.steps
    ours = {learned.task: learned.exact_match}
    if loaded.model.memory.kind == "neural" and loaded.task != learned.task:
        ours[reports[0].task] = reports[min(trained, len(reports)) - 1].exact_match
    figure, (first, second, third) = plots.panels(3)
    plots.write_loss(first, reports[-1].write_loss)
    plots.exact_match(second, reports, trained)
    plots.beside(third, ours, DECK, source="the deck", title="NeuralMemory, ours beside the deck's")
    return plots.save(figure, path)


def told(learned: "Report", use: Use, reports: list["Report"], image: Path) -> dict[str, Any]:
    """The demo as JSON values."""
    return {
        "trained": {"task": learned.task, "exact_match": learned.exact_match, "reset": learned.exact_match_reset},
        "memory": str(use.memory),
        "asked": len(use.rows),
        "right": use.right,
        "curve": {report.steps: report.exact_match for report in reports},
        "picture": str(image),
    }
