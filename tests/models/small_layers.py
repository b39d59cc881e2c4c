"""ARMT and PRMT4 small enough to be walked over many grids, in the kinds that the laws are tried on."""

import torch
from torch import nn

from ttmem.models import LayeredConfig, build

KINDS = {
    "armt": {"architecture": "armt", "slots": 3, "features": 2},
    "value": {},
    "hidden": {"target": "hidden", "steps": 1},
    "residual": {"target": "residual", "momentum": False},
    "overlap": {"bound": "overlap"},
    "deep": {"memory_depth": 2, "conv": 0},
}
SIZE = 4


def config(kind: str, **changes) -> LayeredConfig:
    """Of a small model that cuts its contexts at `|`."""
    return LayeredConfig(**{"dim": 8, "heads": 2, "layers": 2, "hidden": 8} | KINDS[kind] | changes)


def model(kind: str, **changes) -> nn.Module:
    """A small model whose weights are large enough to matter."""
    made = build(config(kind, **changes), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    return made


def sized(kind: str, layers: int, **changes) -> nn.Module:
    """One that cuts after every `SIZE` tokens."""
    return model(kind, layers=layers, separator=None, segment_size=SIZE, **changes)
