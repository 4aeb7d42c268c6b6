"""Nested widths: prefixes are computed from prefixes, and numbers behind a prefix get nothing from its loss."""

import pytest
import torch
from torch import nn

from vitrail.blocks.nested import NestedLinear, NestedNorm, halvings, over_prefixes
from vitrail.errors import SettingError


def test_halvings():
    assert halvings(64, 8) == (8, 16, 32, 64)
    assert halvings(12, 4) == (6, 12)
    assert halvings(7, 2) == (7,)


def test_one_width_is_the_plain_loss_and_others_add_up():
    x = torch.randn(3, 8, requires_grad=True)
    plain = over_prefixes(lambda cut: cut(x).square().sum(), (), (), 8)
    assert over_prefixes(lambda cut: cut(x).square().sum(), (8,), (1.0,), 8).equal(plain)
    total = over_prefixes(lambda cut: cut(x).square().sum(), (2, 4, 8), (1.0, 1.0, 0.5), 8)
    torch.testing.assert_close(total, x[:, :2].square().sum() + x[:, :4].square().sum() + 0.5 * x.square().sum())


def test_a_number_gets_gradient_from_the_widths_that_hold_it():
    x = torch.randn(8, requires_grad=True)
    (gradient,) = torch.autograd.grad(over_prefixes(lambda cut: cut(x).sum(), (2, 4, 8), (1.0,) * 3, 8), x)
    assert gradient.tolist() == [3.0, 3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0], "of those widths m > j"


@pytest.mark.parametrize("widths", [(2, 4), (4, 2, 8), (8, 8), (2, 16)])
def test_widths_rise_to_the_full_one(widths):
    with pytest.raises(SettingError, match="end with the width of the vectors, which is 8"):
        over_prefixes(lambda cut: cut(torch.ones(8)).sum(), widths, (1.0,) * len(widths), 8)


def test_the_efficient_head_reads_a_prefix_as_if_the_rest_were_zero():
    z, W = torch.randn(5, 8), torch.randn(3, 8)
    zeroed = torch.cat([z[:, :4], torch.zeros(5, 4)], 1)
    torch.testing.assert_close(z[:, :4] @ W[:, :4].T, zeroed @ W.T)


def test_nested_layers_compute_a_prefix_from_the_prefix():
    widths = (2, 4, 8)
    body = nn.Sequential(NestedNorm(widths), NestedLinear(widths))
    x = torch.randn(6, 8)
    whole = body(x)
    for m in widths:
        torch.testing.assert_close(body(x[:, :m]), whole[:, :m])


def test_a_nested_linear_of_the_paper_s_width_has_its_numbers():
    layer = NestedLinear(halvings(1024, 8))
    weights = sum(p.numel() for name, p in layer.named_parameters() if name.endswith("weight"))
    assert (weights, sum(p.numel() for p in layer.parameters()) - weights) == (699_072, 1024)
    assert sum(p.numel() for p in nn.Linear(1024, 1024).parameters()) == 1_049_600
