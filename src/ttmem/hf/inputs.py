"""What users give to a TitansForCausalLM, checked, and brought to what the model inside takes."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .cache import TitansCache


def refuse_unknown(options: dict[str, Any], known: set[str], output_attentions: bool | None) -> None:
    """Raise TypeError for options that would be ignored, ValueError where attention maps are asked for."""
    unknown = sorted(name for name, value in options.items() if name not in known and value is not None)
    if unknown:
        raise TypeError(f"forward takes no {', '.join(unknown)}: leave it out")
    if output_attentions:
        raise ValueError("output_attentions must be False: tokens reach each other through the memory as well")


def asked(ids: Tensor | None, embeds: Tensor | None, embedding: nn.Module) -> Float[Tensor, "b t d"]:
    """The embeddings of a call; ValueError unless exactly one of ids and embeddings is given."""
    if (ids is None) == (embeds is None):
        found = "neither" if ids is None else "both"
        raise ValueError(f"one of input_ids and inputs_embeds must be given, got {found}")
    given = ids if embeds is None else embeds
    if given is not None and 0 in given.shape[:2]:
        raise ValueError(
            f"the input must have a row and a token at least, got (batch, tokens) = {tuple(given.shape[:2])}"
        )
    return embedding(ids) if embeds is None else embeds


def masked(mask: Tensor | None, memory: Any, x: Float[Tensor, "b t d"]) -> Bool[Tensor, "b t"] | None:
    """Which of the new tokens are real; None: all. ValueError where memory or mask do not fit them."""
    if not isinstance(memory, TitansCache):
        raise ValueError(f"past_key_values must be a TitansCache, got {type(memory).__name__}: start with None")
    rows, (batch, t) = memory.batch_size, x.shape[:2]
    if rows not in (-1, batch):
        mend = f": call past_key_values.batch_repeat_interleave({batch // rows})" if not batch % rows else ""
        raise ValueError(f"past_key_values must have as many rows as the input, {batch}, got {rows}{mend}")
    if mask is None:
        return None
    lengths = t, t + memory.get_seq_length()
    if mask.ndim != 2 or len(mask) != batch or mask.shape[1] not in lengths:
        shape = f"({batch}, {t})" if lengths[0] == lengths[1] else f"({batch}, {t}) or ({batch}, {lengths[1]})"
        raise ValueError(f"attention_mask must be {shape}, got {tuple(mask.shape)}")
    new = mask[:, -t:].bool()
    return None if bool(new.all()) else new


def continued(ids: Int[Tensor, "b t"], mask: Tensor | None, memory: TitansCache, pad: int | None) -> Tensor | None:
    """The mask that tells `generate` whether ids are new, or begin with all that was read.

    transformers takes ids for the latter wherever the mask is as long as they are. So new ids get a mask with a column
    for each token read before; ids that begin with all of it keep their own.
    """
    if (mask is None or mask.shape == ids.shape) and memory.begins(ids):
        return mask
    if mask is None:
        if pad is not None and bool((ids == pad).any()):
            raise ValueError(f"attention_mask must say which of the new ids are padding: pad_token_id {pad} is in them")
        mask = torch.ones_like(ids)
    if mask.shape != ids.shape:
        return mask
    return torch.cat([mask.new_ones(len(mask), memory.get_seq_length()), mask], dim=1)
