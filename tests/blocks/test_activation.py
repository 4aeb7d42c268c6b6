"""Dice: the hand values of its card, and the two-pass form against the formula in plain autograd."""

import pytest
import torch
import torch.nn.functional as F

from vitrail.blocks import activation as module
from vitrail.blocks.activation import Dice, activation


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, [-0.20724, 0, 0.609977, 1.585519]), (0.25, [-0.40543, 0, 0.707482, 1.689139]), (1.0, [-1, 0, 1, 2])])
def test_hand_values(alpha, expected):
    dice = Dice(1)
    torch.nn.init.constant_(dice.alpha, alpha)
    torch.testing.assert_close(dice(torch.tensor([[-1.0], [0], [1], [2]])).flatten(), torch.tensor(expected, dtype=torch.float32), atol=1e-5, rtol=1e-5)


def plain(x, dice, mean, variance):
    p = torch.sigmoid(F.batch_norm(x, mean, variance, None, None, dice.training, dice.momentum, dice.eps))
    return p * x + (1 - p) * dice.alpha * x


@pytest.mark.parametrize("training", [True, False])
def test_two_passes_equal_the_formula(training, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 64)  # many blocks, the last one short
    torch.manual_seed(0)
    dice = Dice(5).train(training)
    torch.nn.init.uniform_(dice.alpha, -1, 1)
    x, g = torch.randn(3, 70, 5, requires_grad=True), torch.randn(3, 70, 5)
    mean, variance = dice.mean.clone(), dice.variance.clone()
    wanted = plain(x.view(-1, 5), dice, mean, variance).view(3, 70, 5)
    by_formula = torch.autograd.grad(wanted, [x, dice.alpha], g)
    mine = dice(x)
    by_hand = torch.autograd.grad(mine, [x, dice.alpha], g)
    torch.testing.assert_close(mine, wanted)
    for a, b in zip(by_hand, by_formula, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(dice.mean, mean)
    torch.testing.assert_close(dice.variance, variance)


def test_in_evaluation_the_batch_does_not_matter():
    dice, x = Dice(3), torch.randn(8, 3)
    dice(x)
    dice.eval()
    torch.testing.assert_close(dice(x)[:2], dice(x[:2]))
    assert bool(torch.isfinite(Dice(3)(x[:1])).all()) and dice(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("name", ["dice", "prelu", "relu", "sigmoid"])
def test_every_name_is_an_activation(name):
    assert activation(name, 4)(torch.randn(6, 4)).shape == (6, 4)


@pytest.mark.parametrize("rows", [0, 1, 70, 128])
def test_where_nothing_is_learned_fewer_passes_give_the_same(rows):
    torch.manual_seed(0)
    dice, x = Dice(5).eval(), torch.randn(rows, 5)
    torch.nn.init.uniform_(dice.alpha, -1, 1)
    dice.mean.normal_(), dice.variance.uniform_(0.5, 2)
    with torch.no_grad():
        found = dice(x)
    torch.testing.assert_close(found, dice(x).detach())
