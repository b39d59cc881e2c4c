"""How far compiled writes are from eager ones, case by case, as JSON; `test_compile.py` holds the laws.

A script, because the checks of shapes that the tests switch on are nothing the compiler can follow.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator

import torch
from einops import rearrange
from torch import Tensor, nn

from core.toy import RULES, Toy, pairs
from models.tiny import episode, model
from ttmem.core import detach
from ttmem.nn.attention import attend_near

MODELS = {
    "second": {},
    "first": {"meta_gradient": "first"},
    "addressed": {"addresses": "learned", "read_gate": True, "stem": True, "window": 1},
    "sines": {"addresses": "sines", "stem": True, "window": 1},
}
COMPILER = any(map(shutil.which, ("g++", "c++", "clang++")))
WINDOWS = (1, 3)


def toy_cases() -> Iterator[tuple[str, nn.Module, Callable]]:
    """Every rule, and every kind of meta-gradient, on a memory small enough to follow."""
    kinds = [(rule, "second") for rule in RULES] + [("titans", meta) for meta in ("first", "none", "last_1")]
    for rule, meta in kinds:
        toy, made, stream, asked = Toy(), RULES[rule](), [pairs(), pairs()], pairs()

        def run(toy=toy, made=made, stream=stream, asked=asked, meta=meta):
            state, log = toy.write(made, stream, meta)
            return toy.outer(state, asked), [*state.fast.values(), log.loss, log.surprise]

        yield f"toy {rule} {meta}", toy, run


def model_cases() -> Iterator[tuple[str, nn.Module, Callable]]:
    """The loss of a whole model."""
    for name, options in MODELS.items():
        made, asked = model("tokens", layers=1, **options), episode()

        def run(made=made, asked=asked):
            outcome = made.loss(asked)
            return outcome.loss, [*outcome.parts.values(), outcome.right]

        yield f"model {name}", made, run


def short_windows() -> Iterator[tuple[str, nn.Module, Callable]]:
    """Attention over short windows, in machine code: the compiler gets the gradient of an uneven `split` wrong."""
    for window in WINDOWS:
        made = nn.Linear(4, 12, bias=False)
        x, memory = torch.randn(2, 9, 4), torch.randn(2, 8, 4)

        def run(made=made, x=x, memory=memory, window=window):
            q, k, v = rearrange(made(x), "b t (n h e) -> n b h t e", n=3, h=1)
            _, far_k, far_v = rearrange(made(memory), "b t (n h e) -> n b h t e", n=3, h=1)
            return attend_near(q, [far_k, k], [far_v, v], window).sin().sum(), []

        yield f"window {window}", made, run


def results(module: nn.Module, run: Callable) -> tuple[list[Tensor], list[bool]]:
    """Loss, what else is reported, and all gradients; which weights got one; which reports have a graph."""
    loss, reports = run()
    module.zero_grad()
    if loss.requires_grad:
        loss.backward()
    grads = [p.grad for p in module.parameters()]
    marks = [g is not None and bool(g.any()) for g in grads] + [r.requires_grad for r in reports]
    return [x.detach().double() for x in (loss, *reports, *(g for g in grads if g is not None))], marks


def difference(module: nn.Module, run: Callable, backend: str = "aot_eager") -> dict:
    """Largest difference between compiled and eager numbers, and whether the same things have gradients."""
    eager, marks = results(module, run)
    torch._dynamo.reset()
    compiled, compiled_marks = results(module, torch.compile(run, backend=backend, fullgraph=True))
    far = [float((a - b).abs().max()) for a, b in zip(eager, compiled, strict=True)]
    return {"far": max(far), "same_graph": marks == compiled_marks}


def quiet() -> dict:
    """A compiled write under `no_grad`."""
    toy, rule, stream = Toy(), RULES["titans"](), [pairs(), pairs()]
    fast = detach(toy.write(rule, stream)[0]).fast
    write = torch.compile(lambda: toy.write(rule, stream)[0].fast, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        written = write()
    far = max(float((written[n] - w).abs().max()) for n, w in fast.items())
    return {"far": far, "same_graph": not any(w.requires_grad for w in written.values())}


def main() -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    found = {name: difference(module, run) for name, module, run in (*toy_cases(), *model_cases())}
    found |= {name: difference(module, run, "inductor") for name, module, run in short_windows() if COMPILER}
    json.dump(found | {"toy no_grad": quiet()}, sys.stdout)


if __name__ == "__main__":
    main()
