"""The mean of layers, against the layers themselves."""

import torch

from vitrail.blocks.graph import bipartite_adjacency, layers, mean_of_layers


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
