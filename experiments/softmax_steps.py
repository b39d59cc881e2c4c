"""How far a few write steps can get: softmax regression on random codes, without any model.

    python experiments/softmax_steps.py
    python experiments/softmax_steps.py --characters 64 --steps 2

A memory is a vector of 1,024 numbers, as many as 8 x 128 memory tokens have. Each class of each character of a context
has a code, a random direction of unit length; its logit is the memory along it. A write is K steps of gradient descent
on the mean log-loss of all characters, from zero. Step sizes, and whatever else a line of the table names, are learned
by gradient through the write, as an outer loop would. So a line says what a rule can do where addresses are as unlike
as chance makes them; 192 characters are the values of 96 pairs.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES, NUMBERS, CONTEXTS = 62, 1024, 2
LINES: dict[str, tuple[str, ...]] = {
    "step sizes": (),
    "and momentum": ("momentum",),
    "and temperatures of the write": ("temperature",),
    "and both": ("momentum", "temperature"),
}


def written(codes: Tensor, answers: Tensor, rates: dict[str, Tensor], steps: int) -> Tensor:
    """Logits `(contexts, characters, classes)` after `steps` steps; all rates are one number a step."""
    wanted = F.one_hot(answers, CLASSES).float()
    memory = velocity = torch.zeros(len(codes), NUMBERS)

    def logits() -> Tensor:
        return torch.bmm(codes, memory[..., None]).view(wanted.shape)

    for step in range(steps):
        guess = (logits() / rates["temperature"][step].exp()).softmax(-1)
        surprise = torch.bmm((wanted - guess).reshape(len(codes), 1, -1), codes)[:, 0]
        velocity = rates["momentum"][step] * velocity + rates["size"][step].exp() * surprise
        memory = memory + velocity
    return logits()


def best(learned: tuple[str, ...], characters: int, steps: int, tries: int) -> tuple[float, dict[str, list[float]]]:
    """The share of characters told right with learned rates, and these."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(CONTEXTS, characters * CLASSES, NUMBERS, generator=generator)
    codes = codes / codes.norm(dim=-1, keepdim=True)
    answers = torch.randint(0, CLASSES, (CONTEXTS, characters), generator=generator)
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--characters", type=int, default=192)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--tries", type=int, default=60, help="outer steps")
    asked = parser.parse_args()
    for line, learned in LINES.items():
        right, rates = best(learned, asked.characters, asked.steps, asked.tries)
        print(f"{line:32} {right:.3f}  {rates}", flush=True)
