"""Quadratic layers: the checks of the QIN card."""

import torch

from vitrail.blocks.quadratic import QuadraticNet


def test_a_quadratic_layer():
    """x = [1, 2], W1 = I, W2 swaps: h = [[1, 2], [2, 1]], y = [3, 6]; so does one matrix W1 + W2; scaling x by c scales y by c^2."""
    net = QuadraticNet(2, 1, 2, norm=False)
    with torch.no_grad():
        net.maps[0].weight.copy_(torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0]]))
        net.maps[0].bias.zero_()
    x = torch.tensor([[1.0, 2.0]])
    assert net.product(0, x).tolist() == [[3, 6]] and net.product(0, 3 * x).tolist() == [[27, 54]]
    single = QuadraticNet(2, 1, 1, norm=False)
    with torch.no_grad():
        single.maps[0].weight.fill_(1.0)
        single.maps[0].bias.zero_()
    assert single.product(0, x).tolist() == [[3, 6]] and net(x).tolist() == [[4, 8]]


def test_without_dropout_matrices_are_added_up_first():
    torch.manual_seed(0)
    net, x = QuadraticNet(6, 1, 4, 0.3).eval(), torch.randn(5, 6)
    torch.testing.assert_close(net.product(0, x), x * net.maps[0](x).view(5, 4, 6).sum(1))
