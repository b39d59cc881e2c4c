"""`ttmem train`: run the outer loop of an experiment."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from .base import Command, lines, unset

if TYPE_CHECKING:
    from ..training import Experiment

FOLDER = "experiments"


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Meta-train a model; a run that was stopped goes on where it stopped."""

    experiment: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT")]
    """A file that defines EXPERIMENT, the name of one in experiments/, or a checkpoint, which holds its experiment."""
    override: Annotated[tuple[str, ...], unset("FIELD=VALUE ...")] = ()
    """Fields to change, such as train.lr=1e-3 model.dim=128."""
    out: Annotated[Path | None, unset("PATH")] = None
    """Folder for checkpoints and the history; by default runs/NAME."""
    no_resume: bool = False
    """Start over instead of going on from the last checkpoint in the folder."""

    def run(self) -> None:
        from ..training import override, train

        experiment = override(find_experiment(self.experiment), list(self.override))
        out = self.out or Path("runs") / experiment.name
        result = train(experiment, out, resume=not self.no_resume, progress=not self.json)
        found = {"experiment": experiment.name, "out": str(out)} | plain(result)
        self.tell(found, lines(found))


def find_experiment(where: str) -> "Experiment":
    """The experiment of a file, of a name in experiments/, or inside a checkpoint; FileNotFoundError for none."""
    from ..zoo import NAMES

    for path in (Path(where), Path(FOLDER, where), Path(FOLDER, f"{where}.py"), Path(FOLDER, f"{_snake(where)}.py")):
        if path.suffix == ".py" and path.is_file():
            return load_experiment(path)
    if where in NAMES or Path(where).is_file():
        return stored_experiment(where)
    here = sorted(path.stem for path in Path(FOLDER).glob("[!_]*.py"))
    known = ", ".join([*here, *NAMES])
    raise FileNotFoundError(f"there is no experiment {where}: give a .py file, or one of {known}")


def load_experiment(path: Path) -> "Experiment":
    """EXPERIMENT of a Python file, which is run for it; ValueError where it defines none."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "EXPERIMENT"):
        raise ValueError(f"{path} defines no EXPERIMENT: write EXPERIMENT = Experiment(...)")
    return module.EXPERIMENT


def stored_experiment(where: str) -> "Experiment":
    """The experiment inside a checkpoint; ValueError where it holds none."""
    from ..training import Experiment
    from ..zoo import load

    loaded = load(where)
    if "experiment" not in loaded.facts:
        raise ValueError(f"{loaded.path} holds no experiment: train from a file in experiments/")
    return Experiment.from_dict(loaded.facts["experiment"])


def plain(result: Any) -> dict[str, Any]:
    """A result as plain JSON values."""
    from dataclasses import asdict, is_dataclass

    values = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result._asdict()
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _snake(name: str) -> str:
    return name.replace("-", "_")
