"""One row of `train_step.py`, measured alone in a fresh process: what is timed, the laws it must keep, its memory.

`python benchmarks/one_row.py '{"row": {...}, "setting": {...}}'` prints one line of JSON. A law that fails is an error
before anything is timed.
"""

import ctypes
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ttmem.models import ModelConfig, build
from ttmem.tasks import AssociativeRetrieval, Episode

Step = Callable[[], Tensor]
"""A training step without the optimizer: forward, backward, the loss."""


class LawBroken(RuntimeError):
    """What would be timed does not compute what it should."""


@dataclass(frozen=True)
class Setting:
    """What all rows of a table share; the shape is the one GradMem published with."""

    task: str = "N8-K2V2-V62"
    batch: int = 64
    dim: int = 128
    layers: int = 4
    heads: int = 4
    repeats: int = 5
    device: str = "cpu"
    threads: int = 1
    backend: str = "inductor"


@dataclass(frozen=True)
class Row:
    """One training step: fields of the model, pairs asked per context (None: all), `plain`: the backbone alone, `anew`:
    the backbone makes at each step of a write what it otherwise makes once."""

    label: str
    model: dict = field(default_factory=dict)
    queries: int | None = None
    plain: bool = False
    compiled: bool = False
    anew: bool = False


class Anew(nn.Module):
    """A backbone of the three methods alone, which makes everything at each step of a write."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner
        self.dim, self.vocab, self.slots, self.head = inner.dim, inner.vocab, inner.slots, inner.head
        self.embed, self.hidden, self.logits = inner.embed, inner.hidden, inner.logits


def make(row: Row, setting: Setting) -> tuple[nn.Module, Episode]:
    """The row's model with fixed weights, and a batch."""
    shape = {name: getattr(setting, name) for name in ("dim", "layers", "heads")}
    model = build(ModelConfig(**shape | row.model), seed=0).to(setting.device)
    if row.anew:
        model.backbone = Anew(model.backbone)
    task = AssociativeRetrieval.from_name(setting.task)
    return model, task.sample(setting.batch, queries=row.queries).to(setting.device)


def language_model(model: nn.Module, episode: Episode) -> Callable[[], Tensor]:
    """The unit's loss: next-token prediction by the plain backbone over as many tokens as one write reads."""
    backbone, context = model.backbone, episode.context
    ids = torch.cat([context.new_ones(len(context), model.memory.slots), context], dim=1).long()

    def loss() -> Tensor:
        hidden, _ = backbone.hidden(backbone.embed(ids[:, :-1]))
        return F.cross_entropy(backbone.logits(hidden).flatten(0, 1), ids[:, 1:].flatten())

    return loss


def loss_of(row: Row, model: nn.Module, episode: Episode, setting: Setting) -> Callable[[], Tensor]:
    """The row's loss as a function of nothing, compiled if the row says so."""
    function = language_model(model, episode) if row.plain else lambda: model.loss(episode).loss
    if row.compiled:
        function = torch.compile(function, fullgraph=True, dynamic=False, backend=setting.backend)
    return function


