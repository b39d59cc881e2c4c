"""Memories of one layer each, for all layers of a stack at once: what ARMT and PRMT4 keep from segment to segment.

    AssociativeMatrix   A, z     memory tokens write by a delta rule      read:  A phi(q) / (z . phi(q))
    LayerNetwork        w1 ..    gradient steps of ||M(k) - target||^2    read:  gate(x) norm(M(q))

Weights and states are trees whose tensors lead with the group of layers, `(g, ...)`; nothing here is a module, so that
a schedule may run any of the layers together (`core.schedule`).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.loop import fold, step_along
from ..core.network import read, surprises, unit
from ..core.rates import Rates
from ..core.rules import chain, forget, sgd, titans
from ..core.state import State, Tree
from ..nn.conv import causal_conv
from ..nn.stacked import linear, rms_norm
from .base import wide

TARGETS = ("value", "hidden", "residual")
BOUNDS = ("sum", "overlap")
EPS = 1e-5


def dpfp(x: Float[Tensor, "*b e"], nu: int) -> Float[Tensor, "*b f"]:
    """Features phi: products of the rectified channels with their neighbours 1 to nu places away, of length 1.

        r = [relu(x), relu(-x)],   phi = [r * roll(r, 1), .., r * roll(r, nu)] / |.|

    Source: Schlag et al. 2021 (arXiv 2102.11174), eq. 37; the length as in ARMT's code.

    >>> dpfp(torch.tensor([[3.0, -2.0]]), nu=1).shape
    torch.Size([1, 4])
    """
    r = torch.cat([x.relu(), (-x).relu()], dim=-1)
    return F.normalize(torch.cat([r * r.roll(j, -1) for j in range(1, nu + 1)], dim=-1), dim=-1)


@dataclass(frozen=True)
class AssociativeMatrix:
    """ARMT's memory of a layer: a matrix A from features of keys to values, and z, what keys it has seen.

        v_bar = A phi(k) / (z . phi(k) + eps)                           what the memory says so far
        gamma = clamp(1 - z . phi(k) / |phi(k)|^2, 0, 1)                how new the key is; a constant to the outer loop
        A <- A + sum beta (v - v_bar) phi(k)^T,    z <- z + sum gamma phi(k)

    Sums are over the segment's memory tokens, all of them at the memory before the segment. A is kept transposed,
    `(g, b, features, dim)`. Source: ARMT (arXiv 2407.04841), section 3, and its code.

    Args:
        dim: width of the layer; key: width of queries and keys; features: nu of DPFP (2 key nu numbers per key).
    """

    dim: int
    key: int
    features: int = 3

    def weights(self, layers: int, small: float) -> Tree:
        """Initial weights; values, which go to the residual stream, have deviation `small`."""
        scale = self.dim**-0.5
        return {
            "norm_read": torch.ones(layers, self.dim),
            "norm_write": torch.ones(layers, self.dim),
            "memory_q": torch.randn(layers, self.dim, self.key) * scale,
            "memory_k": torch.randn(layers, self.dim, self.key) * scale,
            "memory_v": torch.randn(layers, self.dim, self.dim) * small,
            "memory_rate": torch.zeros(layers, self.dim, 1),
        }

    def start(self, layers: int, batch: int, like: Tensor) -> Tree:
        """Nothing written: A and z are zero, and reading gives zero."""
        zero = wide(like.new_zeros(layers, batch, 2 * self.key * self.features, self.dim + 1))
        return {"a": zero[..., :-1].contiguous(), "z": zero[..., -1].contiguous()}

    def read(self, weights: Tree, state: Tree, x: Float[Tensor, "g r t d"]) -> Float[Tensor, "g r t d"]:
        """What each token recalls; the rows may be several questions (r = b q) to each memory."""
        phi = self.phi(linear(rms_norm(x, weights["norm_read"]), weights["memory_q"]))
        said, _ = self.recall(state, rearrange(phi, "g (b q) t f -> g b (q t) f", b=state["z"].shape[1]))
        return said.reshape(x.shape).to(x.dtype)

    def write(self, weights: Tree, state: Tree, tokens: Float[Tensor, "g b m d"], active: Bool[Tensor, "g b"]) -> Tree:
        """The memory behind a segment, of what its memory tokens became; rows not active keep theirs as it is."""
        with torch.autocast(tokens.device.type, enabled=False):
            return self.written(weights, state, rms_norm(tokens, weights["norm_write"]), active)

    def written(self, weights: Tree, state: Tree, tokens: Tensor, active: Tensor) -> Tree:
        """The memory behind normed memory tokens."""
        phi, value = self.phi(linear(tokens, weights["memory_k"])), wide(linear(tokens, weights["memory_v"]))
        here = active[..., None, None].to(phi.dtype)
        beta = wide(linear(tokens, weights["memory_rate"])).sigmoid() * here
        known, seen = self.recall(state, phi)
        gamma = (1 - seen / phi.square().sum(-1, keepdim=True).clamp_min(EPS)).clamp(0, 1).detach() * here
        return {
            "a": state["a"] + phi.mT @ (beta * (value - known)),
            "z": state["z"] + (gamma * phi).sum(2),
        }

    def recall(self, state: Tree, phi: Float[Tensor, "g b t f"]) -> tuple[Tensor, Tensor]:
        """`A phi / (z . phi + eps)`, and `z . phi`."""
        with torch.autocast(phi.device.type, enabled=False):
            seen = phi @ state["z"][..., None]
            return (phi @ state["a"]) / (seen + EPS), seen

    def phi(self, x: Float[Tensor, "g b t e"]) -> Float[Tensor, "g b t f"]:
        """Features, at least in float32."""
        return dpfp(wide(x), self.features)


class Pass(NamedTuple):
    """What a layer did on a segment: its normed input, which keys are made of, its input and its output."""

    seen: Float[Tensor, "g b t d"]
    x: Float[Tensor, "g b t d"]
    y: Float[Tensor, "g b t d"]


@dataclass(frozen=True)
class LayerNetwork:
    """PRMT4's memory of a layer: a small network M per head, written by gradient steps on the layer's own states.

        grad = d/dM  sum_t theta_t ||M(k_t) - target_t||^2              all tokens of the segment at the same M
        S <- eta S - grad,    M <- (1 - alpha) M + S                    `steps` times

    theta_t = w_t / max(1, c_t) / 2, with `damped` (1 - eta) times that; w_t in (0, 1) is from the token, and c_t what
    the segment writes at its key:

        bound sum       c_t = sum_j w_j                 all tokens share one step; only sums over tokens are made
        bound overlap   c_t = sum_j w_j |k_t . k_j|     tokens whose keys are unlike get a step each; makes (t, t)

    With |k| = 1 neither lets a step of a linear memory overshoot, whatever the w and however long the segment: its
    error, each token's weighed by theta_t, falls (a Jacobi step: the rows of diag(1/c) |K K^T| diag(w) sum to 1 at
    most, so no eigenvalue of K K^T diag(theta) is above 1/2). Momentum goes on after the step, in all 1 / (1 - eta)
    times as far: a pair that comes back after others is overshot from eta = .5 on, and its error grows without bound.
    `damped` takes that into the step, so that it goes as far as one without momentum.

    eta and alpha come from the mean over the segment. The gradient is the chunk-wise engine's
    (`core.network.surprises`), the step one of `core.rules`; without momentum it is `core.chunkwise` with the segment
    as its chunk (tests).

    Args:
        dim: width of the layer; heads: memories side by side.
        depth, expansion: matrices of a memory (1: a linear map), and width between them as a multiple of the head's.
        steps: gradient steps K for each segment.
        target: value (a projection of the input), hidden (the layer's output), residual (output - input).
        conv: kernel of the causal convolution over queries, keys and values; 0: none.
        momentum: whether past surprise carries on; clip: largest norm of one token's surprise in one matrix;
            None: any.
        bound: sum or overlap, as above; overlap speaks of a linear memory.
        damped: whether theta has the factor 1 - eta, as above.
    """

    dim: int
    heads: int = 4
    depth: int = 1
    expansion: int = 2
    steps: int = 1
    target: str = "value"
    conv: int = 4
    momentum: bool = True
    clip: float | None = 10.0
    bound: str = "sum"
    damped: bool = False

    @property
    def widths(self) -> list[int]:
        """Channels before, between and behind the matrices of a memory."""
        head = self.dim // self.heads
        return [head] + [head * self.expansion] * (self.depth - 1) + [head]

    def weights(self, layers: int, small: float) -> Tree:
        """Initial weights; the output, which goes to the residual stream, has deviation `small`."""
        dim, wide_kv = self.dim, self.dim * (2 if self.target == "value" else 1)
        first = torch.tensor([-1.0, *[-1.0] * self.momentum, -5.0])  # w .27, eta .27, alpha .007
        bias = repeat(first, "n -> layers (h n depth)", layers=layers, h=self.heads, depth=self.depth)
        convs = {"conv_q": dim, "conv_kv": wide_kv} if self.conv else {}
        kernels = {n: torch.randn(layers, self.conv, width) * 0.3 * self.conv**-0.5 for n, width in convs.items()}
        return kernels | {
            "norm_read": torch.ones(layers, dim),
            "norm_out": torch.ones(layers, dim),
            "memory_q": torch.randn(layers, dim, dim) * dim**-0.5,
            "memory_kv": torch.randn(layers, dim, wide_kv) * dim**-0.5,
            "memory_rates": torch.randn(layers, dim, bias.shape[1]) * 0.02,
            "memory_bias": bias.clone(),
            "memory_gate": torch.randn(layers, dim, dim) * 0.02,
            "memory_out": torch.randn(layers, dim, dim) * small,
        }

    def init(self, layers: int) -> Tree:
        """Learned initial memories: the last matrix starts at zero, so that at first a memory says what was written."""
        pairs = list(zip(self.widths[:-1], self.widths[1:], strict=True))
        made = {f"w{i + 1}": torch.randn(layers, self.heads, a, b) * a**-0.5 for i, (a, b) in enumerate(pairs)}
        return made | {f"w{self.depth}": torch.zeros(layers, self.heads, *pairs[-1])}

    def start(self, init: Tree, batch: int) -> Tree:
        """The initial memory of every row, `(g, b, h, ...)`, and no momentum, under `s1 ..`."""
        fast = {name: repeat(wide(w), "g h i o -> g b h i o", b=batch).clone() for name, w in init.items()}
        past = {f"s{name[1:]}": torch.zeros_like(w) for name, w in fast.items()} if self.momentum else {}
        return fast | past

    def read(self, weights: Tree, state: Tree, seen: Float[Tensor, "g r t d"]) -> Float[Tensor, "g r t d"]:
        """What each token recalls; the rows may be several questions (r = b q) to each memory."""
        g, batch = state["w1"].shape[:2]
        q = self.project(weights, seen, "q")
        rows = rearrange(unit(q), "g (b q) t h e -> (g b h) (q t) e", b=batch)
        with torch.autocast(rows.device.type, enabled=False):
            said = read({name: state[name].flatten(0, 2) for name in self.names}, rows)
        # eps: a memory that says nothing, as before its first write, must not have gradients without bound
        said = F.rms_norm(said, said.shape[-1:], eps=1e-4).to(seen.dtype)
        said = rearrange(said, "(g b h) (q t) e -> g (b q) t (h e)", g=g, b=batch, t=seen.shape[2])
        said = said * weights["norm_out"][:, None, None] * linear(seen, weights["memory_gate"]).sigmoid()
        return linear(said, weights["memory_out"])

    def write(
        self, weights: Tree, state: Tree, done: Pass, real: Bool[Tensor, "g b t"], steps: int | None = None
    ) -> Tree:
        """The memory behind a segment, of which the tokens that are `real` count; a row without any keeps its own."""
        with torch.autocast(done.x.device.type, enabled=False):
            k, v = self.associations(weights, done)
            weight, momentum, forget = self.rates(weights, done.seen, real)
            theta = self.theta(weight, k) * (1 - momentum if self.damped else 1)
            rates = Rates(1.0, self.by_name(momentum), self.by_name(forget))
            step = step_along(self.gradient, RULES[self.momentum], lambda step, data: rates)
            times = self.steps if steps is None else steps
            written, _ = fold(step, self.rows(state), [(k, v, theta)] * times)
        past = {f"s{name[1:]}": s for name, s in written.velocity[0].items()} if self.momentum else {}
        leaves = written.fast | past
        active = rearrange(real.any(-1), "g b -> g b 1 1 1")
        return {name: torch.where(active, leaves[name].view_as(old), old) for name, old in state.items()}

    def rows(self, state: Tree) -> State:
        """A state as the engine has it: a row for each layer, sample and head."""
        flat = {name: leaf.flatten(0, 2) for name, leaf in state.items()}
        fast = {name: flat[name] for name in self.names}
        past = {name: flat[f"s{name[1:]}"] for name in fast} if self.momentum else ()
        return State(fast, (past, ()))

    @property
    def names(self) -> list[str]:
        """The matrices in a state."""
        return [f"w{i + 1}" for i in range(self.depth)]

    def gradient(self, fast: Tree, data: tuple[Tensor, Tensor, Tensor]) -> tuple[Tree, Tensor]:
        """The gradient of `sum_t theta_t ||M(k_t) - v_t||^2` for data `(k, v, theta)`, and that sum before the step."""
        k, v, theta = data
        found = surprises(fast, k, v, None, self.clip)
        grads = {
            name: (a * theta[..., i : i + 1]).mT @ delta
            for i, (name, (a, delta)) in enumerate(zip(fast, found, strict=True))
        }
        error = found[-1][1].detach() / 2
        return grads, (theta[..., -1] * error.square().sum(-1)).sum(-1).detach()

    def associations(self, weights: Tree, done: Pass) -> tuple[Tensor, Tensor]:
        """Keys of length 1, and what the memory shall say to them, a row for each layer, sample and head."""
        parts = self.project(weights, done.seen, "kv")
        k, *v = parts.split(self.heads, dim=3)  # no v where the layer itself gives the target
        target = v[0] if v else wide(done.y if self.target == "hidden" else done.y - done.x)
        target = target if v else rearrange(target, "g b t (h e) -> g b t h e", h=self.heads)
        k, target = (rearrange(part, "g b t h e -> (g b h) t e") for part in (unit(k), target))
        return k, target

    def project(self, weights: Tree, seen: Float[Tensor, "g r t d"], part: str) -> Float[Tensor, "g r t n e"]:
        """Queries ("q"), or keys and values ("kv"), behind convolution and silu, by heads."""
        x = linear(seen, weights[f"memory_{part}"])
        x = causal_conv(x, weights[f"conv_{part}"]) if self.conv else x
        return rearrange(wide(F.silu(x)), "g r t (n e) -> g r t n e", e=self.dim // self.heads)

    def rates(
        self, weights: Tree, seen: Float[Tensor, "g b t d"], real: Bool[Tensor, "g b t"]
    ) -> tuple[Float[Tensor, "n t l"], Float[Tensor, "n 1 l"], Float[Tensor, "n 1 l"]]:
        """w of every token, row and matrix, and of every row and matrix the momentum and forgetting of the step."""
        said = wide(linear(seen, weights["memory_rates"]) + weights["memory_bias"][:, None, None])
        here = repeat(real, "g b t -> (g b h) t 1", h=self.heads).to(said.dtype)
        said = rearrange(said, "g b t (h n) -> (g b h) t n", h=self.heads)
        weight, *means = said.split(self.depth, dim=-1)
        count = here.sum(1, keepdim=True).clamp_min(1)
        *momentum, forget = [((mean * here).sum(1, keepdim=True) / count).sigmoid() for mean in means]
        return weight.sigmoid() * here, momentum[0] if momentum else torch.zeros_like(forget), forget

    def theta(self, weight: Float[Tensor, "n t l"], k: Float[Tensor, "n t e"]) -> Float[Tensor, "n t l"]:
        """The step of every token and matrix, of the weights w and the keys."""
        crowd = weight.sum(1, keepdim=True) if self.bound == "sum" else (k @ k.mT).abs() @ weight
        return weight / crowd.clamp_min(1) / 2

    def by_name(self, rates: Float[Tensor, "n 1 l"]) -> Tree:
        """The rate of each matrix."""
        return {name: rates[..., i : i + 1] for i, name in enumerate(self.names)}


RULES = {True: titans(), False: chain(sgd(), forget())}
"""With momentum and without; both forget."""
