"""What a memory holds beyond the write steps it was trained with: further ones at a share of the last step size.

    python experiments/further_steps.py runs/tokens-n96/model.safetensors --queries 96

The last step size of few steps is too long to serve on; .3 of it shows whether memory and addresses have room.
"""

import argparse

import torch

from ttmem.core.rates import LearnedRates
from ttmem.evals import evaluate
from ttmem.zoo import load


def prolonged(rates: LearnedRates, further: int, share: float) -> LearnedRates:
    """The same rates and further ones: their step sizes a share of the last, momentum and forgetting the last."""
    rest = {part: 0.5 for part in rates.parts if part != "lr"}
    longer = LearnedRates(dict.fromkeys(rates.names, 1.0), rates.steps + further, **rest)
    kept = {name: value for name, value in rates.state_dict().items() if name.startswith("raw.")}
    grown = {name: grow(value, further, share if name.startswith("raw.lr_") else 1.0) for name, value in kept.items()}
    longer.load_state_dict(grown)
    return longer


def grow(raw: torch.Tensor, further: int, share: float) -> torch.Tensor:
    """Rates as they are kept, and further ones; a share changes logarithms alone."""
    return torch.cat([raw, (raw[-1:] + torch.tensor(share).log()).expand(further)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--queries", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    loaded = load(asked.checkpoint)
    if not isinstance(getattr(loaded.model, "rates", None), LearnedRates):
        raise SystemExit(f"{asked.checkpoint} has no learned step sizes to prolong")
    own, task = loaded.model.rates, loaded.make_task()
    for further in (0, 3, 5, 10, 20):
        loaded.model.rates, steps = prolonged(own, further, asked.share), own.steps + further
        report = evaluate(loaded.model, task, asked.samples, asked.seed, steps, queries=asked.queries)
        print(f"{steps:3} steps  {report.exact_match:.4f}", flush=True)
