"""`ttmem write` and `ttmem ask`: a text into a memory file, answers out of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from .base import Command, at_least_one, checkpoint, lines, unset

if TYPE_CHECKING:
    from ..tasks import AssociativeRetrieval, Episode
    from ..zoo import Loaded


@dataclass(frozen=True, kw_only=True)
class Write(Command):
    """Write pairs or a ready context into a memory file; the text itself is not kept."""

    checkpoint: Annotated[str, tyro.conf.Positional, checkpoint()]
    """A file, or the name of a shipped checkpoint (ttmem models)."""
    pairs: Annotated[Path | None, unset("PATH")] = None
    """A file with lines 'key value', 'key:value' or 'key,value'; they get filler as in training."""
    text: Annotated[str | None, unset("TEXT")] = None
    """A ready context, its segments each ended by |; tokens-n2: 'q!aLA3:w5fz!5X!7gjy:l8fG!ywS|k2Pd9xMmQ0rTzBv4|'."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("doc.memory")
    """The memory file."""
    steps: Annotated[int | None, unset("K")] = None
    """Write steps; by default as many as in training."""
    task: Annotated[str | None, unset("NAME")] = None
    """How contexts look, such as N2-K4V4-S2_16-32; by default the task it was trained for."""

    def run(self) -> None:
        from ..zoo import load

        if (self.pairs is None) == (self.text is None):
            raise ValueError("give what to write: either --pairs FILE or --text TEXT")
        at_least_one(steps=self.steps)
        loaded = load(self.checkpoint)
        self.check_out(loaded.path)
        task = task_of_pairs(loaded, self.task)
        found = write_memory(loaded, task, self.episode(task), self.out, self.steps)
        self.report(found, getattr(loaded.model, "losses_are", "before each step"))

    def episode(self, task: "AssociativeRetrieval") -> "Episode":
        """What to write, with a question for every key."""
        from ..tasks import parse_pairs

        if self.text is not None:
            return task.episode_from_text(self.text)
        assert self.pairs is not None
        text = text_of(self.pairs)
        try:
            pairs = parse_pairs(text)
        except ValueError as error:  # it says the line
            raise ValueError(f"{self.pairs}, {error}") from error
        try:
            return task.episode_from_pairs(pairs)
        except ValueError as error:
            raise ValueError(f"{self.pairs}, {line_of_wrong(task, text, pairs)}{error}") from error

    def check_out(self, checkpoint: Path) -> None:
        """Raise ValueError where the memory would overwrite what it is made from, or what is no plain file."""
        from ..checkpoint import place_of

        place = place_of(self.out)
        for what, path in (("the checkpoint", checkpoint), ("the file of --pairs", self.pairs)):
            if path and place.exists() and path.exists() and place.samefile(path):
                raise ValueError(f"--out {self.out} is {what} itself: name another file")

    def report(self, found: dict[str, Any], when: str) -> None:
        """Say what was written; `when` its losses were taken."""
        losses = brief(found["losses"])
        told = {
            "context": found["context"],
            "keys": " ".join(found["keys"]),
            "write loss": f"{losses}  (nats per character, {when})" if found["losses"] else "none",
            "memory": f"{found['memory']}, {found['bytes']} bytes",
        }
        self.tell(found, lines(told))


@dataclass(frozen=True, kw_only=True)
class Ask(Command):
    """Answer keys from a memory file alone."""

    checkpoint: Annotated[str, tyro.conf.Positional, checkpoint()]
    """The checkpoint that wrote the memory: a file, or the name of a shipped one."""
    memory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MEMORY")]
    """The memory file."""
    keys: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="KEY [KEY ...]")]
    """The keys to ask for."""
    row: int = 0
    """Which memory, in a file of several."""

    def run(self) -> None:
        from ..zoo import load

        if not self.keys:
            raise ValueError("give at least one KEY to ask for")
        found = ask_memory(load(self.checkpoint), self.memory, self.keys, self.row)
        text = {key: f"{a['value']}  (probability {a['probability']:.3f})" for key, a in found["answers"].items()}
        self.tell(found, lines(text))