def training_step(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """Forward and backward into fresh gradients."""

    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        return value.detach()

    return step


def gradients(model: nn.Module, step: Step) -> list[Tensor]:
    """The loss and all gradients after one step (those that are None left out)."""
    value = step()
    return [value, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def check_slope(row: Row, setting: Setting) -> None:
    """Backward along a random direction = the difference quotient, in float64, on a small model of the row's kind."""
    small = replace(setting, batch=2, dim=16, layers=2, heads=2, device="cpu")
    model, episode = make(row, small)
    model = model.double()
    step = training_step(model, loss_of(replace(row, compiled=False), model, episode, small))
    step()
    with torch.no_grad():
        ways = [(p, torch.randn_like(p)) for p in model.parameters() if p.grad is not None]
        slope = sum((p.grad * way).sum() for p, way in ways)
    ends = [shifted(ways, by, step) for by in (1e-6, -2e-6)]
    measured = (ends[0] - ends[1]) / 2e-6
    if not torch.isclose(slope, measured, rtol=1e-4, atol=1e-7):
        raise LawBroken(f"{row.label}: slope {slope:.8g}, difference quotient {measured:.8g}")


def shifted(ways: list[tuple[Tensor, Tensor]], by: float, step: Step) -> Tensor:
    """The loss after all weights moved on."""
    with torch.no_grad():
        for weight, way in ways:
            weight.add_(way, alpha=by)
    return step()


def check_same(row: Row, one: list[Tensor], other: list[Tensor], exact: bool) -> None:
    """Two ways to compute one step agree: bit for bit, or to what float32 leaves after two derivatives."""
    same = len(one) == len(other)
    for a, b in zip(one, other, strict=False):
        same = same and (torch.equal(a, b) if exact else bool((a - b).norm() <= 1e-3 * b.norm() + 1e-6))
    if not same:
        raise LawBroken(f"{row.label}: not the step it stands for")


def check_laws(row: Row, setting: Setting, model: nn.Module, episode: Episode, step: Step) -> None:
    """Second order against differences, compiled against eager, recomputing against storing, anew against once."""
    if row.model.get("meta_gradient", "second") == "second":
        check_slope(row, setting)
    if row.compiled:
        eager = training_step(model, loss_of(replace(row, compiled=False), model, episode, setting))
        check_same(row, gradients(model, step), gradients(model, eager), exact=False)
    if row.model.get("recompute"):
        stored, _ = make(replace(row, model=row.model | {"recompute": False}), setting)
        storing = training_step(stored, loss_of(replace(row, compiled=False), stored, episode, setting))
        check_same(row, gradients(model, step), gradients(stored, storing), exact=setting.device == "cpu")
    if row.anew:
        once, _ = make(replace(row, anew=False), setting)
        making = training_step(once, loss_of(row, once, episode, setting))
        check_same(row, gradients(model, step), gradients(once, making), exact=False)


def peak_bytes(step: Step, device: str) -> int:
    """The most memory a step holds beyond what was held before it: allocated on a GPU, resident on a CPU."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    before = start_resident_peak()
    step()
    return max(resident("VmHWM") - before, 0)


def start_resident_peak() -> int:
    """Gives freed memory back to the system, forgets the process's peak so far, and says what is resident now."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # the peak of the whole process then stands in, which is the step's unless the row was compiled
    return resident("VmRSS")


def resident(name: str) -> int:
    """A line of the process's status in bytes; where there is none, the peak of the whole process (Linux: KiB)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def clock(step: Step, device: str) -> tuple[float, float]:
    """Wall seconds and the process's CPU seconds of one step."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu


class Counter(TorchDispatchMode):
    """Floating-point operations of matrix products; torch's own counter stumbles over gradients taken inside."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        cost = flop_registry.get(operator._overloadpacket)
        self.total += cost(*args, **(kwargs or {}), out_val=result) if cost else 0
        return result


def flops(step: Step) -> int:
    """Floating-point operations of all matrix products of a step."""
    with Counter() as counter:
        step()
    return counter.total


def summary(seconds: list[tuple[float, float]]) -> dict[str, float]:
    """Least and median of wall and CPU seconds."""
    wall, cpu = zip(*seconds, strict=True)
    return {
        "wall_min": min(wall),
        "wall_median": statistics.median(wall),
        "cpu_min": min(cpu),
        "cpu_median": statistics.median(cpu),
    }


def measure(row: Row, setting: Setting) -> dict:
    """Everything the table says of a row; the unit's step takes turns with the row's, so both see the same load."""
    torch.set_num_threads(setting.threads)
    model, episode = make(row, setting)
    step = training_step(model, loss_of(row, model, episode, setting))
    unit = training_step(model, language_model(model, episode))
    first = clock(step, setting.device)
    check_laws(row, setting, model, episode, step)
    model.zero_grad(set_to_none=True)
    peak = peak_bytes(step, setting.device)
    clock(unit, setting.device)
    turns = [(clock(step, setting.device), clock(unit, setting.device)) for _ in range(setting.repeats)]
    counted = None if row.compiled else flops(step) / flops(unit)
    own, plain = (summary([turn[i] for turn in turns]) for i in (0, 1))
    steady = "cpu_min" if setting.device == "cpu" else "wall_min"
    return asdict(row) | {
        "seconds": own,
        "unit_seconds": plain,
        "units": own[steady] / plain[steady],
        "unit_flops": counted,
        "first_call_seconds": first[0],
        "peak_bytes": peak,
        "samples_per_second": setting.batch / own["wall_median"],
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    try:
        print(json.dumps(measure(Row(**given["row"]), Setting(**given["setting"]))))
    except LawBroken as broken:
        sys.exit(f"a law is broken: {broken}")
