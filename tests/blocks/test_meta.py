"""Attention between coordinates of kinds, and transforms of each node's own, against their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrail.blocks import meta
from vitrail.blocks.drop import new_seed, stays
from vitrail.blocks.meta import CrossKinds, LowRank


def scalar_attention(module: nn.MultiheadAttention, asks: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    (wq, wk, wv), (bq, bk, bv) = module.in_proj_weight[:, 0], module.in_proj_bias
    weights = ((asks * wq + bq)[:, :, None] * (told * wk + bk)[:, None, :]).softmax(2)
    return (weights * (told * wv + bv)[:, None, :]).sum(2) * module.out_proj.weight[0, 0] + module.out_proj.bias[0]


def test_kinds_attend_to_themselves_and_are_asked_by_the_others() -> None:
    torch.manual_seed(0)
    bend = nn.PReLU()
    made = CrossKinds(5, 2, 0.4, 0.6, bend).eval()
    v, t = torch.randn(3, 5), torch.randn(3, 5)
    after = lambda x, found: bend(F.layer_norm(x + found, (5,)))  # noqa: E731
    v1, t1 = (after(x, scalar_attention(made.within[n], x, x)) for n, x in enumerate((v, t)))
    expected = [after(v1, scalar_attention(made.across[0], t1, v1)), after(t1, scalar_attention(made.across[1], v1, t1))]
    for one, other in zip(made([v, t]), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert len(CrossKinds(5, 1, 0.0, 0.0, bend)([v])) == 1
    full = CrossKinds(5, 2, 1.0, 1.0, bend)  # all of the attention dropped: what stays is the bias of its projection
    torch.testing.assert_close(full([v, t])[0], after(after(v, full.within[0].out_proj.bias), full.across[0].out_proj.bias))


def test_even_factors_share_the_mean() -> None:
    made = LowRank(6, 4, 2)
    for maker in made.makers:
        nn.init.zeros_(maker[2].weight)
        nn.init.zeros_(maker[2].bias)
    x = torch.randn(3, 4)
    torch.testing.assert_close(made(x, torch.randn(3, 6)), x.mean(1, keepdim=True).expand(3, 4))
    fresh = LowRank(6, 4, 2)
    torch.testing.assert_close(fresh(x, torch.randn(3, 6)), x.mean(1, keepdim=True).expand(3, 4), atol=0.7, rtol=0)


def test_factors_are_those_of_the_formula_and_a_part_uses_the_means_of_the_whole() -> None:
    torch.manual_seed(0)
    made = LowRank(6, 4, 2)
    x, known = torch.randn(5, 4), torch.randn(5, 6, requires_grad=True)
    k = made.compress(known)
    A, B = (F.normalize(maker(k), dim=1) for maker in made.makers)
    A, B = (A + A.mean(0)).view(5, 4, 2).softmax(1), (B + B.mean(0)).view(5, 2, 4).softmax(1)
    torch.testing.assert_close(A.sum(1), torch.ones(5, 2))
    expected = torch.stack([x[n] @ A[n] @ B[n] for n in range(5)])
    whole = made(x, known)
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(made(x[2:3], known[2:3], whole=False), whole[2:3])
    whole.sum().backward()
    assert known.grad is None and made.compress.weight.grad is None and made.makers[0][0].weight.grad.any()


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_attention_between_coordinates_and_its_gradient_are_those_of_the_formula(rate, monkeypatch) -> None:
    monkeypatch.setattr(meta, "BLOCK", 32)  # two rows at a time
    torch.manual_seed(0)
    q, k, v, weigh = (2 * torch.randn(5, 4, dtype=torch.float64) for _ in range(4))
    tables = [x.requires_grad_() for x in (q, k, v)]
    torch.manual_seed(1)
    fast = meta.between_coordinates(*tables, rate)
    torch.manual_seed(1)
    seed = new_seed() if rate else 0
    kept = torch.cat([stays(torch.empty(len(x), 4, 4), rate, seed ^ n) for n, x in enumerate(q.split(2))]) / (1 - rate)
    plain = ((q[:, :, None] * k[:, None]).softmax(2) * kept * v[:, None]).sum(2)
    torch.testing.assert_close(fast, plain)
    assert bool((kept == 0).any()) == bool(rate)
    for one, two in zip(torch.autograd.grad((fast * weigh).sum(), tables), torch.autograd.grad((plain * weigh).sum(), tables), strict=True):
        torch.testing.assert_close(one, two)
