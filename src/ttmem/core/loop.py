"""The inner loop: one way to write, folded over a stream.

Titans folds over chunks of tokens, GradMem K times over one context, RMT4 over segments; all of them through here.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .gradient import META_GRADIENTS, at_step, check_meta_gradient, surprise
from .objectives import Objective
from .rates import RateSource
from .rules import Rule
from .state import Log, State, Tree, detach, row_norm, usable

Step = Callable[[State, Any], tuple[State, Log]]
"""`step(state, data) -> (state, log)`: any way to write."""

Gradient = Callable[[Tree, Any], tuple[Tree, Tensor]]
"""`gradient(fast, data) -> (grads, losses)`: autograd's (`surprise`), or one written by hand."""


def begin(rule: Rule, fast: Tree) -> State:
    """A state that no write has touched."""
    return State(fast, rule.start(fast))


def gradient_step(objective: Objective, rule: Rule, rates: RateSource, meta: str = "second") -> Step:
    """A write by one gradient step of `objective`.

    `meta` is `second` (the outer loop differentiates through the gradient), `first` (the gradient is a constant to it:
    first-order MAML), or `none` (the written memory itself is a constant).
    """
    if check_meta_gradient(meta) not in META_GRADIENTS:
        raise ValueError(f"one step has no meta_gradient {meta!r}: use scheduled_step, which knows how many there are")

    step = step_along(lambda fast, data: surprise(objective, fast, data, meta), rule, rates)

    def constant(state: State, data: Any) -> tuple[State, Log]:
        written, log = step(state, data)
        return detach(written), log

    return constant if meta == "none" else step


def step_along(gradient: Gradient, rule: Rule, rates: RateSource) -> Step:
    """A write by one step of `rule` along any gradient."""

    def step(state: State, data: Any) -> tuple[State, Log]:
        state = usable(state)
        grads, losses = gradient(state.fast, data)
        change, velocity = rule.update(grads, state.velocity, state.fast, rates(state.step, data))
        fast = {name: weight + change[name] for name, weight in state.fast.items()}
        return State(fast, velocity, state.step + 1), Log(losses, row_norm(grads).detach())

    return step


def fold(step: Step, state: State, stream: Iterable[Any], recompute: bool = False) -> tuple[State, Log]:
    """Write a stream, item by item; the log's fields are `(writes, batch)`.

    With `recompute` the backward pass runs each step again instead of keeping its activations, so memory grows
    little with the number of writes: by the states, and by what of a step lies beside the way to the fast weights, such
    as a first norm of the input; the results are the same, bit for bit.
    """
    logs = []
    for data in stream:
        state, log = _recomputed(step, state, data) if recompute else step(state, data)
        logs.append(log)
    if not logs:
        empty = next(iter(state.fast.values())).new_zeros(0, len(next(iter(state.fast.values()))))
        return state, Log(empty, empty)
    return state, Log(*(torch.stack(part) for part in zip(*logs, strict=True)))


def scheduled_step(objective: Objective, rule: Rule, rates: RateSource, meta: str, steps: int) -> Step:
    """`gradient_step` for a write of `steps` steps, each with its share of the meta-gradient (`last_K`)."""
    kinds = [gradient_step(objective, rule, rates, at_step(check_meta_gradient(meta), i, steps)) for i in range(steps)]

    def step(state: State, data: Any) -> tuple[State, Log]:
        if state.step >= steps:
            raise ValueError(f"steps must be above {state.step}, which are done, for a write to go on, got {steps}")
        return kinds[state.step](state, data)

    return step


def _recomputed(step: Step, state: State, data: Any) -> tuple[State, Log]:
    # What compiled code keeps or computes again is the compiler's choice; torch.func inside a checkpoint is refused.
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return step(state, data)
    return checkpoint(step, state, data, use_reentrant=False, preserve_rng_state=False)
