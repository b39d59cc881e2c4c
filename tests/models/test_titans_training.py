"""What holds for the Titans models as they are trained: with gradients, recomputed chunks and checkpointed blocks."""

import pytest
import torch

from ttmem.core.state import tensors
from ttmem.models import build, preset

VOCAB, T = 20, 21
SMALL = {"dim": 16, "vocab": VOCAB, "pad": 0, "hidden": 16, "chunk_size": 4, "segment_size": 6, "window_size": 5}
KINDS = {
    "lmm": {},
    "lmm deep": {"memory_depth": 4, "forget": "channel"},
    "mac": {},
    "mac queries": {"memory_tokens": 3},
    "mag": {},
    "mal": {},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def model(kind, **changes):
    """A small model in training mode, whose weights are large enough to matter."""
    made = build(preset("tiny", kind.split()[0], **SMALL | KINDS[kind] | changes), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    return made.train()


def reach(made, places, cut):
    """How much outputs at these places are moved by each input token, by gradients; the text comes in two pieces."""
    x = made.embedding(torch.randint(1, VOCAB, (1, T))).detach().requires_grad_()
    state, outs = None, []
    for piece in x.split([cut, T - cut], dim=1):
        hidden, state = made.hidden(piece, state)
        outs.append(hidden)
    said = torch.cat(outs, dim=1)[0] @ torch.randn(hidden.shape[-1])
    return [torch.autograd.grad(said[place], x, retain_graph=True)[0][0].norm(dim=-1) for place in places]


@pytest.mark.usefixtures("float64")
@kinds
def test_no_output_has_a_gradient_for_a_later_token(kind):
    places = (3, 13, 18)
    for place, found in zip(places, reach(model(kind, checkpoint=True), places, cut=11), strict=True):
        assert not found[place + 1 :].any()  # exactly nothing
        assert (found[: place + 1] > 0).all()  # and something for it and all before


@kinds
@pytest.mark.parametrize("half", [False, True])
def test_a_long_text_leaves_loss_state_and_gradients_finite(kind, half):
    made = model(kind, memory_depth=4, chunk_size=64, segment_size=64, window_size=64, layers=1)
    ids = torch.randint(1, VOCAB, (1, 4096))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits, state = made(ids)
    logits.float().square().mean().backward()
    found = [logits, *tensors(state), *(p.grad for p in made.parameters() if p.grad is not None)]
    assert all(torch.isfinite(part).all() for part in found if part.is_floating_point())


@pytest.mark.usefixtures("float64")
@kinds
def test_recomputing_and_checkpointing_change_no_gradient(kind):
    ids, found = torch.randint(1, VOCAB, (2, T)), []
    for again in (False, True):
        made = model(kind, checkpoint=again, recompute=again)
        made(ids)[0].square().mean().backward()
        found.append([p.grad for p in made.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
