"""Where a run is, and how it went. A state is one file: numbers as JSON, tensors as safetensors, no pickle."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..checkpoint import fill, load_model, read_file, write_file
from .curriculum import Standing
from .experiment import Experiment, differences
from .shard import gathered, like

FORMAT = "ttmem-training"
FREE = (
    "train.steps",
    "train.sharded",
    "train.log_every",
    "train.checkpoint_every",
    "train.tensorboard",
    "expected",
    "name",
)
"""Fields that a resumed run may change."""


@dataclass
class RunState:
    """The numbers of a run between two steps.

    Args:
        end: the step count at which the run ends, as known so far.
        step: outer steps done.
        standing: where it is in the curriculum.
        seconds: spent so far, over all resumptions.
        final: the last validation's exact match, made after step `asked`; `best`, after step `best_step`: the best.
        stale: validations in the last stage since the best.
        settling: whether the target is reached and the step size decays.
        late: whether the time is nearly used up and the step size decays.
        stopped: why the run is over; empty while it is not.
    """

    end: int
    step: int = 0
    standing: Standing = field(default_factory=Standing)
    seconds: float = 0.0
    final: float | None = None
    asked: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    settling: bool = False
    late: bool = False
    stopped: str = ""


@dataclass(frozen=True)
class Result:
    """How a run went.

    Args:
        stopped: why it ended: target, steps, seconds, patience, stage (its budget), or interrupted (resume it).
        steps, seconds: outer steps and time over all resumptions.
        best, final: best and last validation on the target, exact match or minus nats; None where none was made.
        checkpoint: the best weights, as one file to ship.
        history: a JSON line per logged step, validation and promotion.
    """

    stopped: str
    steps: int
    seconds: float
    best: float | None
    final: float | None
    checkpoint: Path
    history: Path


def save_state(
    path: Path,
    state: RunState,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    experiment: Experiment,
    main: bool = True,
) -> None:
    """Write everything that the next step depends on, whole or not at all, in the main process.

    A sharded model is put together first, so all processes must call; the file is the same as of an unsharded one.
    """
    weights = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors = gathered(weights | moments(model, optimizers), main)
    if main:
        write_file(path, tensors, FORMAT, {"state": asdict(state), "experiment": experiment.as_dict()})


def load_state(path: Path, model: nn.Module, optimizers: Sequence[Optimizer], experiment: Experiment) -> RunState:
    """Put a saved run back into model and optimizers; the run then goes on bit for bit as if it had not stopped.

    Raises ValueError where the file is damaged, or belongs to another experiment (with the fields that differ).
    """
    try:
        tensors, said = read_file(path, FORMAT)
    except ValueError as error:
        raise ValueError(f"{error}; or start afresh (--no-resume)") from error
    check_same(path, complete(said["experiment"], experiment), experiment.as_dict())
    weights = {n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")}
    own = model.state_dict()
    fill(model, {n: like(own.get(n, t), t) for n, t in weights.items()}, path)
    set_moments(model, optimizers, tensors)
    state = RunState(**{**said["state"], "standing": Standing.from_dict(said["state"]["standing"])})
    return rebudgeted(state, said["experiment"]["train"]["steps"], experiment)


def rebudgeted(state: RunState, before: int, experiment: Experiment) -> RunState:
    """A budget changed between two runs (`before`: the first one's) moves the end, and reopens a run that used it up.

    The end that `final_steps`, a reached target or the time had set stays where the new budget does not end sooner.
    """
    now, decided = experiment.train.steps, state.settling or state.late
    stays = decided and (state.end != before or now <= before)
    end = min(now, state.end) if stays else final_end(state.standing, experiment)
    state.end = max(end, state.step)
    if state.stopped == "steps" and state.end > state.step:
        state.stopped = ""
    if not stays and not state.stopped:
        state.settling = state.late = False  # target and time decide anew
    return state


def final_end(standing: Standing, experiment: Experiment) -> int:
    """The step that ends a run which stands there: `steps`, or `final_steps` after the last stage was entered."""
    steps, final = experiment.train.steps, experiment.train.final_steps
    if final is None or not standing.promotions or not experiment.curriculum.is_last(standing):
        return steps
    return min(steps, standing.promotions[-1].step + final)


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError where a run would go on as another experiment."""
    changed = [line for line in differences(plain(before), plain(now)) if not line.split(":")[0].startswith(FREE)]
    if changed:
        mend = "take another folder, or start afresh (--no-resume)"
        raise ValueError(f"{path} is of a run with other settings ({'; '.join(changed)}): {mend}")


def check_model(path: Path, experiment: Experiment) -> None:
    """Raise ValueError where a new run would replace a model of another one, whose state is gone."""
    if path.exists():
        before = load_model(path).meta.get("experiment")
        if before is None:
            raise ValueError(f"{path} is of no run: take another folder, or start afresh (--no-resume)")
        check_same(path, complete(before, experiment), experiment.as_dict())


def complete(before: Mapping[str, Any], experiment: Experiment) -> dict[str, Any]:
    """What an older version wrote down, with the fields it did not know yet at their defaults."""
    parts = {"model": experiment.model, "train": experiment.train}
    defaults = {name: {each.name: each.default for each in fields(part)} for name, part in parts.items()}
    return {**before, **{name: {**known, **before[name]} for name, known in defaults.items()}}


def plain(value: Any) -> Any:
    """The value as JSON gives it back: tuples are lists."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def moments(model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """What the optimizers remember, as `optimizer/NAME OF THE WEIGHT/NAME OF THE MOMENT`."""
    names: dict[Tensor, str] = {weight: name for name, weight in model.named_parameters()}
    return {
        f"optimizer/{names[weight]}/{kind}": tensor
        for optimizer in optimizers
        for weight, kept in optimizer.state.items()
        for kind, tensor in kept.items()
    }


def set_moments(model: nn.Module, optimizers: Sequence[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Give the optimizers back what `moments` took; single numbers (step counts) stay on the CPU."""
    homes = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    weights = dict(model.named_parameters())
    for path, tensor in tensors.items():
        if path.startswith("optimizer/"):
            _, name, kind = path.split("/")
            device = weights[name].device if tensor.ndim else torch.device("cpu")
            homes[weights[name]].state[weights[name]][kind] = like(weights[name], tensor.to(device))
