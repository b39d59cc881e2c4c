"""Who moves the slow weights, and how far: parameter groups and schedules."""

import math

import torch
from torch import nn
from torch.optim import Optimizer

from .config import TrainConfig


def factor(step: int, end: int, config: TrainConfig) -> float:
    """The share of the full step size at step `step` (from 0) of a run that ends after step `end - 1`.

    >>> config = TrainConfig(steps=100, warmup=10, schedule="wsd", decay=20.0, floor=0.0)
    >>> [factor(step, 100, config) for step in (0, 9, 50, 90)]
    [0.1, 1.0, 1.0, 0.5]
    """
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    return warm * (config.floor + (1 - config.floor) * shape(step, end, config))


def shape(step: int, end: int, config: TrainConfig) -> float:
    """From 1 down to 0 as the schedule has it, without warm-up and floor."""
    if config.schedule == "linear":
        return 1 - step / end
    if config.schedule == "cosine":
        return 0.5 + 0.5 * math.cos(math.pi * step / end)
    return min(1.0, (end - step) / config.decay_steps) if config.schedule == "wsd" else 1.0


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[Optimizer]:
    """AdamW over three groups of parameters and, with `muon_lr`, Muon over the matrices of blocks and stem."""
    parts: dict[str, list[nn.Parameter]] = {"decayed": [], "free": [], "rates": [], "muon": []}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            parts[part_of(name, weight, config)].append(weight)
    settings = {
        "decayed": {"lr": config.lr, "weight_decay": config.weight_decay},
        "free": {"lr": config.lr, "weight_decay": 0.0},
        "rates": {"lr": config.lr * config.rates_lr, "weight_decay": 0.0},
    }
    groups = [{"params": parts[part], **kept} for part, kept in settings.items() if parts[part]]
    optimizers: list[Optimizer] = []
    if groups:
        optimizers.append(torch.optim.AdamW(groups, betas=(config.beta1, config.beta2)))
    if parts["muon"]:
        optimizers.append(torch.optim.Muon(parts["muon"], lr=config.muon_lr, weight_decay=config.weight_decay))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["full_lr"] = group["lr"]
    return optimizers


LEARNED_STATE = {"addresses", "init", "persistent", "queries"}
"""Words in the names of what a memory starts from or is asked with: learned, but no weights of the decoder."""


APART = ("conv", "gates", "memory_rate")
"""How names of matrices begin that mix no channels: kernels, and what says how fast a memory is written."""


def part_of(name: str, weight: nn.Parameter, config: TrainConfig) -> str:
    """The group of a parameter: `rates`, `muon`, `free` or `decayed`.

    Free of weight decay are norms, the initial memory, learned addresses, persistent tokens and queries, and the
    projection, which decay would pull off the identity. Sines are trained as the matrices of the blocks are.
    """
    words = name.split(".")
    if "rates" in words:
        return "rates"
    learned = not LEARNED_STATE.isdisjoint(words) or words[-1].startswith("norm_")
    if weight.ndim < 2 or learned or name == "projection":
        return "free"
    inner = not {"blocks", "stem"}.isdisjoint(words)
    mixes = weight.ndim == 2 and inner and not any(word.startswith(APART) for word in words)
    return "muon" if config.muon_lr and mixes else "decayed"


def set_share(optimizers: list[Optimizer], share: float) -> None:
    """Set every group to this share of its full step size."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * share
