"""One process or several: each takes its rows of the same batch, all see the same numbers."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..models import Config
from ..tasks import Episode
from .config import TrainConfig
from .shard import copy_of, shard


class Workers:
    """The processes of a run, through accelerate; one where torchrun did not start more.

    Raises ValueError where the batch does not divide by the processes.
    """

    def __init__(self, config: TrainConfig):
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise ImportError("training needs accelerate: pip install 'ttmem[train]'") from error
        self.config = config
        self.accelerator: Any = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")
        self.device: torch.device = self.accelerator.device
        self.main: bool = self.accelerator.is_main_process
        self.count: int = self.accelerator.num_processes
        self.sharded: bool = config.sharded and self.count > 1
        self.averaged: bool = self.count > 1 and not self.sharded
        if config.batch % self.count:
            raise ValueError(f"batch must divide by the {self.count} processes, got {config.batch}")

    def share(self, episode: Episode) -> Episode:
        """This process's rows of a batch, on its device."""
        rows = len(episode) // self.count
        first = self.accelerator.process_index * rows
        return episode[first : first + rows].to(self.device)

    def place(self, model: nn.Module) -> nn.Module:
        """The model on this process's device: all of it, or with `sharded` a part of every weight."""
        model = model.to(self.device)
        if self.sharded:
            shard(model, self.device, self.count)
        return model

    def whole(self, model: nn.Module, config: Config) -> nn.Module:
        """What the main process can ask and ship: the model, or an unsharded copy that all processes help to make."""
        return copy_of(model, config, self.main) if self.sharded else model

    def prepare(self, model: nn.Module, probe: Episode, tasks: int) -> nn.Module:
        """The model to call in the loop: compiled where that is asked for, its gradients averaged over processes."""
        truncates = getattr(getattr(model, "config", None), "truncate", None) is True  # Titans: weights left without
        model = Loss(model)
        unused = self.averaged and (truncates or has_unused(model, probe))  # the probe would else be compiled, too
        if self.config.compile:
            compile_loss(model, tasks)
        if not self.averaged:
            return model
        from torch.nn.parallel import DistributedDataParallel

        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=unused)

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Numbers averaged over the processes."""
        stacked = torch.stack([value.detach().float().to(self.device) for value in values.values()])
        return dict(zip(values, self.accelerator.reduce(stacked, reduction="mean").tolist(), strict=True))

    def from_main(self, ask: Callable[[], tuple[float, float]]) -> tuple[float, float]:
        """Two numbers that the main process works out and tells the others."""
        from accelerate.utils import broadcast

        told = torch.tensor(ask() if self.main else (0.0, 0.0), device=self.device, dtype=torch.float64)
        first, second = broadcast(told).tolist()
        return first, second

    def wait(self) -> None:
        """Until all processes are here."""
        self.accelerator.wait_for_everyone()


class Loss(nn.Module):
    """A model's `loss` as a module's `forward`, which is what compiling and averaging over processes wrap."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, episode: Episode) -> Any:
        """The outcome of an episode."""
        return self.model.loss(episode)


def has_unused(model: nn.Module, probe: Episode) -> bool:
    """Whether a parameter gets no gradient (a write head without a write loss): then DDP must look for such."""
    model(probe).loss.backward()
    found = any(weight.grad is None for weight in model.parameters() if weight.requires_grad)
    model.zero_grad(set_to_none=True)
    return found


def compile_loss(model: nn.Module, tasks: int, backend: str = "inductor") -> None:
    """Compile the model's loss in place, with the gradient inside it; each task's shapes are compiled once."""
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 2 * tasks + 2)
    model.compile(backend=backend, dynamic=False)
