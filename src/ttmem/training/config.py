"""How slow weights are trained: one flat, frozen config, checked when it is made."""

from dataclasses import dataclass

from ..checks import at_least, below, finite, one_of, positive, shares, whole

SCHEDULES = ("constant", "linear", "cosine", "wsd")
PRECISIONS = ("fp32", "bf16")
_LEAST = {
    "steps": 1,
    "batch": 1,
    "queries": 1,
    "rates_lr": 0,
    "muon_lr": 0,
    "weight_decay": 0,
    "warmup": 0,
    "final_steps": 1,
    "eval_every": 0,
    "eval_samples": 1,
    "eval_queries": 1,
    "patience": 1,
    "min_steps": 0,
    "log_every": 1,
    "checkpoint_every": 1,
}
_RATES = ("rates_lr", "muon_lr", "weight_decay")
_SHARES = ("beta1", "beta2", "floor", "target")


@dataclass(frozen=True)
class TrainConfig:
    """The outer loop.

    Args:
        steps: the budget, in outer steps; the run may end before (`target`, `patience`, a stage's budget).
        seconds: a second budget, in time; wsd decays in time for it, in fewer steps where no more fit. A run with one
            is not reproducible.
        batch: contexts per step over all processes.
        queries: questions asked of each written context; None asks all pairs.
        seed: of the initial weights and of the training stream.
        start_from: a checkpoint whose weights to start from, instead of fresh ones (those that change nothing at first,
            as `weigh` does, may be missing there; momentum and forgetting that its rule had not begin as in a new
            model; of fewer write steps, the last one's rates serve on).
        lr: step size of AdamW.
        rates_lr: the learned inner step sizes take `rates_lr * lr`.
        muon_lr: step size of Muon for the matrices inside blocks and stem; 0 leaves these to AdamW as well.
        weight_decay: of matrices; norms, initial memory and learned rates have none.
        beta1, beta2: of AdamW.
        clip: largest norm of the whole gradient; None: no limit.
        warmup: steps until the full step size.
        schedule: constant, linear or cosine over the whole run, or wsd: constant, then linear over `decay`.
        decay: steps at the end over which wsd decays; below 1: that fraction of `steps`.
        floor: what is left of the step size in the end, as a fraction.
        final_steps: the run ends so many steps after the last stage is entered (None: at `steps`).
        target: validation exact match at which the run ends; with `settle` it decays first, over `decay` steps.
        patience: validations in the last stage without a new best after which the run ends (None: never).
        min_steps: no end by `target` or `patience` before this step.
        eval_every, eval_samples: how often (steps; 0: only in the end) and on how many contexts to validate.
        eval_queries: questions of each of them (None: all there are, no more than there are): more of them tell two
            good models apart, so that the weights kept are the better ones and not the luckier.
        precision: fp32, or bf16 under autocast.
        sharded: with several processes each keeps a part of the weights and moments (FSDP2, Titans models only),
            not all of them; one process changes nothing. A saved state fits any number of processes.
        compile: compile the loss with torch.compile; the first step of each shape then takes minutes (four to ten on
            one core for a second-order write).
        log_every, checkpoint_every: in steps.
        tensorboard: scalars for TensorBoard in the output folder.

    >>> TrainConfig(steps=0)
    Traceback (most recent call last):
    ValueError: steps must be >= 1, got 0
    """

    steps: int = 2000
    seconds: float | None = None
    batch: int = 64
    queries: int | None = None
    seed: int = 0
    start_from: str | None = None
    lr: float = 2e-3
    rates_lr: float = 5.0
    muon_lr: float = 0.0
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float | None = 1.0
    warmup: int = 200
    schedule: str = "wsd"
    decay: float | int = 0.3
    floor: float = 0.05
    final_steps: int | None = None
    target: float | None = None
    settle: bool = False
    patience: int | None = None
    min_steps: int = 0
    eval_every: int = 100
    eval_samples: int = 1000
    eval_queries: int | None = 1
    precision: str = "fp32"
    sharded: bool = False
    compile: bool = False
    log_every: int = 10
    checkpoint_every: int = 100
    tensorboard: bool = False

    def __post_init__(self):
        whole(self, (*(field for field in _LEAST if field not in _RATES), "seed"))
        at_least(self, _LEAST)
        shares(self, _SHARES)
        below(self, {"beta1": 1, "beta2": 1})
        positive(self, ("lr", "decay", "clip", "seconds"))
        finite(self, _RATES)
        one_of(self, {"schedule": SCHEDULES, "precision": PRECISIONS})
        self._check_together()

    def _check_together(self) -> None:
        if not 0 <= self.seed < 2**30:
            raise ValueError(f"seed must be between 0 and {2**30 - 1}, got {self.seed}")
        if self.sharded and self.muon_lr:
            raise ValueError(f"muon_lr must be 0 with sharded: Muon needs whole matrices, got {self.muon_lr}")
        if self.settle and self.target is None:
            raise ValueError("settle decays once target is reached: set target as well")
        if (self.settle or self.final_steps) and self.schedule in ("linear", "cosine"):
            raise ValueError(f"settle and final_steps move the end: take schedule wsd or constant, not {self.schedule}")
        if self.schedule == "wsd" and self.final_steps is not None and self.final_steps < self.decay_steps:
            raise ValueError(f"final_steps must be >= the decay of {self.decay_steps} steps, got {self.final_steps}")

    @property
    def decay_steps(self) -> int:
        """The decay in steps."""
        return max(1, round(self.decay * self.steps if self.decay < 1 else self.decay))
