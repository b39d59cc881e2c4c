"""How far a few write steps can get: softmax regression on codes made at random, without any model.

    python experiments/softmax_steps.py
    python experiments/softmax_steps.py --characters 64 --steps 2
    python experiments/softmax_steps.py --addresses

A memory is a vector of 1,024 numbers, as many as 8 x 128 memory tokens have. Each class of each character of a context
has a code, a random direction of unit length; its logit is the memory along it. A write is K steps of gradient descent
on the mean log-loss of all characters, from zero. Step sizes, and whatever else a line of the table names, are learned
by gradient through the write, as an outer loop would. So a line says what a rule can do where addresses are as unlike
as chance makes them; 192 characters are the values of 96 pairs.

With --addresses the rule is the one with momentum, and the codes are made as a decoder makes them: a character reads
number d of slot s with a coefficient G[s, d], and class v is what is read along e[v] (orthonormal), so that its code is
G[s, d] e[v, d]. A line each: coefficients drawn one by one; shares of a softmax over slots, one for each of four heads,
times a gate for each d; a linear function of a random token of 128 numbers; and the sine of one.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES, SLOTS, DIM, HEADS = 62, 8, 128, 4
NUMBERS, CONTEXTS = SLOTS * DIM, 2
LINES: dict[str, tuple[str, ...]] = {
    "step sizes": (),
    "and momentum": ("momentum",),
    "and temperatures of the write": ("temperature",),
    "and both": ("momentum", "temperature"),
}
Draw = Callable[..., Tensor]


class Drawn:
    """Codes `(contexts, characters, classes, numbers)` of unit length, each drawn by itself."""

    def __init__(self, characters: int, normal: Draw):
        codes = normal(CONTEXTS, characters * CLASSES, NUMBERS)
        self.codes = codes / codes.norm(dim=-1, keepdim=True)

    def logits(self, memory: Tensor) -> Tensor:
        """Of each class of each character, `(contexts, characters, classes)`."""
        return torch.bmm(self.codes, memory[..., None]).view(CONTEXTS, -1, CLASSES)

    def spread(self, surprise: Tensor) -> Tensor:
        """The codes' sum, each as often as `surprise` `(contexts, characters, classes)` says."""
        return torch.bmm(surprise.reshape(CONTEXTS, 1, -1), self.codes)[:, 0]


class LookedUp:
    """Codes `G[s, d] e[v, d]`, of unit length on average, from coefficients `(contexts, characters, slots, d)`."""

    def __init__(self, coefficients: Tensor, normal: Draw):
        self.classes = torch.linalg.qr(normal(DIM, CLASSES))[0].T
        self.coefficients = coefficients / coefficients.square().sum(2).mean().sqrt()

    def logits(self, memory: Tensor) -> Tensor:
        """As `Drawn.logits`."""
        return torch.einsum("bnsd,bsd->bnd", self.coefficients, memory.unflatten(-1, (SLOTS, DIM))) @ self.classes.T

    def spread(self, surprise: Tensor) -> Tensor:
        """As `Drawn.spread`."""
        return torch.einsum("bnsd,bnd->bsd", self.coefficients, surprise @ self.classes).flatten(1)


def addresses(characters: int, normal: Draw) -> dict[str, Tensor]:
    """The coefficients of each line of --addresses, of four times as many contexts."""
    shape = (4 * CONTEXTS, characters, SLOTS)
    shares = (2 * normal(*shape, HEADS)).softmax(2).repeat_interleave(DIM // HEADS, dim=3)
    tokens = normal(4 * CONTEXTS, characters, DIM)
    tokens = tokens / tokens.norm(dim=-1, keepdim=True)
    linear = (tokens @ normal(DIM, NUMBERS)).unflatten(-1, (SLOTS, DIM))
    return {
        "drawn one by one": normal(*shape, DIM),
        "shares and a gate": shares * normal(4 * CONTEXTS, characters, 1, DIM),
        "linear": linear,
        "sines": (4 * linear).sin(),
    }


def written(codes: Drawn | LookedUp, answers: Tensor, rates: dict[str, Tensor], steps: int) -> Tensor:
    """Logits `(contexts, characters, classes)` after `steps` steps; all rates are one number a step."""
    wanted = F.one_hot(answers, CLASSES).float()
    memory = velocity = torch.zeros(len(answers), NUMBERS)
    for step in range(steps):
        guess = (codes.logits(memory) / rates["temperature"][step].exp()).softmax(-1)
        velocity = rates["momentum"][step] * velocity + rates["size"][step].exp() * codes.spread(wanted - guess)
        memory = memory + velocity
    return codes.logits(memory)


def best(
    codes: Drawn | LookedUp, answers: Tensor, learned: tuple[str, ...], steps: int, tries: int
) -> tuple[float, dict[str, list[float]]]:
    """The share of characters told right with learned rates, and these."""
    rates = {name: torch.zeros(steps) for name in ("momentum", "temperature")}
    rates["size"] = torch.tensor([3.2] + [2.6] * (steps - 1))
    taught = [rates[name].requires_grad_() for name in ("size", *learned)]
    optimizer = torch.optim.Adam(taught, 0.1)
    for i in range(tries):
        optimizer.param_groups[0]["lr"] = 0.1 * min(1.0, 2 * (1 - i / tries))
        told = written(codes, answers, rates, steps)
        optimizer.zero_grad()
        F.cross_entropy(told.flatten(0, 1), answers.flatten()).backward()
        optimizer.step()
    said = {name: [round(x, 2) for x in rate.detach().tolist()] for name, rate in rates.items()}
    return (told.argmax(-1) == answers).float().mean().item(), said


def main() -> None:
    """Print a line each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--characters", type=int, default=192)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--tries", type=int, default=60, help="outer steps")
    parser.add_argument("--addresses", action="store_true", help="compare how a memory is looked at, not rules")
    asked = parser.parse_args()
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    ways: dict[str, Drawn | LookedUp] = {}
    if asked.addresses:
        found = addresses(asked.characters, normal)
        ways = {way: LookedUp(coefficients, normal) for way, coefficients in found.items()}
    contexts = 4 * CONTEXTS if asked.addresses else CONTEXTS
    lines = {way: ("momentum",) for way in ways} or LINES
    drawn = None if ways else Drawn(asked.characters, normal)
    answers = torch.randint(0, CLASSES, (contexts, asked.characters), generator=generator)
    for line, learned in lines.items():
        right, rates = best(drawn or ways[line], answers, learned, asked.steps, asked.tries)
        print(f"{line:32} {right:.3f}  {rates}", flush=True)


if __name__ == "__main__":
    main()
