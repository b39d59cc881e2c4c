import math

import pytest
import torch

from ttmem.core import associative, token_loss

pytestmark = pytest.mark.usefixtures("float64")


def test_token_loss_is_the_mean_surprise_of_each_row_s_own_tokens():
    logits, targets = torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    mask = torch.tensor([[True, True, False], [True, True, True]])
    probability = logits.softmax(-1)
    wanted = [
        sum(-math.log(probability[b, t, targets[b, t]]) for t in range(3) if mask[b, t]) / int(mask[b].sum())
        for b in range(2)
    ]
    assert token_loss(logits, targets, mask).tolist() == pytest.approx(wanted, rel=1e-12)


def test_a_uniform_guess_costs_the_logarithm_of_the_vocabulary():
    loss = token_loss(torch.zeros(1, 4, 70), torch.randint(70, (1, 4)), torch.ones(1, 4, dtype=torch.bool))
    assert loss.item() == pytest.approx(math.log(70))


def test_a_row_without_tokens_has_no_loss_and_no_gradient():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    mask = torch.tensor([[True] * 3, [False] * 3])
    loss = token_loss(logits, torch.zeros(2, 3, dtype=torch.long), mask)
    loss.sum().backward()
    assert loss[1] == 0 and not logits.grad[1].any() and logits.grad[0].any()


def test_what_is_masked_cannot_change_the_token_loss():
    logits, mask = torch.randn(1, 3, 5), torch.tensor([[True, False, True]])
    one = token_loss(logits, torch.tensor([[1, 2, 3]]), mask)
    logits[:, 1] = 99 * torch.randn(5)
    assert torch.equal(one, token_loss(logits, torch.tensor([[1, 4, 3]]), mask))


def test_the_associative_loss_is_the_squared_error_summed():
    weight, keys, values = torch.randn(2, 3, 4), torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    loss = associative(lambda fast, x: x @ fast["w"])({"w": weight}, (keys, values))
    wanted = [sum(((keys[b, t] @ weight[b] - values[b, t]) ** 2).sum().item() for t in range(5)) for b in range(2)]
    assert loss.tolist() == pytest.approx(wanted, rel=1e-12)


def test_tokens_masked_out_are_tokens_that_are_not_there():
    weight, keys, values = torch.randn(2, 3, 4), torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    objective = associative(lambda fast, x: x @ fast["w"])
    mask = torch.arange(5).expand(2, 5) < 3
    masked = objective({"w": weight}, (keys, values, mask))
    torch.testing.assert_close(masked, objective({"w": weight}, (keys[:, :3], values[:, :3])), rtol=1e-13, atol=0)
