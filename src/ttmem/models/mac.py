"""MAC, memory as context: each segment is attended together with what the memory recalls for it (Titans, arXiv
2501.00663, section 4.1).

    memory before the segment ──► h = M*(q(segment))
    y = x + attention over [persistent ‖ h ‖ segment]   token i sees h_j and segment_j for j <= i
    memory ──► written with y, token by token; m = M_i(y)
    out = gate(y, m) ──► + y

Read literally, the paper lets the future in: token i would see h of later tokens, and read a memory written with the
whole segment. Here it sees h up to its own place, and reads M_i, which knows tokens up to i.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.chunkwise import common_phase
from ..core.state import Tree
from ..memories.handover import adopted
from ..memories.long_term import LongTermMemory, LongTermState
from ..nn.layers import RMSNorm, turn
from ..nn.window import Window, empty_window, newest, turns
from .mag import Gate
from .sliding import SlidingAttention
from .titans_config import TitansConfig


class MACState(NamedTuple):
    """The memory, and where the running segment stands.

    `segment` are the memory's weights where it began, `tokens` keys and values of its tokens so far, `recalled` of what
    was recalled for them (or of the memory tokens, which all of them see), `place` how many tokens of it were read.
    """

    memory: LongTermState
    segment: Tree
    tokens: Window
    recalled: Window
    place: Int[Tensor, "b"]


class MAC(nn.Module):
    """Segment attention over recalled memory, as a block's mixer."""

    carries = MACState

    def __init__(self, config: TitansConfig):
        super().__init__()
        self.size, self.heads = config.segment_size, config.heads
        self.norm, self.norm_h, self.norm_y = (RMSNorm(config.dim) for _ in range(3))
        self.memory = LongTermMemory(**vars(config.memory))
        self.attention = SlidingAttention(config, config.segment_size, config.persistent_tokens)
        self.gate = Gate(config)
        self.queries = nn.Parameter(torch.randn(config.memory_tokens, config.dim)) if config.memory_tokens else None

    def start(self, batch: int) -> MACState:
        """Nothing read."""
        memory, tokens = self.memory.start(batch), self.attention.start(batch)
        recalled, place = tokens, torch.zeros_like(tokens.count)
        if self.queries is not None:
            weight = self.attention.qkv.weight
            slots = len(self.queries) + 1
            recalled = empty_window(batch, self.heads, slots, weight.shape[1] // self.heads, weight)
        return MACState(memory, memory.memory.fast, tokens, recalled, place)

    def fitted(self, state: MACState, batch: int) -> MACState:
        """The state in the float types that `start` gives it; ValueError for that of another batch or model."""
        self.check_segment(state, batch)
        memory = self.memory.fitted(state.memory, batch)
        segment = adopted(state.segment, memory.memory.fast["w1"].dtype)
        tokens, recalled = self.attention.fitted(state.tokens), self.attention.fitted(state.recalled)
        return MACState(memory, segment, tokens, recalled, state.place)

    def check(self, state: MACState, batch: int) -> None:
        """Raise ValueError for the state of another batch or model."""
        self.check_segment(state, batch)
        self.memory.check(state.memory, batch)

    def check_segment(self, state: MACState, batch: int) -> None:
        """Raise ValueError for a running segment of another batch, size, number of memory tokens, or width."""
        if len(state.place) != batch:
            raise ValueError(f"state must be of a batch of {batch}, got one of {len(state.place)}")
        held = state.tokens.keys.shape[2] + 1
        if held != self.size:
            raise ValueError(f"state must be of segment_size {self.size}, it is of {held}")
        own, found = 0 if self.queries is None else len(self.queries), state.recalled.keys.shape[2]
        if found != (own or self.size - 1):
            raise ValueError(f"state must be of memory_tokens={own}, it has {found} recalled ones")
        self.attention.check(state.tokens, batch)

    def forward(
        self, x: Float[Tensor, "b t d"], state: MACState, lengths: Int[Tensor, "b"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], MACState]:
        """Segment by segment; where rows stand at different places of theirs, up to the next end of any."""
        state = self.fitted(state, len(x))
        outs, done, t = [], 0, x.shape[1]
        place = common_phase(state.place, self.size)
        while done < t:
            at = state.place % self.size
            at = at if lengths is None else torch.where(lengths > done, at, 0)  # rows that have ended bound no piece
            room = self.size - (int(at.max()) if place is None else place)
            end = min(t, done + room)
            there = None if lengths is None else (lengths - done).clamp(0, end - done)
            y, state = self.piece(x[:, done:end], state if place else self.renewed(state, there), there)
            outs.append(y)
            done, place = end, None if place is None else 0
        return torch.cat(outs, dim=1), state

    def piece(
        self, x: Float[Tensor, "b t d"], state: MACState, lengths: Int[Tensor, "b"] | None
    ) -> tuple[Float[Tensor, "b t d"], MACState]:
        """Tokens of one segment."""
        t = x.shape[1]
        segment = self.norm(x)
        recall = None if self.queries is not None else self.norm_h(self.memory.recall(state.segment, segment))
        y, state = self.attend(segment, recall, state, lengths)
        y = x + y  # with the token itself: of attention alone the memory would learn mixtures, and no needle
        recalled, memory = self.memory.go_on(self.norm_y(y), state.memory, lengths)
        place = state.place + (t if lengths is None else lengths)
        return y + self.gate(y, recalled), state._replace(memory=memory, place=place)

    def renewed(self, state: MACState, lengths: Int[Tensor, "b"] | None) -> MACState:
        """The state where rows begin a segment: they recall from the memory as it is now, and see no segment before."""
        begins = state.place % self.size == 0
        begins = begins if lengths is None else begins & (lengths > 0)
        now, pick = state.memory.memory.fast, begins.repeat_interleave(len(state.segment["w1"]) // len(begins))
        segment = {name: torch.where(pick[:, None, None], w, state.segment[name]) for name, w in now.items()}
        tokens, recalled = emptied(state.tokens, begins), state.recalled
        if self.queries is None:
            recalled = emptied(recalled, begins)
        else:
            asked = self.norm_h(self.memory.recall(segment, self.queries.expand(len(begins), -1, -1)))
            k, v = self.attention.shown(asked)
            recalled = Window(k, v, torch.full_like(begins, k.shape[2], dtype=torch.long))
        place = torch.where(begins, 0, state.place)
        return MACState(state.memory, segment, tokens, recalled, place)

    def attend(
        self, x: Float[Tensor, "b t d"], recall: Tensor | None, state: MACState, lengths: Int[Tensor, "b"] | None
    ) -> tuple[Float[Tensor, "b t d"], MACState]:
        """`y`: attention of the segment's tokens over what is always in view, what was recalled, and the segment."""
        q, k, v = self.attention.project(x)
        t, width = x.shape[1], state.tokens.keys.shape[2]
        seen = [grown(state.tokens, k, v)]
        prefix = self.attention.prefix()
        always = [] if prefix is None else [prefix]
        if recall is None:
            always.append((state.recalled.keys, state.recalled.values))
        else:
            k, v = self.attention.shown(recall)
            seen.append(grown(state.recalled, k, v))
        y = joint_attention(q, seen, always)
        kept = [newest(each, t, width, lengths) for each in seen]
        state = state._replace(tokens=kept[0], recalled=kept[1] if len(kept) > 1 else state.recalled)
        return self.attention.out(rearrange(y, "b h t e -> b t (h e)")), state


def emptied(window: Window, rows: Bool[Tensor, "b"]) -> Window:
    """The window, with nothing in the rows picked."""
    pick = rows[:, None, None, None]
    keys, values = (x.masked_fill(pick, 0) for x in window[:2])
    return Window(keys, values, window.count.masked_fill(rows, 0))


def grown(past: Window, k: Tensor, v: Tensor) -> Window:
    """The past with new tokens behind it; `count` still counts the real ones of the past."""
    return Window(torch.cat([past.keys, k], dim=2), torch.cat([past.values, v], dim=2), past.count)


def joint_attention(
    q: Float[Tensor, "b h t e"], seen: list[Window], always: list[tuple[Tensor, Tensor]]
) -> Float[Tensor, "b h t e"]:
    """One softmax over causal keys of equal places (`seen`, turned by their places) and keys without one (`always`)."""
    t, s = q.shape[2], seen[0].keys.shape[2]
    scale, keys = q.shape[-1] ** -0.5, torch.arange(s, device=q.device)
    row = torch.arange(s - t, s, device=q.device)
    visible = (keys <= row[:, None]) & (keys >= (s - t) - seen[0].count[:, None, None, None])
    cos, sin = turns(s, q)
    turned = turn(q, cos[s - t :], sin[s - t :])
    logits = [(q @ k.mT) for k, _ in always]
    logits += [(turned @ turn(w.keys, cos, sin).mT).masked_fill(~visible, -torch.inf) for w in seen]
    share = (torch.cat(logits, dim=-1) * scale).softmax(-1)
    values = [v.expand(len(q), -1, -1, -1) for _, v in always] + [w.values for w in seen]
    return share @ torch.cat(values, dim=2)
