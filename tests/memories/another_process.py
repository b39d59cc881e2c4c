"""What is tried in a process of its own: a saved memory that goes on, and compiled memories against eager ones.

    another_process.py goes_on FOLDER      read the rest of a text with the memory saved in FOLDER
    another_process.py compiled            how far compiled numbers and gradients are from eager ones, as JSON

A script, because the checks of shapes that the tests switch on are nothing the compiler can follow.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.titans_rows import Case, drawn, form_of, gradients, sources, started
from memories.small import CHUNK, memory_of, text
from ttmem.core.chunkwise import chunk_weights, write_chunk
from ttmem.core.state import map_state, tensors
from ttmem.memories import LongTermMemory, LongTermState


def save(folder: Path, memory: LongTermMemory, state: LongTermState, x: Tensor) -> None:
    """The memory, what it has read, and what it is to read next."""
    (folder / "config.json").write_text(json.dumps(asdict(memory.config)))
    save_file(memory.state_dict(), folder / "weights.safetensors")
    save_file({"x": x.contiguous()} | numbered(state), folder / "state.safetensors")


def numbered(tree: tuple) -> dict[str, Tensor]:
    """The tensors of a state under their numbers; copies, for a file holds nothing twice."""
    return {str(i): part.detach().clone() for i, part in enumerate(tensors(tree))}


def goes_on(folder: str) -> None:
    """Build the memory from its file, put its state together again, and read."""
    memory = LongTermMemory(**json.loads(Path(folder, "config.json").read_text()))
    memory.load_state_dict(load_file(Path(folder, "weights.safetensors")))
    parts = load_file(Path(folder, "state.safetensors"))
    x = parts.pop("x")
    order = iter(range(len(parts)))
    state = map_state(lambda _: parts[str(next(order))], memory.start(len(x)))
    save_file(numbered(memory(x, state)), Path(folder, "end.safetensors"))


def cases() -> Iterator[tuple[str, Callable[[], tuple], tuple]]:
    """One chunk of the core, and a whole layer over more than a chunk; with what gradients are taken of."""
    case = Case(2, clip=0.8)
    state, rows, form = started(case), drawn(case, 5), form_of(case, 5)
    first = sources(state, rows, form)[:-1]
    yield "chunk", lambda: write_chunk(state, rows, [each.chunks()[0] for each in chunk_weights(rows, 1)], form), first
    memory, x = memory_of("linear"), text(1, CHUNK + 2)
    yield "layer", lambda: memory(x), tuple(memory.parameters())


def compiled() -> None:
    """The largest difference of each case, over outputs, states and gradients."""
    found = {}
    for name, run, inputs in cases():
        results = [run(), torch.compile(run, backend="aot_eager", fullgraph=True)()]
        eager, other = ([*numbered(result).values(), *gradients(result, inputs)] for result in results)
        found[name] = max(float((a - b).abs().max()) for a, b in zip(eager, other, strict=True))
    json.dump(found, sys.stdout)


def main() -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    {"goes_on": goes_on, "compiled": compiled}[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
