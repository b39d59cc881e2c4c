"""What comes from elsewhere, states and weights: of other float types, from inference mode, for another chunk size."""

from typing import Any

import torch
from torch import Tensor, nn

from ..core.state import map_state, usable


def adopted(tree: Any, dtype: torch.dtype) -> Any:
    """The same numbers, floats in this type, and nothing that autograd would refuse.

    The compiler cannot ask a tensor whether it was written in inference mode: there all is copied that autograd may
    see.
    """
    copy = torch.compiler.is_compiling() and torch.is_grad_enabled()

    def own(x: Tensor) -> Tensor:
        return x.to(dtype if x.is_floating_point() else x.dtype, copy=copy)

    return map_state(own, usable(tree))


def tell_chunk(memory: nn.Module, state_dict: Any, prefix: str, told: dict[str, Any]) -> None:
    """A hook: note the chunk size in what a `state_dict()` says of its modules, beside the tensors."""
    told["chunk_size"] = memory.config.chunk_size  # type: ignore[union-attr]


def check_chunk(memory: nn.Module, state_dict: Any, prefix: str, told: dict[str, Any], *rest: Any) -> None:
    """A hook: raise ValueError where weights come with the note that another chunk size is theirs."""
    own = memory.config.chunk_size  # type: ignore[union-attr]
    if told.get("chunk_size", own) != own:
        mend = "load dict(state_dict) if you mean it"
        raise ValueError(f"chunk_size must be that of the weights, {told['chunk_size']}, got {own}: {mend}")
