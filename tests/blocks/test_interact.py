"""Interactions of fields: the checks of the cards of DCNv2, FM, DLRM and AutoInt."""

import pytest
import torch

from vitrail.blocks.interact import CrossMix, CrossNet, FieldAttention, Tower, pair_dots, pair_sum


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


def test_pairs_of_a_factorization_machine_by_hand():
    """x = [1, 2, 3] and V: the pairs add up to -5 by both forms; the gradient of V is x_i times the sum of the others."""
    x, V = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[1.0, 0], [2, 1], [-1, 1]], requires_grad=True)
    value = pair_sum((V * x[:, None])[None])
    value.sum().backward()
    assert value.tolist() == [-5.0] and V.grad.tolist() == [[1, 5], [-4, 6], [15, 6]]
    w = torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(0.5 + w @ x + value[0], torch.tensor(-3.1))


def test_pairs_equal_the_double_loop_and_do_not_depend_on_order():
    torch.manual_seed(0)
    v = torch.randn(4, 6, 3)
    loop = sum((v[:, i] * v[:, j]).sum(1) for i in range(6) for j in range(i + 1, 6))
    torch.testing.assert_close(pair_sum(v), loop, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pair_sum(v[:, torch.randperm(6)]), loop)
    torch.testing.assert_close(pair_sum(torch.cat([v, torch.zeros(4, 1, 3)], 1)), loop)
    torch.testing.assert_close(pair_dots(v).sum(1), loop)


def test_pooling_first_drops_the_pairs_inside_a_field():
    a, b, c = torch.eye(3)[None].unbind(1)
    pooled = torch.stack([(a + a) / 2, b], 1)
    every = torch.stack([a / 2, a / 2, b], 1)
    assert pair_sum(pooled).tolist() == [0.0] and pair_sum(every).tolist() == [0.25] and pair_sum(torch.stack([a, c], 1)).tolist() == [0.0]


def test_dots_of_pairs_by_hand():
    rows = torch.tensor([[[1.0, 2], [3, 0], [0, 1]]])
    assert pair_dots(rows).tolist() == [[3, 2, 0]] and pair_sum(rows).tolist() == [5.0]


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_fields_permuted_come_out_permuted_and_shares_add_up(variant):
    torch.manual_seed(0)
    layer, x, order = FieldAttention(4, 6, 2, variant), torch.randn(3, 5, 4), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(layer(x)[:, order], layer(x[:, order]))
    shares = layer.weigh(x)
    assert shares.shape == (3, 2, 5, 5)
    torch.testing.assert_close(shares.sum(-1), torch.ones(3, 2, 5))
    assert FieldAttention(4, 6, 3, variant, residual=False)(x).shape == (3, 5, 6)


def test_attention_equals_the_equations_of_the_paper():
    torch.manual_seed(0)
    layer, x = FieldAttention(4, 6, 2), torch.randn(2, 3, 4)
    wanted = torch.zeros(2, 3, 6)
    for head in range(2):
        own = slice(3 * head, 3 * head + 3)
        q, k, v = (x @ m.weight[own].T for m in (layer.q, layer.k, layer.v))
        for b in range(2):
            for i in range(3):
                shares = torch.softmax(torch.stack([q[b, i] @ k[b, j] for j in range(3)]), 0)
                wanted[b, i, own] = sum(shares[j] * v[b, j] for j in range(3))
    torch.testing.assert_close(layer(x), torch.relu(wanted + x @ layer.residual.weight.T))


def test_without_queries_every_field_reads_the_mean():
    layer, x = FieldAttention(4, 4, 1), torch.randn(2, 3, 4)
    torch.nn.init.zeros_(layer.q.weight)
    torch.testing.assert_close(layer(x), torch.relu(layer.v(x).mean(1, keepdim=True) + layer.residual(x)))
