"""`ttmem train`: run the outer loop of an experiment."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from .base import Command, lines, unset

if TYPE_CHECKING:
    from ..training import Experiment, Result

FOLDER = "experiments"


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Meta-train a model; a run that was stopped goes on where it stopped."""

    experiment: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT")]
    """A file that defines EXPERIMENT, the name of one in experiments/, or a checkpoint, which holds its experiment."""
    override: Annotated[tuple[str, ...], unset("FIELD=VALUE ...")] = ()
    """Fields to change, such as train.lr=1e-3 model.dim=128."""
    out: Annotated[str | None, unset("PATH")] = None
    """Folder for checkpoints and the history; by default runs/NAME."""
    no_resume: bool = False
    """Start over: a run that is in the folder, finished or not, is replaced once the new one saves."""

    def run(self) -> None:
        from ..training import override, train

        if self.out == "":
            raise ValueError("--out must name a folder, got '': leave it out for runs/NAME")
        experiment = override(find_experiment(self.experiment), list(self.override))
        out = Path("runs", experiment.name) if self.out is None else Path(self.out)
        if out.is_file():
            raise ValueError(f"--out {out} is a file: name a folder")
        result = train(experiment, out, resume=not self.no_resume, progress=not self.json)
        found = {"experiment": experiment.name, "out": str(out)} | plain(result)
        if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks
            self.tell(found, lines(found))
        if result.stopped == "interrupted":
            raise KeyboardInterrupt("stopped; the same command goes on from here")


def find_experiment(where: str) -> "Experiment":
    """The experiment of a file, of a name in experiments/, or inside a checkpoint; FileNotFoundError for none."""
    from ..training import load_experiment
    from ..zoo import NAMES

    for path in (Path(where), *(Path(FOLDER, f"{name}.py") for name in (where, where.replace("-", "_")))):
        if path.suffix == ".py" and path.is_file():
            return load_experiment(path)
    if where in NAMES or Path(where).is_file():
        return stored_experiment(where)
    files = sorted(Path(FOLDER).glob("[!_]*.py"))
    here = [path.stem for path in files if "EXPERIMENT = " in path.read_text(encoding="utf-8", errors="replace")]
    known = ", ".join([*here, *NAMES])
    raise FileNotFoundError(f"there is no experiment {where} here or in ./{FOLDER}: give a .py file, or one of {known}")


def stored_experiment(where: str) -> "Experiment":
    """The experiment inside a checkpoint; ValueError where it holds none, or one that this ttmem does not know."""
    from ..training import Experiment
    from ..zoo import load

    loaded = load(where)
    record = loaded.facts.get("experiment")
    if record is None:
        raise ValueError(f"{loaded.path} holds no experiment: train from a file in {FOLDER}/")
    try:
        return Experiment.from_dict(record)
    except ValueError as error:
        raise ValueError(f"{loaded.path} holds an experiment that this ttmem does not know: {error}") from error


def plain(result: "Result") -> dict[str, Any]:
    """A result as plain JSON values."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(result).items()}
