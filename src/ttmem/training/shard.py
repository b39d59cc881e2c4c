"""Sharded training (FSDP2): a process keeps a part of every weight and moment, and all of a block while it runs.

    weights of block 1 ──► gather ──► block 1 ──► free        each process on its own rows
    weights of block 2 ──►          gather ──► block 2 ──► free
    gradients of block 2 ──► mean over the processes, each keeps its part ──► AdamW on the parts

A block holds a whole inner loop: what is written in it is ordinary tensors of this process. Sharding the memory alone
would put its inner gradient between two gathers, and gives wrong gradients without an error.

What needs torch.distributed imports it when called: that takes a second, which only sharded runs should wait for.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..models import Config, build


def shard(model: Any, device: torch.device, count: int) -> None:
    """Cut each block's weights, and then the rest, into one part per process, in place; `model.loss` gathers them.

    Weights, gradients and everything that goes in or out of a block keep their dtype; autocast inside does the rest.
    Raises ValueError for a model that is no stack of blocks.
    """
    if not hasattr(model, "blocks"):
        raise ValueError(f"sharded must be false for {type(model).__name__}, which has no blocks to shard one by one")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    # a block gives views (the end of a window), which are safe as long as nobody writes in place: nobody does
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (count,))
    policy = MixedPrecisionPolicy(param_dtype=None, reduce_dtype=None, cast_forward_inputs=False)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    register_fsdp_forward_method(model, "loss")


def full(tensor: Tensor) -> Tensor:
    """All of a tensor that may be in parts; every process must ask, in the same order."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """All of every tensor, moved to the CPU where it was in parts; empty in processes that do not `keep` it.

    >>> gathered({"w": torch.ones(2)}, keep=True)
    {'w': tensor([1., 1.])}
    """
    found = {}
    for name, tensor in sorted(tensors.items()):  # a resumed optimizer has its moments in another order everywhere
        whole = full(tensor)
        if keep:
            found[name] = whole if whole is tensor else whole.cpu()
    return found


def like(weight: Tensor, tensor: Tensor) -> Tensor:
    """This process's part of a tensor, on the weight's device, if the weight is in parts; else the tensor.

    A tensor of another shape is not cut: it belongs to another model, which `fill` tells.
    """
    if not hasattr(weight, "full_tensor") or weight.shape != tensor.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    here: Any = weight
    return distribute_tensor(tensor.to(weight.device), here.device_mesh, here.placements, src_data_rank=None)


def copy_of(model: nn.Module, config: Config, main: bool) -> nn.Module:
    """An unsharded copy of a sharded model, for the main process; the others help and get their own model back."""
    device = next(model.parameters()).device
    tensors = gathered(model.state_dict(), main)
    if not main:
        return model
    copy = build(config, seed=0)  # with a seed, so that the random numbers of the run stay where they are
    copy.load_state_dict(tensors)
    return copy.to(device)