def brief(losses: list[float], most: int = 12) -> str:
    """The losses, of many the first and the last.

    >>> brief([3.0, 2.5, 2.25, 2.0], most=3)
    '3.000 2.500 .. 2.000'
    """
    told = [f"{loss:.3f}" for loss in losses]
    return " ".join(told if len(told) <= most else [*told[: most - 1], "..", told[-1]])


def text_of(path: Path) -> str:
    """The text of a file of pairs, without the byte order mark that some editors put before it."""
    if path.is_dir():
        raise ValueError(f"--pairs {path} is a folder: name a file in it")
    if not (path.is_file() or path.is_fifo()):
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error


def line_of_wrong(task: "AssociativeRetrieval", text: str, pairs: list[tuple[str, str]]) -> str:
    """The line whose pair the task refuses by itself, as `line 3: `; empty where pairs are wrong only together."""
    numbers = [number for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, pair in zip(numbers, pairs, strict=True):
        try:
            task.episode_from_pairs([pair])
        except ValueError:
            return f"line {number}: "
    return ""


def task_of_pairs(loaded: "Loaded", name: str | None) -> "AssociativeRetrieval":
    """The task of a name, or the one trained for; ValueError unless it asks for keys, in the model's own ids."""
    from ..evals.fit import check_fit
    from ..tasks import AssociativeRetrieval

    task = loaded.make_task(name)
    if not isinstance(task, AssociativeRetrieval):
        raise ValueError(f"{task.name} has no pairs of one's own to write and ask: take a task like N2-K4V4-S2_16-32")
    check_fit(loaded.model, task)
    return task


def write_memory(
    loaded: "Loaded", task: "AssociativeRetrieval", episode: "Episode", path: Path, steps: int | None = None
) -> dict[str, Any]:
    """Write an episode's only context into a memory file; what was written, with a loss per step."""
    import torch

    from ..memory_file import describe, save_memory, write_steps

    with torch.no_grad():
        state, log = loaded.model.write(loaded.model.start(1), episode.context, steps)
    text = task.decode(episode.context[0])
    about = describe(loaded.writer, task.name, [text], log.loss, steps=write_steps(loaded.model, steps))
    save_memory(path, state, about)
    return {
        "memory": str(path),
        "bytes": path.stat().st_size,
        "model": loaded.name,
        "fingerprint": loaded.fingerprint,
        "steps": about.steps,
        "losses": about.losses[0],
        "context": text,
        "keys": [task.decode(query)[2:-1] for query in episode.query[0]],
    }


def ask_memory(loaded: "Loaded", path: Path, keys: tuple[str, ...], row: int = 0) -> dict[str, Any]:
    """Values of keys, with the probability of each, from a memory file."""
    import torch

    from ..core.state import map_state
    from ..memory_file import load_memory

    state, about = load_memory(path, loaded.writer, loaded.model.start(1))
    if not 0 <= row < len(about.digests):
        raise ValueError(f"--row must be between 0 and {len(about.digests) - 1} for {path}, got {row}")
    task = task_of_pairs(loaded, about.task)
    query = torch.stack([task.query_for(key) for key in keys])[None]
    one = state._replace(fast=map_state(lambda leaf: leaf.unflatten(0, (len(about.digests), -1))[row], state.fast))
    told = zip(keys, answers(loaded, task, one, query), strict=True)
    return {"memory": str(path), "model": loaded.name, "answers": dict(told)}


def answers(loaded: "Loaded", task: "AssociativeRetrieval", state: Any, query: Any) -> list[dict[str, Any]]:
    """Value and probability for each question of one memory."""
    from ..evals import decode

    answer = decode(loaded.model, state, query, task.value)
    sure = answer.probability[0].prod(-1).tolist()
    return [{"value": task.decode(ids), "probability": p} for ids, p in zip(answer.ids[0], sure, strict=True)]
