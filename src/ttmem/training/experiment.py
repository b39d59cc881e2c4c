"""A number we publish, as one object: model, task, the way there, and what to expect."""

import importlib.util
import sys
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..evals.fit import check_segments
from ..models import Config, ModelConfig, config_of
from ..tasks import Task, make_task
from .config import TrainConfig
from .curriculum import Curriculum, Stage


@dataclass(frozen=True)
class Experiment:
    """What `train` runs.

    Args:
        name: how its checkpoint and its reports are called.
        task: the target, such as `N2-K4V4-S2_16-32`; validation asks this one.
        model: the architecture.
        stages: the way to the target; where the last one is not the target, the target follows it.
        train: the outer loop.
        expected: what its docstring promises: `{"exact_match": 0.99}`.

    >>> experiment = Experiment("n4", "N4-K2V2-V62", stages=(Stage("N4-K1V1-V62"),))
    >>> [stage.task for stage in experiment.curriculum.stages]
    ['N4-K1V1-V62', 'N4-K2V2-V62']
    """

    name: str
    task: str
    model: Config = ModelConfig()
    stages: tuple[Stage, ...] = ()
    train: TrainConfig = TrainConfig()
    expected: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        for name in dict.fromkeys((self.task, *(stage.task for stage in self.stages))):
            self._check_task(make_task(name))
        if self.train.final_steps is not None and len(self.curriculum.stages) == 1:
            raise ValueError("train.final_steps counts from the last of several stages: give stages, or train.steps")
        if self.train.target is not None and getattr(make_task(self.task), "measure", "") == "nats":
            raise ValueError(f"train.target is an exact match, which {self.task} has none of: leave it None")

    def _check_task(self, task: Task) -> None:
        if self.model.vocab != task.vocab:
            raise ValueError(f"model.vocab must be the {task.vocab} ids of {task.name}, got {self.model.vocab}")
        pad, own = getattr(task, "pad", 0), getattr(self.model, "pad", 0)
        if own != pad:
            raise ValueError(f"model.pad must be {pad}, the padding of {task.name}, got {own}")
        check_segments(self.model, task)

    @property
    def curriculum(self) -> Curriculum:
        """The stages, the last of which is the target."""
        there = bool(self.stages) and self.stages[-1].task == self.task
        return Curriculum(self.stages if there else (*self.stages, Stage(self.task)))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> "Experiment":
        """The experiment that `as_dict` told; ValueError where this version has other fields.

        >>> experiment = Experiment("n4", "N4-K2V2-V62", stages=(Stage("N4-K1V1-V62"),))
        >>> Experiment.from_dict(experiment.as_dict()) == experiment
        True
        """
        try:
            stages = tuple(Stage(**stage) for stage in said["stages"])
            parts = {"model": config_of(said["model"]), "stages": stages, "train": TrainConfig(**said["train"])}
            return cls(**{**said, **parts})
        except (TypeError, KeyError) as error:
            raise ValueError(f"this experiment is of another version of ttmem: {error}") from error


def override(experiment: Experiment, changes: Sequence[str]) -> Experiment:
    """The experiment with fields set from text, all at once: fields that belong together may be set in any order.

    Of two texts for one field the later one wins. Raises ValueError for an unknown field, with the nearest one, and for
    a value of the wrong kind or out of range.

    >>> changed = override(Experiment("n1", "N1-K4V4-S1_16-32"), ["train.lr=1e-3", "model.dim=128"])
    >>> changed.train.lr, changed.model.dim
    (0.001, 128)
    """
    values: dict[tuple[str, ...], Any] = {}
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path:
            raise ValueError(f"an override looks like train.lr=1e-3, got {change!r}")
        names = path.strip().split(".")
        try:
            values[tuple(names)] = _value(experiment, names, text.strip(), "experiment")
        except ValueError as error:
            raise ValueError(f"override {change}: {error}") from error
    try:
        return _changed(experiment, values)
    except ValueError as error:
        raise ValueError(f"override {' '.join(changes)}: {error}") from error


