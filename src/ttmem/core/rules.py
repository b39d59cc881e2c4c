"""Write rules: from a surprise to a change of the fast weights. Small, pure, and made to be chained.

A rule is a pair of functions, as in optax: `start(fast)` gives what it remembers at first, and
`update(change, memo, fast, rates)` turns the change proposed so far into a new one. The first rule of a chain is handed
the gradient; the last one's change is added to the fast weights. Everything is differentiable.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .rates import Rates, rate_of
from .state import Tree, row_norm

# Annotations of inner functions are plain names: torch.compile cannot follow a subscript.
Updated = tuple[Tree, Any]


class Rule(NamedTuple):
    """`start(fast) -> memo` and `update(change, memo, fast, rates) -> (change, memo)`."""

    start: Callable[[Tree], Any]
    update: Callable[[Tree, Any, Tree, Rates], tuple[Tree, Any]]


def _scaled(rate: float | Tensor, leaf: Tensor) -> Tensor:
    """rate * leaf, where a rate with fewer dimensions than the leaf belongs to its leading (batch) dimensions."""
    if isinstance(rate, Tensor) and 0 < rate.ndim < leaf.ndim:
        rate = rate.reshape(rate.shape + (1,) * (leaf.ndim - rate.ndim))
    return (rate * leaf).to(leaf.dtype)


def _memoryless(update: Callable[[Tree, Tree, Rates], Tree]) -> Rule:
    return Rule(lambda fast: (), lambda change, memo, fast, rates: (update(change, fast, rates), ()))


def _zeros(fast: Tree) -> Tree:
    return {name: torch.zeros_like(leaf) for name, leaf in fast.items()}


def sgd() -> Rule:
    """Plain descent: `change = -lr * gradient`."""
    return _memoryless(lambda grads, fast, rates: {n: -_scaled(rate_of(rates.lr, n), g) for n, g in grads.items()})


def momentum() -> Rule:
    """Past surprise: `S_t = momentum * S_{t-1} - lr * gradient` (Titans, eq. 10); the change is S_t."""

    def update(grads: Tree, past: Tree, fast: Tree, rates: Rates) -> Updated:
        velocity = {
            n: _scaled(rate_of(rates.momentum, n), past[n]) - _scaled(rate_of(rates.lr, n), g) for n, g in grads.items()
        }
        return velocity, velocity

    return Rule(_zeros, update)


def forget() -> Rule:
    """Forgetting: the fast weights shrink by `forget` before the change is added (Titans, eq. 13)."""
    return _memoryless(
        lambda change, fast, rates: {n: c - _scaled(rate_of(rates.forget, n), fast[n]) for n, c in change.items()}
    )


def clip(limit: float) -> Rule:
    """Each row's surprise, taken over all its fast weights together, gets norm <= `limit`."""

    def update(grads: Tree, fast: Tree, rates: Rates) -> Tree:
        factor = limit / row_norm(grads).clamp_min(limit)
        return {name: _scaled(factor, g) for name, g in grads.items()}

    if not 0 < limit < math.inf:
        raise ValueError(f"clip must be > 0 and finite, got {limit}")
    return _memoryless(update)


def normalize_adam(beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Rule:
    """The gradient divided by its running size, as Adam does it (Kingma & Ba 2015), before any step size.

    The root has a finite slope at zero, so a fast weight that got no gradient does not poison the meta-gradient.
    """

    def start(fast: Tree) -> tuple:
        return _zeros(fast), _zeros(fast), 0

    def update(grads: Tree, memo: Any, fast: Tree, rates: Rates) -> Updated:
        first, second, count = memo[0], memo[1], memo[2] + 1
        first = {n: beta1 * first[n] + (1 - beta1) * g for n, g in grads.items()}
        second = {n: beta2 * second[n] + (1 - beta2) * g.square() for n, g in grads.items()}
        unbias1, unbias2 = 1 - beta1**count, 1 - beta2**count
        tiny = {n: torch.finfo(s.dtype).tiny for n, s in second.items()}
        change = {n: (first[n] / unbias1) / (torch.sqrt(second[n] / unbias2 + tiny[n]) + eps) for n in grads}
        return change, (first, second, count)

    return Rule(start, update)


def chain(*rules: Rule) -> Rule:
    """The rules one after another.

    >>> titans = chain(clip(1.0), momentum(), forget())
    """

    def start(fast: Tree) -> tuple:
        return tuple(rule.start(fast) for rule in rules)

    def update(change: Tree, memo: tuple, fast: Tree, rates: Rates) -> Updated:
        memos = []
        for rule, own in zip(rules, memo, strict=True):
            change, own = rule.update(change, own, fast, rates)
            memos.append(own)
        return change, tuple(memos)

    return Rule(start, update)


def adam(beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Rule:
    """Adam: normalised gradient times the step size."""
    return chain(normalize_adam(beta1, beta2, eps), sgd())


def titans() -> Rule:
    """Momentum and forgetting: `W_t = (1 - forget) W_{t-1} + S_t` (Titans, eqs. 13-14)."""
    return chain(momentum(), forget())
