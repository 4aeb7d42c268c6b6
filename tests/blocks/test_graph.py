"""Products, the mean of layers and a layer of NGCF, against their plain forms."""

import pytest
import torch
import torch.nn.functional as F

from vitrail.blocks import graph
from vitrail.blocks.graph import bilinear_layer, bipartite_adjacency, layers, mean_of_layers, mean_of_tables, product, two_sided_layer


def test_horners_rule_gives_the_mean_of_the_layers_and_its_gradient():
    torch.manual_seed(0)
    A = bipartite_adjacency(torch.tensor([0, 2, 3, 3]), torch.tensor([0, 1, 1]), 4)
    for depth in (0, 1, 3):
        found = []
        for way in (lambda x, d=depth: mean_of_layers(A, x, d), lambda x, d=depth: torch.stack(layers(A, x, d)).mean(0)):
            x = torch.arange(14.0).view(7, 2).sin().requires_grad_()
            y = way(x)
            (y * torch.arange(14.0).view(7, 2)).sum().backward()
            found.append((y.detach(), x.grad))
        torch.testing.assert_close(*found)


def test_two_tables_have_the_mean_of_both_one_above_the_other():
    A = bipartite_adjacency(torch.tensor([0, 2, 3, 3]), torch.tensor([0, 1, 1]), 4)
    weigh = torch.arange(14.0).view(7, 2)
    for depth in (0, 2):
        users, items = (table.sin().requires_grad_() for table in (torch.arange(6.0).view(3, 2), torch.arange(8.0).view(4, 2)))
        both = mean_of_tables(A, users, items, depth)
        (both[0] * weigh[:3]).sum().backward(retain_graph=True)
        (both[1] * weigh[3:]).sum().backward()
        x = torch.cat([users, items]).detach().requires_grad_()
        mean = mean_of_layers(A, x, depth)
        (mean * weigh).sum().backward()
        torch.testing.assert_close((torch.cat(both), torch.cat([users.grad, items.grad])), (mean, x.grad))


def test_a_product_is_that_of_the_matrix_also_for_nodes_without_an_edge():
    A = bipartite_adjacency(torch.tensor([0, 2, 3, 3]), torch.tensor([0, 1, 1]), 4)
    x = torch.arange(14.0).view(7, 2).sin()
    torch.testing.assert_close(product(A, x), A.to_dense() @ x)
    torch.testing.assert_close(product(A.double(), x.double()), A.to_dense().double() @ x.double())


@pytest.mark.parametrize("block", [8, graph.BLOCK])
def test_a_bilinear_layer_is_the_published_equation_and_so_is_its_gradient(block, monkeypatch):
    monkeypatch.setattr(graph, "BLOCK", block)  # two rows at a time, or all
    torch.manual_seed(0)
    start = [torch.randn(9, 4), torch.randn(9, 4), torch.randn(4, 4), torch.randn(4, 4), torch.randn(4)]
    start[0][3] = start[1][3] = 0.0
    weigh = torch.randn(9, 4)

    def plain(x, s, W, P, bias):
        return F.normalize(F.leaky_relu((s + x) @ W.T + (s * x) @ P.T + bias, 0.2), dim=1)

    found = []
    for way in (plain, lambda *given: bilinear_layer(*given, slope=0.2, dropout=0.0)):
        given = [tensor.clone().requires_grad_() for tensor in start]
        y = way(*given)
        (y * weigh).sum().backward()
        found.append([y.detach(), *(tensor.grad for tensor in given)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("block", [8, 1 << 18])
def test_a_two_sided_layer_is_that_of_the_authors_and_so_is_its_gradient(block, monkeypatch):
    monkeypatch.setattr(graph, "BLOCK", block)
    torch.manual_seed(0)
    start = [torch.randn(9, 4), torch.randn(9, 4), torch.randn(4, 4), torch.randn(4, 4), torch.randn(4), torch.randn(4)]
    weigh = torch.randn(2, 9, 4)

    def plain(x, s, W, P, of_sum, of_both):
        h = F.leaky_relu(s @ W.T + of_sum, 0.2) + F.leaky_relu((s * x) @ P.T + of_both, 0.2)
        return h, F.normalize(h, dim=1)

    for used in ((0, 1), (1,), (0,)):  # the last layer answers and goes nowhere
        found = []
        for way in (plain, lambda *given: two_sided_layer(*given, slope=0.2, dropout=0.0)):
            given = [tensor.clone().requires_grad_() for tensor in start]
            y = way(*given)
            sum((y[n] * weigh[n]).sum() for n in used).backward()
            found.append([*(part.detach() for part in y), *(tensor.grad for tensor in given)])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b)


def test_dropout_in_a_bilinear_layer_leaves_out_its_share_and_no_gradient_passes_there():
    torch.manual_seed(0)
    x = torch.randn(400, 8, requires_grad=True)
    bias = torch.zeros(8, requires_grad=True)
    y = bilinear_layer(x, torch.randn(400, 8), torch.eye(8), torch.eye(8), bias, slope=0.2, dropout=0.25)
    gone = y == 0
    assert 0.2 < float(gone.float().mean()) < 0.3
    torch.testing.assert_close(y.detach().norm(dim=1), torch.ones(400))
    (y * gone).sum().backward()
    assert bias.grad.abs().max() < 1e-4
