"""Cross networks: the checks of the DCNv2 card."""

import torch

from vitrail.blocks.interact import CrossMix, CrossNet, Tower


def cross(*layers):
    net = CrossNet(len(layers[0][1]), len(layers))
    with torch.no_grad():
        for layer, (W, b) in zip(net.layers, layers, strict=True):
            layer.weight.copy_(torch.as_tensor(W, dtype=torch.float32))
            layer.bias.copy_(torch.as_tensor(b, dtype=torch.float32))
    return net


def test_hand_value_and_identity():
    x = torch.tensor([[1.0, 2.0]])
    assert cross((torch.eye(2), [0, 1]))(x).tolist() == [[2, 8]]
    assert cross((torch.zeros(2, 2), [0, 0]))(x).tolist() == [[1, 2]]


def test_rank_one_without_bias_is_the_first_version():
    torch.manual_seed(0)
    w, x0 = torch.randn(2, 4), torch.randn(6, 4)
    x = x0
    for row in w:
        x = x0 * (x @ row)[:, None] + x
    torch.testing.assert_close(cross(*((row.expand(4, 4), torch.zeros(4)) for row in w))(x0), x)


def test_the_degree_is_one_more_than_the_layers():
    """Along a line x0 = s v the output is a polynomial of degree 3 for 2 layers: fourth differences vanish, third ones do not."""
    torch.manual_seed(0)
    net, v = cross(*((torch.randn(3, 3), torch.zeros(3)) for _ in range(2))).double(), torch.randn(3, dtype=torch.float64)
    y = net(torch.arange(6, dtype=torch.float64)[:, None] * v)
    assert y.diff(4, dim=0).abs().max() < 1e-9 < y.diff(3, dim=0).abs().max()


def test_the_mixture_equals_its_formula_and_takes_a_batch_of_one():
    torch.manual_seed(0)
    net, x0 = CrossMix(5, 2, rank=2, experts=3), torch.randn(4, 5)
    x = x0
    for down, core, up, bias, gate in zip(net.down, net.core, net.up, net.bias, net.gates, strict=True):
        g, total = torch.softmax(gate(x), 1), torch.zeros_like(x)
        for e in range(3):
            total = total + g[:, [e]] * x0 * (torch.tanh(torch.tanh(x @ down[e]) @ core[e]) @ up[e] + bias)
        x = total + x
    torch.testing.assert_close(net(x0), x)
    torch.testing.assert_close(net(x0[:1]), x[:1])


def test_a_tower_has_what_is_asked():
    tower = Tower(4, [8, 3], "dice", dropout=0.5, norm=True, out=1)
    assert tower(torch.randn(6, 4)).shape == (6, 1) and tower.width == 3
    assert Tower(4, []).width == 4 and Tower(4, [])(torch.ones(2, 4)).tolist() == [[1] * 4] * 2
