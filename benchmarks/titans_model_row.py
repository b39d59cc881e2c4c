"""One row of `titans_model.py`, measured alone in a fresh process: a model's training step, or its decoding; its laws.

`python benchmarks/titans_model_row.py '{"kind": "decoding", "cell": {...}, "setting": {...}}'` prints a line of JSON
for each result as it comes. A law that fails is an error before anything is timed.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from one_row import LawBroken, peak_bytes, shifted, training_step
from titans_cell import Setting
from titans_row import turns
from torch import Tensor, nn

from ttmem.core.state import tensors
from ttmem.models import Titans, TitansConfig, preset

LLAMA = "llama"


@dataclass(frozen=True)
class Cell:
    """What a row computes; the Llama takes the size of the architecture `like`."""

    name: str = "mac"
    like: str = "mac"
    preset: str = "170M"
    batch: int = 1
    tokens: int = 1024
    contexts: tuple[int, ...] = (1024, 4096, 16384, 65536)
    checkpoint: bool = True
    fill_seconds: float = 60.0

    def config(self) -> TitansConfig:
        """The preset's shape; without `checkpoint` no block is computed again in backward."""
        config = preset(self.preset, self.like if self.name == LLAMA else self.name)
        return replace(config, checkpoint=self.checkpoint and config.checkpoint)


