"""What a TitansForCausalLM has read, as the `past_key_values` of Hugging Face."""

import copy
from typing import Any, NoReturn

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import Cache

from ..core.state import State, map_state, tensors

_FACTOR = 6_364_136_223_846_793_005


class TitansCache(Cache):
    """A memory that `forward` and `generate` write as they read, and go on from.

    It holds the model's `state`, whose size does not grow with what was read (but for the architecture `full`), and a
    number per row that tells whether ids begin with all that was read. What was written stays written: `crop`, and with
    it assisted decoding, is refused; `copy.deepcopy(cache)` keeps a memory from before, and the graph that wrote it.

    >>> from ttmem.hf import TitansConfig, TitansForCausalLM
    >>> model = TitansForCausalLM(TitansConfig(hidden_size=8, num_heads=2)).eval()
    >>> with torch.no_grad():
    ...     memory = model(torch.randint(0, 258, (2, 20))).past_key_values
    ...     logits = model(torch.randint(0, 258, (2, 7)), past_key_values=memory).logits
    >>> memory
    TitansCache(rows=2, tokens=27)
    """

    is_croppable = False

    def __init__(self, state: State | None = None):
        super().__init__(layers=[])
        self.state = state
        self.trail: Tensor | None = None

    def write(self, state: State, ids: Int[Tensor, "b t"] | None) -> None:
        """Hold the state behind `ids` (None: behind embeddings, which leave no trail)."""
        known = ids is not None and (self.state is None or self.trail is not None)
        self.trail = trail(ids, self.trail) if known else None  # type: ignore[arg-type]
        self.state = state

    def begins(self, ids: Int[Tensor, "b t"]) -> bool:
        """Whether `ids` are all that was read, and more."""
        read = self.get_seq_length()
        if self.trail is None or ids.shape[1] <= read or len(self.trail) % len(ids):
            return False
        theirs = trail(ids[:, :read]).repeat_interleave(len(self.trail) // len(ids))
        return bool((theirs == self.trail).all())

    @property
    def batch_size(self) -> int:
        """Rows; -1 before anything was read."""
        # Heads are rows as well, but some leaf, a window or a conv's tail, leads with the batch alone.
        return min((len(leaf) for leaf in tensors(self.state)), default=-1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens read, padding included."""
        return 0 if self.state is None else self.state.step

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """-1: there is none."""
        return -1

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Columns of a full-length mask, and how many of them are left out: none."""
        return self.get_seq_length() + query_length, 0

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        """Whether anything was read."""
        return self.state is not None

    def reset(self) -> None:
        """Forget everything."""
        self.state = self.trail = None

    def reorder_cache(self, beam_idx: Int[Tensor, "_"]) -> None:
        """Row i becomes a copy of what row `beam_idx[i]` was (beam search)."""
        if self.state is not None:
            self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order."""
        if self.state is None:
            return
        batch = self.batch_size

        def selected(leaf: Tensor) -> Tensor:
            return leaf.unflatten(0, (batch, -1))[indices.to(leaf.device)].flatten(0, 1)

        self.state, self.trail = map_state(selected, (self.state, self.trail))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times over."""
        self.batch_select_indices(torch.arange(max(self.batch_size, 0)).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int = 0) -> None:
        """Raise ValueError: a write cannot be taken back."""
        if tokens_to_remove:
            self._refuse("crop")

    def activate_past_recording(self) -> None:
        """Raise ValueError: a write cannot be taken back."""
        self._refuse("assisted decoding")

    def update(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise ValueError: it holds no keys and values."""
        raise ValueError("update: a TitansCache holds no keys and values; a TitansForCausalLM writes it in forward")

    def _refuse(self, what: str) -> NoReturn:
        raise ValueError(f"{what}: a memory cannot unread tokens; keep copy.deepcopy(past_key_values) from before")

    def __deepcopy__(self, memo: dict[int, Any]) -> "TitansCache":
        # Not by the tensors' own way, which refuses those with a graph.
        made = memo[id(self)] = copy.copy(self)
        rest = {name: value for name, value in vars(self).items() if name not in ("state", "trail")}
        vars(made).update(copy.deepcopy(rest, memo))
        made.state, made.trail = map_state(torch.clone, (self.state, self.trail))
        return made

    def __len__(self) -> int:
        return 0 if self.state is None else len(self.state.fast)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rows={max(self.batch_size, 0)}, tokens={self.get_seq_length()})"


def trail(ids: Int[Tensor, "b t"], before: Int[Tensor, "b"] | None = None) -> Int[Tensor, "b"]:
    """A number for each row's ids so far, modulo 2^64: `trail_t = factor trail_{t-1} + id_t + 1`.

    >>> ids = torch.randint(0, 258, (2, 9))
    >>> torch.equal(trail(ids[:, 5:], trail(ids[:, :5])), trail(ids))
    True
    """
    factors = torch.full((ids.shape[1] + 1,), _FACTOR, device=ids.device)
    factors[0] = 1
    factors = factors.cumprod(0)
    new = ((ids.long() + 1) * factors[:-1].flip(0)).sum(1)
    return new if before is None else before * factors[-1] + new
