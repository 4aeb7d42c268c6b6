"""The linear recurrent unit: the doubling scan equals the recurrence, decays stay inside the circle."""

import torch

from vitrail.blocks.lru import LRU, scan


def test_the_scan_is_the_recurrence():
    torch.manual_seed(0)
    x, log_decay = torch.randn(3, 11, 4, dtype=torch.complex64), torch.complex(-torch.rand(4), torch.rand(4) * 6)
    h, states = torch.zeros(3, 4, dtype=torch.complex64), []
    for t in range(x.shape[1]):
        h = log_decay.exp() * h + x[:, t]
        states.append(h)
    torch.testing.assert_close(scan(x, log_decay), torch.stack(states, 1))
    torch.testing.assert_close(scan(x[:, :1], log_decay), x[:, :1])


def test_what_stands_behind_never_reaches_an_event():
    layer, x = LRU((2, 4), 0.0, 0.9), torch.randn(2, 6, 4)
    other = torch.cat([x[:, :4], torch.randn(2, 2, 4)], 1)
    torch.testing.assert_close(layer(x)[:, :4], layer(other)[:, :4])


def test_decays_start_on_the_ring_and_stay_below_one():
    torch.manual_seed(1)
    layer = LRU((64,), 0.3, 0.8)
    size = layer.log_decay().detach().exp().abs()
    assert float(size.min()) >= 0.3 and float(size.max()) <= 0.8
    torch.testing.assert_close(layer.gamma.exp(), (1 - size.square()).sqrt())
    with torch.no_grad():
        layer.nu.copy_(torch.linspace(-9.0, 9.0, 64))
    assert float(layer.log_decay().detach().exp().abs().max()) < 1


def test_a_prefix_is_computed_from_the_prefix():
    layer, x = LRU((2, 4, 8), 0.0, 0.9), torch.randn(2, 5, 8)
    for m in (2, 4):
        torch.testing.assert_close(layer(x[..., :m]), layer(x)[..., :m])
