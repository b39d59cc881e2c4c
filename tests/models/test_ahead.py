"""What a backbone makes of a context whatever the memory holds is made once for all steps of a write."""

import pytest
import torch
from torch import nn

from models.tiny import episode, ids, model

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", ["tokens", "neural", "mlp", "rmt4"])


class Forgetful(nn.Module):
    """A backbone of the three methods alone: it makes everything anew at each step."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner
        self.dim, self.vocab, self.slots, self.head = inner.dim, inner.vocab, inner.slots, inner.head
        self.embed, self.hidden, self.logits = inner.embed, inner.hidden, inner.logits


def made_of(kind, addresses, **changes):
    return model(kind, addresses=addresses, stem=True, separator=6, steps=3, rule="momentum", **changes)


def loss_and_gradients(made, asked):
    loss = made.loss(asked).loss
    return loss, torch.autograd.grad(loss, list(made.parameters()))


@kinds
@pytest.mark.parametrize("addresses", ["content", "learned", "sines"])
@pytest.mark.parametrize("more", [{}, {"recompute": True}, {"meta_gradient": "first"}, {"weigh": True}], ids=str)
def test_a_write_and_its_meta_gradient_are_those_of_a_backbone_that_makes_all_of_it_anew(kind, addresses, more):
    made, asked = made_of(kind, addresses, **more), episode()
    loss, gradients = loss_and_gradients(made, asked)
    made.backbone = Forgetful(made.backbone)
    anew, expected = loss_and_gradients(made, asked)
    assert torch.equal(loss, anew) and gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients, expected, rtol=1e-10, atol=1e-12)


@kinds
@pytest.mark.parametrize("addresses, looks", [("content", 4), ("learned", 1), ("sines", 1)])
def test_a_write_of_four_steps_passes_the_stem_once_and_the_first_layer_s_looks_where_no_memory_changes_them(
    kind, addresses, looks
):
    made, context, calls = made_of(kind, addresses), ids(2, 5).clamp(max=5), []  # 6 would end a segment
    first = made.backbone.blocks[0].before_attention
    made.backbone.stem.register_forward_hook(lambda *_: calls.append("stem"))
    first.register_forward_hook(lambda _, given, __: calls.append("look") if given[0].shape[1] == 4 else None)
    made.write(made.start(2), context, 4)
    assert (calls.count("stem"), calls.count("look")) == (1, looks)