def load_experiment(path: str | Path) -> Experiment:
    """The `EXPERIMENT` of a Python file, which is run, with what lies beside it: load only files you trust.

    Raises FileNotFoundError for no file, and ValueError where it defines no experiment, or fails (with its line).
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no experiment file {path}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        with _imported(module, Path(path).resolve().parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path}{_line_in(path, error)}: {type(error).__name__}: {error}") from error
    found = getattr(module, "EXPERIMENT", None)
    if not isinstance(found, Experiment):
        raise ValueError(f"{path} defines no EXPERIMENT = Experiment(...)")
    return found


@contextmanager
def _imported(module: types.ModuleType, folder: Path) -> Iterator[None]:
    """For a while the module is among those imported, as dataclasses in it want, and finds its neighbours."""
    before, path = sys.modules.get(module.__name__), sys.path
    sys.modules[module.__name__], sys.path = module, [str(folder), *path]
    try:
        yield
    finally:
        sys.path = path
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before


def _line_in(path: str | Path, error: BaseException) -> str:
    """The last line of the file that an error came through, as `, line 3`; empty where it came through none."""
    frames, file = traceback.extract_tb(error.__traceback__), Path(path).resolve()
    passed = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file]
    return f", line {passed[-1]}" if passed else ""


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Where two nested plain values differ, as `train.lr: 0.002 -> 0.001`.

    >>> differences({"train": {"lr": 0.002}}, {"train": {"lr": 0.001}})
    ['train.lr: 0.002 -> 0.001']
    """
    if isinstance(before, dict) and isinstance(after, dict):
        names = [*before, *(name for name in after if name not in before)]
        pairs = [(name, before.get(name), after.get(name)) for name in names]
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple) and len(before) == len(after):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(before, after, strict=True))]
    else:
        return [] if before == after else [f"{path}: {before} -> {after}"]
    return [line for name, a, b in pairs for line in differences(a, b, f"{path}.{name}" if path else name)]


def _value(thing: Any, path: list[str], text: str, where: str) -> Any:
    """The value that a text means for one field of a nested dataclass or tuple."""
    first, rest = path[0], path[1:]
    if isinstance(thing, tuple):
        if not thing:
            raise ValueError(f"{where} is empty, and an override adds nothing to it: write the first one in the file")
        if first not in map(str, range(len(thing))) or not rest:
            raise ValueError(f"{where} has {len(thing)} entries: set {where}.0.FIELD, say")
        return _value(thing[int(first)], rest, text, f"{where}.{first}")
    names = [each.name for each in fields(thing)] if is_dataclass(thing) else []
    if first not in names:
        near = get_close_matches(first, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names) or 'none'}"
        raise ValueError(f"{where} has no field {first!r}; {hint}")
    kind = get_type_hints(type(thing))[first]
    return _value(getattr(thing, first), rest, text, first) if rest else _parse(text, kind, first)


def _changed(thing: Any, values: Mapping[tuple[str, ...], Any]) -> Any:
    """A copy of a nested dataclass or tuple with values set, by path; each part is made, and checked, once."""
    if () in values:
        if len(values) > 1:
            raise ValueError(f"{', '.join(filter(None, map('.'.join, values)))} is set, and also the whole: do either")
        return values[()]
    parts: dict[str, dict[tuple[str, ...], Any]] = {}
    for path, value in values.items():
        parts.setdefault(path[0], {})[path[1:]] = value
    if isinstance(thing, tuple):
        return tuple(_changed(each, parts[str(i)]) if str(i) in parts else each for i, each in enumerate(thing))
    return replace(thing, **{name: _changed(getattr(thing, name), inner) for name, inner in parts.items()})


def _parse(text: str, kind: Any, name: str) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [each for each in get_args(kind) if each is not type(None)]
        unset = text.lower() in ("none", "null") and type(None) in get_args(kind)
        return None if unset else _parse(text, kinds[0], name)
    if kind is bool and text.lower() in _BOOLS:
        return _BOOLS[text.lower()]
    if kind in (int, float, str):
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"{name} must be {_KINDS[kind]}, got {text!r}") from None
    if kind is bool:
        raise ValueError(f"{name} must be true or false, got {text!r}")
    if get_origin(kind) is tuple and not text:
        return ()
    raise ValueError(f"{name} has fields of its own: set one of them, {name}.FIELD=VALUE")


_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_KINDS = {int: "a whole number", float: "a number", str: "text"}