def size(model: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


class Ours:
    """A Titans model: what it carries stays as large as it is."""

    largest_state, patient = float("inf"), True

    def __init__(self, config: TitansConfig):
        torch.manual_seed(0)
        self.model = Titans(config)

    def hidden(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Hidden states of the tokens, and the state behind them."""
        return self.model.hidden(self.model.embedding(ids), state)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits."""
        return self.model.logits(hidden)

    def held(self, state: Any) -> list[Tensor]:
        """The state's tensors."""
        return tensors(state.fast)

    def rewound(self, state: Any, tokens: int) -> Any:
        """The state as it was behind so many tokens: a step leaves it alone."""
        return state

    def check(self) -> None:
        """The law: backward along a random direction = the difference quotient, in float64, on a small such model."""
        small = Ours(smaller(self.model.config))
        small.model.double()
        step = training_step(small.model, lambda: loss(small, some_ids(2, 41, small.model.config.vocab)))
        step()
        with torch.no_grad():
            ways = [(p, torch.randn_like(p)) for p in small.model.parameters() if p.grad is not None]
            slope = sum((p.grad * way).sum() for p, way in ways)
        ends = [shifted(ways, by, step) for by in (1e-6, -2e-6)]
        measured = (ends[0] - ends[1]) / 2e-6
        if not torch.isclose(slope, measured, rtol=1e-4, atol=1e-7):
            raise LawBroken(f"slope {slope:.8g}, difference quotient {measured:.8g}")


class Llama:
    """The peer, as large as a Titans model of this config; its cache grows with what was read, in place."""

    largest_state, patient = 4e9, False

    def __init__(self, config: TitansConfig):
        from transformers import LlamaForCausalLM

        torch.manual_seed(0)
        self.model = LlamaForCausalLM(llama_config(config))
        if config.checkpoint:
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        self.model.train()

    def hidden(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """As of ours; no cache in training."""
        from transformers import DynamicCache

        state = DynamicCache() if state is None and not self.model.training else state
        read = self.model.model(input_ids=ids, past_key_values=state, use_cache=state is not None)
        return read.last_hidden_state, state

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits."""
        return self.model.lm_head(hidden)

    def held(self, state: Any) -> list[Tensor]:
        """Keys and values."""
        return [each for layer in state.layers for each in (layer.keys, layer.values)]

    def rewound(self, state: Any, tokens: int) -> Any:
        """The cache, cut back to so many tokens."""
        more = state.get_seq_length() - tokens
        if more:
            state.crop(-more)
        return state

    def check(self) -> None:
        """The law: what is timed is the loss that transformers trains a Llama with."""
        ids = some_ids(2, 41, self.model.config.vocab_size)
        with torch.no_grad():
            ours, theirs = loss(self, ids), self.model(input_ids=ids, labels=ids, use_cache=False).loss
        if not torch.isclose(ours, theirs, rtol=1e-5):
            raise LawBroken(f"the loss is {ours:.6f}, that of transformers {theirs:.6f}")


def smaller(config: TitansConfig) -> TitansConfig:
    """The config with every part that it has, small enough for float64."""
    shape = {"vocab": 64, "pad": -1, "dim": 16, "layers": 2, "heads": 2, "hidden": 32, "chunk_size": 8}
    seen = {"segment_size": 16, "window_size": 16, "memory_tokens": min(config.memory_tokens, 3)}
    return replace(config, **shape, **seen, persistent_tokens=min(config.persistent_tokens, 2))


def llama_config(config: TitansConfig) -> Any:
    """The Llama of the config's shape and size: its hidden width, a multiple of 8, makes up the difference."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": config.dim, "num_hidden_layers": config.layers, "num_attention_heads": config.heads}
    shape |= {"vocab_size": config.vocab, "tie_word_embeddings": config.tied, "attn_implementation": "sdpa"}
    per_width = 3 * config.dim * config.layers
    with torch.device("meta"):
        wanted = size(Titans(config))
        without = size(LlamaForCausalLM(LlamaConfig(**shape, intermediate_size=8))) - 8 * per_width
        found = LlamaConfig(**shape, intermediate_size=max(8, 8 * round((wanted - without) / per_width / 8)))
        if not abs(size(LlamaForCausalLM(found)) / wanted - 1) < 0.03:
            raise LawBroken(f"no hidden width brings a Llama to {wanted:,} parameters")
    return found


def some_ids(batch: int, tokens: int, vocab: int, seed: int = 1) -> Tensor:
    """Random tokens."""
    return torch.randint(0, vocab, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def loss(one: Ours | Llama, ids: Tensor) -> Tensor:
    """Next-token prediction."""
    logits = one.logits(one.hidden(ids[:, :-1])[0])
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def rates(tokens: int, seconds: dict[str, float], setting: Setting) -> dict:
    """Tokens a second, and what it was told by."""
    return {"seconds": seconds, "rate": tokens / seconds["cpu_min" if setting.threads == 1 else "wall_min"]}


def training(one: Ours | Llama, cell: Cell, setting: Setting) -> Iterator[dict]:
    """One step's speed and memory; the first step shows the memory and warms up."""
    one.check()
    ids = some_ids(cell.batch, cell.tokens + 1, cell.config().vocab)
    step = training_step(one.model, lambda: loss(one, ids))
    peak = peak_bytes(step, "cpu")
    seconds = turns(step, setting, "cpu")
    yield rates(cell.batch * cell.tokens, seconds, setting) | {"tokens": cell.batch * cell.tokens, "peak_bytes": peak}


class Reading:
    """A model that reads random tokens on and on, in pieces."""

    def __init__(self, one: Ours | Llama, cell: Cell, piece: int = 1024):
        self.one, self.cell, self.piece = one, cell, piece
        self.state, self.read, self.seconds = None, 0, 0.0

    def upto(self, context: int) -> str:
        """Reads until `context` tokens are read; if it stopped before that, why."""
        while self.read < context:
            why = self.hindrance(context)
            if why:
                return why
            self.state = self.behind()
            ids = some_ids(self.cell.batch, min(self.piece, context - self.read), self.cell.config().vocab, self.read)
            begun = time.perf_counter()
            _, self.state = self.one.hidden(ids, self.state)
            self.read, self.seconds = self.read + ids.shape[1], self.seconds + time.perf_counter() - begun
        return ""

    def hindrance(self, context: int) -> str:
        """Why it would be too much to read so far, from what the tokens so far took; at least so much for the rest."""
        if not self.read:
            return ""
        bytes_then = self.bytes() * context / self.read
        if bytes_then > self.one.largest_state:
            return (
                f"left out: its cache would hold {bytes_then / 1e9:.1f} GB, more than {self.one.largest_state / 1e9:g}"
            )
        seconds = self.seconds * context / self.read
        if not self.one.patient and seconds > self.cell.fill_seconds:
            return f"left out: its cache would take {seconds:.0f} s to fill, more than {self.cell.fill_seconds:g}"
        return ""

    def behind(self) -> Any:
        """The state behind what was read, whatever was decoded since."""
        return self.state if self.state is None else self.one.rewound(self.state, self.read)

    def bytes(self) -> int:
        """What the state holds."""
        return sum(each.nbytes for each in self.one.held(self.state))


def stepwise(one: Ours | Llama, ids: Tensor, state: Any) -> Tensor:
    """Logits of the tokens, read one by one."""
    logits = []
    for i in range(ids.shape[1]):
        hidden, state = one.hidden(ids[:, i : i + 1], state)
        logits.append(one.logits(hidden))
    return torch.cat(logits, dim=1)


def check_decoding(one: Ours | Llama, ids: Tensor, behind: Callable[[], Any]) -> float:
    """The law: one-token steps give the logits of one pass, to 1e-4 of the largest; how far they are off."""
    whole = one.logits(one.hidden(ids, behind())[0])
    off = float((stepwise(one, ids, behind()) - whole).abs().max() / whole.abs().max())
    if not off < 1e-4:
        raise LawBroken(f"one-token steps are {off:.1e} off one pass")
    return off


@torch.inference_mode()
def decoding(one: Ours | Llama, cell: Cell, setting: Setting) -> Iterator[dict]:
    """Speed and state behind each context, one read on from the other; a context that is too much says so."""
    one.model.eval()
    reading, ids = Reading(one, cell), some_ids(cell.batch, 64, cell.config().vocab, seed=0)
    for context in sorted(cell.contexts):
        why = reading.upto(context)
        if why:
            yield {"context": context, "left_out": why}
            continue
        held = reading.bytes()
        error = check_decoding(one, ids, reading.behind)
        seconds = turns(lambda: stepwise(one, ids, reading.behind()), setting, "cpu")
        found = {"context": context, "state_bytes": held, "error": error, "fill_seconds": reading.seconds}
        yield rates(ids.numel(), seconds, setting) | found


KINDS = {"training": training, "decoding": decoding}


def measure(kind: str, cell: Cell, setting: Setting) -> Iterator[dict]:
    """Everything the table says of a row, laws first."""
    torch.set_num_threads(setting.threads)
    one = (Llama if cell.name == LLAMA else Ours)(cell.config())
    named = {"kind": kind, "name": cell.name, "parameters": size(one.model)}
    for found in KINDS[kind](one, cell, setting):
        yield named | found


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    try:
        for result in measure(given["kind"], Cell(**given["cell"]), Setting(**given["setting"])):
            print(json.dumps(result), flush=True)
    except LawBroken as broken:
        sys.exit(f"a law is broken: {broken}")
