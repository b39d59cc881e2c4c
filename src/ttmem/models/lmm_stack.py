"""A Titans LMM on the (segment, layer) grid: its recurrence stays inside each layer, so it may be walked diagonally.

    x ──► norm ──► memory ──► + x ──► norm ──► SwiGLU ──► + x        lmm.py's block, for a group of layers at once

The layers' weights are stacked on the way (gradients reach the model's own), and each sample, layer and head is a row
of `core.chunkwise`. An LMM may be cut anywhere, so this is the model itself, not another one. The other Titans are not
here: mac's segments, mag's and mal's windows would need grouped sliding attention with a past per layer.
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from ..core.chunkwise import ChunkState, Form, Rows, chunkwise
from ..core.schedule import FOLDS, Grid, Stack
from ..core.state import State, Tree
from ..memories.long_term import LongTermState, form_of, opened, split
from ..nn.conv import causal_conv
from ..nn.ragged import latest
from ..nn.stacked import linear, rms_norm, swiglu
from .lmm import LMM
from .segments import cut
from .titans import Titans

PARTS = ("fast", "velocity", "anchor")


def walk(
    model: Titans, ids: Int[Tensor, "b t"], state: State | None = None, segment: int = 64, schedule: str = "diagonal"
) -> tuple[Float[Tensor, "b t d"], State]:
    """`model.hidden` of right-padded ids, segment by segment; padding gives zeros.

    Rows that end inside a chunk keep their place in it.

    Raises ValueError unless the model is an LMM, the state its own, and `segment` a multiple of its chunk: in a group
    layers stand at different segments, and must stand at the same place of their chunks.
    """
    chunk = model.config.chunk_size
    if segment < 1 or segment % chunk:
        raise ValueError(f"segment must be a multiple of chunk_size = {chunk}, got {segment}")
    if schedule not in FOLDS:
        raise ValueError(f"schedule must be one of {', '.join(FOLDS)}, got {schedule!r}")
    stack, state = lmm_stack(model), fitted(model, state, len(ids))
    cuts = rearrange(cut(ids, model.config.pad, size=segment), "b s t -> s b t")
    real = cuts != model.config.pad
    tops, tree = FOLDS[schedule](stack, tree_of(state), Grid(model.embedding(cuts.clamp_min(0)), real.sum(-1)))
    hidden = rearrange(model.norm(tops).masked_fill(~real[..., None], 0), "s b t d -> b (s t) d")
    hidden = F.pad(hidden, (0, 0, 0, max(ids.shape[1] - hidden.shape[1], 0)))[:, : ids.shape[1]]
    return hidden, State(state_of(tree, state), (), state.step + ids.shape[1])


def lmm_stack(model: Titans) -> Stack:
    """The blocks as one stack; ValueError for a model that is no LMM."""
    first: Any = model.blocks[0]
    if not isinstance(first.mixer, LMM):
        raise ValueError(
            f"architecture must be lmm to be walked in groups of layers, got {model.config.architecture!r}"
        )
    names = [name for name, _ in first.named_parameters() if not name.endswith("persistent") and ".init." not in name]
    weights = {name: torch.stack([block.get_parameter(name) for block in model.blocks]) for name in names}
    options, sizes = model.config.memory, first.mixer.memory.gates.sizes

    def cell(weights: Tree, x: Tensor, state: Tree, lengths: Tensor) -> tuple[Tensor, Tree]:
        own = {name.removeprefix("mixer.memory."): weight for name, weight in weights.items()}
        seen = rms_norm(x, own["mixer.norm.weight"])
        qkv = linear(seen, own["qkv.weight"].mT).to(state["conv"].dtype)
        heard, tail = convolved(qkv, state["conv"], own.get("conv.weight"), lengths)
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = split(heard.flatten(0, 1), options.heads)
            rows = Rows(q, k, v, *gates(own, seen, options, sizes))
            each = repeat(lengths, "g b -> (g b h)", h=options.heads)
            y, memory = chunkwise(chunk_state(state), rows, form(own, options, x.shape[1]), each)
        y = rearrange(y, "(g b h) t e -> g (b t h) 1 e", g=len(x), h=options.heads, b=x.shape[1])
        y = rms_norm(y.to(own["out_norm.weight"].dtype), own["out_norm.weight"]).to(seen.dtype)
        y = rearrange(y, "g (b t h) 1 e -> g b t (h e)", b=x.shape[1], h=options.heads)
        x = x + linear(y * F.silu(linear(seen, own["out_gate.weight"].mT)), own["out.weight"].mT)
        fed = swiglu(rms_norm(x, own["norm.weight"]), own["feed.up.weight"].mT, own["feed.down.weight"].mT)
        return x + fed, chunk_tree(memory, len(x)) | {"conv": tail}

    return Stack(cell, weights)


def convolved(
    qkv: Float[Tensor, "g b t c"], past: Float[Tensor, "g b p c"], kernel: Tensor | None, lengths: Int[Tensor, "g b"]
) -> tuple[Tensor, Tensor]:
    """The convolution over a text whose last tokens are `past`, and the last tokens it leaves."""
    tail = latest(past.flatten(0, 1), qkv.flatten(0, 1), lengths.flatten()).unflatten(0, lengths.shape)
    if kernel is None:
        return qkv, tail
    return causal_conv(qkv, kernel, past), tail


def gates(own: Tree, seen: Float[Tensor, "g b t d"], options: Any, sizes: list[int]) -> tuple:
    """theta, log eta and log(1 - alpha), as `Rows` wants them."""
    weight = own["gates.linear.weight"].mT
    said = linear(seen.to(weight.dtype), weight) + own["gates.linear.bias"][:, None, None]
    return opened(rearrange(said, "g b t (h n) -> (g b h) t n", h=options.heads), options, sizes)


def form(own: Tree, options: Any, batch: int) -> Form:
    """How the memories of a group are walked."""
    names = ("norm_gain", "norm_bias") if options.norm else ()
    return form_of(options, *(repeat(own[name], "g h d -> (g b h) d", b=batch) for name in names))


def fitted(model: Titans, state: State | None, batch: int) -> State:
    """The state that a walk begins with; ValueError for one of another batch or model."""
    if state is None:
        return model.start(batch)
    layers, made = list(model.checked(state, batch).fast.items()), {}
    for (name, own), block in zip(layers, model.blocks, strict=True):
        layer: Any = block
        made[name] = layer.mixer.memory.fitted(own, batch)
    return state._replace(fast=made)


def tree_of(state: State) -> Tree:
    """The layers' states as one tree that leads with the layer."""
    layers: list[LongTermState] = list(state.fast.values())  # type: ignore[arg-type]
    trees = [chunk_tree(each.memory, 1) | {"conv": each.conv[None]} for each in layers]
    return {name: torch.cat([tree[name] for tree in trees]) for name in trees[0]}


def state_of(tree: Tree, like: State) -> dict[str, Any]:
    """The layers' states again."""
    made: dict[str, Any] = {}
    for i, (layer, own) in enumerate(like.fast.items()):
        part = {name: leaf[i : i + 1] for name, leaf in tree.items()}
        made[layer] = own._replace(memory=chunk_state(part), conv=part["conv"][0])  # type: ignore[attr-defined]
    return made


def chunk_tree(memory: ChunkState, group: int) -> Tree:
    """A memory's tensors by name, the group in front of its rows."""
    named = {f"{part}.{name}": leaf for part in PARTS for name, leaf in getattr(memory, part).items()}
    return {name: leaf.unflatten(0, (group, -1)) for name, leaf in (named | {"seen": memory.seen}).items()}


def chunk_state(tree: Tree) -> ChunkState:
    """The memory again, its group and rows as one dimension."""
    parts = {
        part: {
            name.removeprefix(f"{part}."): leaf.flatten(0, 1) for name, leaf in tree.items() if name.startswith(part)
        }
        for part in PARTS
    }
    return ChunkState(**parts, seen=tree["seen"].flatten())
