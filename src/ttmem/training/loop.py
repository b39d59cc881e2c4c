"""The outer loop: draw a batch, write and read, step the slow weights, follow the curriculum."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from .. import __version__
from ..checkpoint import fill, load_model, neutral, save_model, start_file
from ..core.rates import with_more_steps
from ..evals import evaluate, nats
from ..models import build
from ..tasks import Episode, make_task
from .curriculum import questions
from .experiment import Experiment
from .lock import alone
from .optimizer import factor, make_optimizers, set_share
from .parallel import Workers
from .progress import HISTORY, Clock, Reporter
from .shard import full
from .signals import Interruption
from .state import Result, RunState, check_model, final_end, load_state, save_state

STATE, MODEL = "state.safetensors", "model.safetensors"
VALIDATION_SEED = 0


class Diverged(RuntimeError):
    """The loss or the gradient is no longer a number; the last good checkpoint is untouched."""


def train(experiment: Experiment, out: str | Path, resume: bool = True, progress: bool = True) -> Result:
    """Train a model; in `out` it leaves model.safetensors (the best weights), state.safetensors, history.jsonl.

    With `resume` it goes on from the state in `out`, if there is one, bit for bit as if it had never stopped; without,
    that run is replaced once this one saves. Ctrl-C and SIGTERM save and return; under torchrun each process takes its
    rows of the same batch. Raises Diverged, and ValueError where `out` holds a run of another experiment, or another
    process trains there.
    """
    with alone(Path(out)):
        trainer = Trainer(experiment, Path(out), resume, progress)
        try:
            with Interruption() as interruption:
                if trainer.ends():  # a budget that was made smaller may be used up already
                    trainer.save()
                while not trainer.state.stopped:
                    trainer.advance(bool(interruption))
        finally:
            trainer.reporter.close()
        return trainer.finish()


class Trainer:
    """A run: the model, its optimizers, and where it stands."""

    def __init__(self, experiment: Experiment, out: Path, resume: bool = True, progress: bool = True):
        self.experiment, self.config, self.out = experiment, experiment.train, out
        self.curriculum = experiment.curriculum
        self.tasks = [make_task(stage.task) for stage in self.curriculum.stages]
        self.workers = Workers(self.config)
        fresh = not (resume and (out / STATE).exists())
        self.model = self.whole = self.workers.place(self._model(fresh))  # `whole`: for the time of a validation
        self.optimizers = make_optimizers(self.model, self.config)
        self.state = self._state(resume)
        self.earlier = not resume and any((out / name).exists() for name in (STATE, MODEL))
        self.clock = Clock(self.state.seconds, self.state.step)
        self.network = self.workers.prepare(self.model, self._batch(0)[:1], len(self.tasks))
        self.reporter = Reporter(out, self.state.step, progress, self.config.tensorboard, self.workers.main)

    def _model(self, fresh: bool) -> nn.Module:
        model = build(self.experiment.model, self.config.seed)
        if self.config.start_from is not None and fresh:  # a saved state has all weights
            source = start_file(self.config.start_from)
            tensors = with_more_steps(model, load_model(source).tensors)
            fill(model, tensors, source, neutral(model))
        return model

    def _state(self, resume: bool) -> RunState:
        path = self.out / STATE
        state = RunState(self.config.steps)
        if resume and path.exists():
            state = load_state(path, self.model, self.optimizers, self.experiment)
        elif resume:
            check_model(self.out / MODEL, self.experiment)
        self.workers.wait()
        if self.workers.main:
            halves = self.out.glob(".*.safetensors.*")  # what a run that was killed while it saved left behind
            for old in halves:
                old.unlink(missing_ok=True)
        return state

    def _batch(self, stage: int) -> Episode:
        task, own = self.tasks[stage], self.curriculum.stages[stage].queries
        queries = questions(task, own or self.config.queries)
        episode = task.sample(self.config.batch, "train", self.config.seed, self.state.step, queries)
        return self.workers.share(episode)

    def advance(self, interrupted: bool = False) -> None:
        """One outer step, and what is due after it; a finished run is saved."""
        stage = self.curriculum.draw(self.state.standing, self.state.step, self.config.seed)
        facts = self.learn(self._batch(stage), interrupted)
        stop, late, fits = facts.pop("interrupted") > 0, facts.pop("late") > 0, round(facts.pop("fits"))
        self.state.step += 1
        if late and not self.state.late:
            self.state.late, self.state.end = True, min(self.state.end, self.state.step + fits)
        self.follow(stage, facts)
        every, step = self.config.eval_every, self.state.step
        if every and step % every == 0:
            self.validate()
        if self.ends() or stop or step % self.config.checkpoint_every == 0:
            self.save()
        if stop and not self.state.stopped:
            self.state.stopped = "interrupted"  # after the save: the run is not over

    def ends(self) -> bool:
        """Whether the run ends here; if so, the last validation is made."""
        if self.state.stopped:
            return False
        self.state.stopped = self.verdict()
        if self.state.stopped and self.state.asked != self.state.step:
            self.validate()
        return bool(self.state.stopped)

    def learn(self, episode: Episode, interrupted: bool) -> dict[str, float]:
        """Move the slow weights by one batch; what happened, averaged over all processes.

        Raises Diverged before the weights are touched where loss or gradient are no numbers.
        """
        set_share(self.optimizers, factor(self.state.step, self.state.end, self.config))
        half, sharded = self.config.precision == "bf16", self.workers.sharded
        with torch.autocast(self.workers.device.type, torch.bfloat16, half, cache_enabled=not sharded):
            outcome = self.network(episode)
        outcome.loss.backward()
        norm = full(clip_grad_norm_(self.model.parameters(), self.config.clip or math.inf))
        exact = outcome.exact.float().mean()
        told = {"loss": outcome.loss, **outcome.parts, "exact": exact, "norm": norm}
        left = (self.state.step, self.settle_steps, self.config.seconds)
        flags = {"interrupted": interrupted, "late": self.clock.late(*left), "fits": self.clock.fits(*left)}
        facts = self.workers.mean(told | {name: torch.tensor(float(flag)) for name, flag in flags.items()})
        self.check(facts)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return facts

    def check(self, facts: dict[str, float]) -> None:
        """Raise Diverged where a number is none."""
        if all(math.isfinite(facts[name]) for name in ("loss", "norm")):
            return
        path = self.out / STATE
        good = f"the last good state is {path}" if path.exists() else "there is no state saved yet"
        good = f"the run that was in {self.out} before is untouched" if self.earlier else good
        raise Diverged(
            f"diverged at step {self.state.step + 1} in stage {self.stage_task}: loss {facts['loss']}, gradient norm "
            f"{facts['norm']}; {good}; try a smaller lr or a longer warmup"
        )

    @property
    def measure(self) -> str:
        """What validation measures: exact_match, or nats, which are told with a minus: larger is better."""
        return str(getattr(self.tasks[-1], "measure", "exact_match"))

    def measured(self, score: float, reset: float) -> str:
        """A validation in words; nats are kept with a minus, so that larger is better."""
        exact = f"exact match {score:.4f} (memory reset {reset:.4f})"
        return exact if self.measure == "exact_match" else f"{-score:.4f} nats per token"

    @property
    def settle_steps(self) -> int:
        """Steps from the decision to end until the end."""
        return self.config.decay_steps if self.config.schedule == "wsd" else 0

    @property
    def stage_task(self) -> str:
        """The task of the stage that the run is in."""
        return self.curriculum.stages[self.state.standing.stage].task

    def follow(self, stage: int, facts: dict[str, float]) -> None:
        """Move on in the curriculum, and tell."""
        state, before = self.state, self.state.standing
        state.standing = self.curriculum.advance(before, facts["exact"] if stage == before.stage else None, state.step)
        record = self.record(before.stage, facts)
        self.reporter.step(record)
        if state.step % self.config.log_every == 0:
            self.reporter.log(record)
        if state.standing.stage == before.stage:
            return
        task, step, mean = state.standing.promotions[-1]
        self.reporter.note(f"step {step}: {task} passed at exact match {mean:.3f}; on to {self.stage_task}")
        self.reporter.log({"step": step, "seconds": record["seconds"], "promotion": task, "running": mean})
        state.end = min(state.end, final_end(state.standing, self.experiment))

    def record(self, stage: int, facts: dict[str, float]) -> dict[str, Any]:
        """A step for the history."""
        state, stages = self.state, self.curriculum.stages
        promoted = state.standing.stage != stage
        return {
            "step": state.step,
            "end": state.end,
            "seconds": round(self.clock.seconds(), 3),
            "rate": round(self.clock.rate(state.step), 3),
            "stage": stage,
            "stages": len(stages),
            "task": stages[stage].task,
            "running": state.standing.promotions[-1].mean if promoted else state.standing.mean,
            "lr": self.optimizers[0].param_groups[0]["lr"],
            **facts,
        }

    def validate(self) -> None:
        """Ask questions of the target's validation split; keep the weights where they are the best so far."""
        state, last = self.state, self.curriculum.is_last(self.state.standing)
        self.whole = self.workers.whole(self.model, self.experiment.model)
        score, reset = self.workers.from_main(self._ask)
        score = -math.inf if math.isnan(score) else score  # or it would stay the best for ever
        state.final, state.asked = score, state.step
        state.stale = state.stale + 1 if last else 0
        if state.best is None or score >= state.best:
            state.stale = 0 if state.best is None or score > state.best else state.stale
            state.best, state.best_step = score, state.step
            self.keep()
        self.whole = self.model
        seconds = round(self.clock.seconds(), 3)
        self.reporter.log({"step": state.step, "seconds": seconds, "validation": score, "reset": reset})
        self.reporter.note(f"step {state.step}: validation {self.measured(score, reset)}")
        may_end = state.step >= self.config.min_steps and not state.settling
        if self.config.settle and may_end and self.reached(score):
            state.settling, state.end = True, min(state.end, state.step + self.settle_steps)

    def reached(self, exact: float | None) -> bool:
        """Whether a validation meets the target."""
        return None not in (exact, self.config.target) and exact >= self.config.target  # type: ignore[operator]

    def _ask(self) -> tuple[float, float]:
        task, samples = self.tasks[-1], self.config.eval_samples
        if self.measure == "nats":
            return -nats(self.whole, task, samples, VALIDATION_SEED, split="validation"), 0.0
        asked = questions(task, self.config.eval_queries)
        report = evaluate(self.whole, task, samples, VALIDATION_SEED, split="validation", queries=asked)
        return report.exact_match, report.exact_match_reset

    def verdict(self) -> str:
        """Why the run is over after this step; empty where it is not."""
        state, config = self.state, self.config
        fresh = state.asked == state.step and state.step >= config.min_steps
        if fresh and self.reached(state.final) and not config.settle:
            return "target"
        if fresh and config.patience is not None and state.stale >= config.patience and not state.settling:
            return "patience"
        if self.curriculum.is_over(state.standing):
            return "stage"
        if state.step >= state.end:
            return "target" if state.settling else "seconds" if state.late else "steps"
        return ""

    def keep(self) -> None:
        """Write the weights as the model to ship."""
        if not self.workers.main:
            return
        state, score = self.state, abs(self.state.final or 0.0)
        meta = {
            "name": self.experiment.name,
            "task": self.experiment.task,
            "step": state.step,
            "seed": self.config.seed,
            "scores": {self.measure: score, "split": "validation", "samples": self.config.eval_samples},
            "promotions": state.standing.promotions,
            "seconds": round(self.clock.seconds(), 1),
            "experiment": self.experiment.as_dict(),
            "ttmem": __version__,
        }
        save_model(self.out / MODEL, asdict(self.experiment.model), self.whole.state_dict(), meta)
        self.replace(STATE)

    def save(self) -> None:
        """Write the state, and wait until it is written."""
        self.state.seconds = self.clock.seconds()
        path, main = self.out / STATE, self.workers.main
        save_state(path, self.state, self.model, self.optimizers, self.experiment, main)
        self.replace(MODEL)
        self.workers.wait()

    def replace(self, other: str) -> None:
        """With the first file that is saved goes what is left of the run that this one replaces; not before."""
        self.reporter.release()
        if self.earlier and self.workers.main:
            (self.out / other).unlink(missing_ok=True)
        self.earlier = False

    def finish(self) -> Result:
        """The result of a run that is over or interrupted."""
        state = self.state
        paths = {"checkpoint": self.out / MODEL, "history": self.out / HISTORY}
        return Result(state.stopped, state.step, self.clock.seconds(), state.best, state.final, **paths)
