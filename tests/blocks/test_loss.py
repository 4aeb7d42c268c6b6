"""Fast losses equal their plain forms."""

import math

import pytest
import torch
import torch.nn.functional as F

from vitrail.blocks import loss


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0], ids=["small", "usual", "would underflow"])
@pytest.mark.parametrize("block", [7, 1000])
def test_full_softmax_equals_cross_entropy_with_gradients(scale, block):
    torch.manual_seed(0)
    h, E = (torch.randn(40, 8) * scale).requires_grad_(), torch.randn(50, 8).requires_grad_()
    targets = torch.randint(0, 50, (40,))
    fast, plain = loss.full_softmax(h, E, targets, block=block), F.cross_entropy(h @ E.T, targets)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
    for a, b in zip(torch.autograd.grad(3 * fast, (h, E)), torch.autograd.grad(3 * plain, (h, E)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_losses_of_ignorance():
    zero, many = torch.zeros(5), torch.zeros(5, 3)
    assert float(loss.bpr(zero, many)) == pytest.approx(math.log(2))
    assert float(loss.bce(zero, many)) == pytest.approx(2 * math.log(2))
    assert float(loss.sampled_softmax(zero, many)) == pytest.approx(math.log(4))
    same = torch.zeros(5, 3, dtype=torch.bool)
    same[:, 0] = True
    assert float(loss.sampled_softmax(zero, many, same)) == pytest.approx(math.log(3))


def test_gbce_is_bce_without_calibration_and_scales_by_the_sampling_rate_with_it():
    torch.manual_seed(0)
    p, n = torch.randn(6), torch.randn(6, 4)
    assert float(loss.gbce(p, n, 101, 0.0)) == pytest.approx(float(loss.bce(p, n)))
    beta = 4 / 100
    expected = beta * F.softplus(-p).mean() + F.softplus(n).mean()
    assert float(loss.gbce(p, n, 101, 1.0)) == pytest.approx(float(expected))


def test_l2_of_batch_is_half_the_squared_norm_a_row():
    assert float(loss.l2_of_batch(torch.ones(2, 3), 2 * torch.ones(2, 3))) == pytest.approx((6 + 24) / 2 / 2)
