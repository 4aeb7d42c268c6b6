"""Dropout from few random bits."""

import torch

from vitrail.blocks.drop import Dropout, kept


def test_the_share_that_stays_and_its_scale():
    torch.manual_seed(0)
    factors = kept(torch.empty(300, 401), 0.3)
    assert factors.shape == (300, 401) and factors.dtype == torch.float32
    torch.testing.assert_close(factors.unique(), torch.tensor([0.0, 1 / 0.7]))
    assert abs(float(factors.mean()) - 1) < 0.01
    pairs = torch.stack([factors.flatten()[:-1], factors.flatten()[1:]])
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.01  # neighbours come from one word of bits


def test_it_follows_the_seed_and_rests_outside_training():
    x, drop = torch.ones(7, 5), Dropout(0.5)
    torch.manual_seed(1)
    first, second = drop(x), drop(x)
    torch.manual_seed(1)
    assert torch.equal(first, drop(x)) and not torch.equal(first, second)
    assert drop.eval()(x) is x and Dropout(0.0)(x) is x


def test_the_gradient_passes_where_a_number_stayed():
    x = torch.randn(40, 3, requires_grad=True)
    y = Dropout(0.4)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, (y / x).detach())
