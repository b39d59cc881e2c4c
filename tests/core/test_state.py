import pytest
import torch

from core.toy import Toy, pairs
from ttmem.core import State, adam, begin, detach, titans
from ttmem.core.state import map_state, row_norm, tensors

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("rule", [titans(), adam()], ids=["titans", "adam"])
def test_detach_cuts_memory_and_velocity_from_the_graph_and_changes_no_number(rule):
    state, _ = Toy().write(rule, [pairs(), pairs()])
    cut = detach(state)
    assert any(x.requires_grad for x in tensors(state.velocity)) and not any(x.requires_grad for x in tensors(cut))
    assert all(torch.equal(a, b) for a, b in zip(tensors(state), tensors(cut), strict=True))
    assert isinstance(cut, State) and cut.step == 2


def test_mapping_keeps_the_structure_and_what_is_no_tensor():
    tree = ({"a": torch.ones(1)}, (), (torch.ones(2), 7))
    assert map_state(lambda x: x.shape[0], tree) == ({"a": 1}, (), (2, 7))


def test_beginning_remembers_nothing():
    state = begin(titans(), {"w": torch.ones(2, 3)})
    assert state.step == 0 and not any(x.any() for x in tensors(state.velocity))


def test_row_norm_is_each_row_s_norm_over_the_whole_tree():
    tree = {"w": torch.randn(3, 2, 2), "c": torch.randn(3, 2)}
    wanted = torch.cat([tree["w"].flatten(1), tree["c"]], dim=1).norm(dim=1)
    torch.testing.assert_close(row_norm(tree), wanted, rtol=1e-14, atol=0)


def test_row_norm_has_gradient_zero_at_zero():
    weight = torch.zeros(2, 3, requires_grad=True)
    row_norm({"w": weight}).sum().backward()
    assert torch.equal(weight.grad, torch.zeros(2, 3))
