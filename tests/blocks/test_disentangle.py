"""Codes in parts against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from vitrail.blocks.disentangle import Prototypes, across, parts_agree, spread_kl


def net(things: int = 9, kinds: int = 3, noise: float = 0.075) -> Prototypes:
    torch.manual_seed(0)
    return Prototypes(things, 4, kinds, temperature=0.1, noise=noise).eval()


def test_attention_by_hand() -> None:
    eye = torch.eye(2)[None]
    torch.testing.assert_close(across(eye, eye), 0.55677 * eye, atol=1e-5, rtol=0)


def test_the_score_is_the_log_of_the_plain_sum_and_one_prototype_has_all() -> None:
    for kinds in (1, 3):
        made = net(kinds=kinds)
        code, share = torch.randn(5, kinds, 4), made.belonging()
        unit = F.normalize(made.things, dim=1)
        plain = sum(torch.exp(code[:, k] @ unit.T / 0.1) * share[:, k].exp() for k in range(kinds)).log()
        torch.testing.assert_close(made.decode(code, share), plain, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(share.exp().sum(1), torch.ones(9))
    assert net(kinds=1).belonging().abs().max() < 1e-6


def test_parts_of_a_row_by_the_formula() -> None:
    made, x = net(), (torch.rand(6, 9) < 0.5).float()
    x[2] = 0.0  # who has nothing
    code, logvar = made.encode(x, made.belonging(), 0.0, lambda part: part.flip(1))
    share = made.belonging().exp()
    for k in range(3):
        part = F.normalize(x * share[:, k], dim=1)
        h = ((part.flip(1) + part) / 2) @ made.read + made.shift
        torch.testing.assert_close(code[:, k], F.normalize(h[:, :4], dim=1))
        torch.testing.assert_close(logvar[:, k], -h[:, 4:])
    assert code.isfinite().all()
    order = torch.randperm(6)
    torch.testing.assert_close(made.encode(x[order], made.belonging(), 0.0)[0], made.encode(x, made.belonging(), 0.0)[0][order])


def test_training_draws_and_codes_stay_on_the_sphere() -> None:
    made = net(noise=0.5).train()
    x = torch.ones(2, 9)
    share = made.belonging()
    assert not torch.equal(share, made.belonging())
    one, two = (made.encode(x, share, 0.0)[0] for _ in range(2))
    assert not torch.equal(one, two)
    torch.testing.assert_close(one.norm(dim=2), torch.ones(2, 3))


def test_kl_and_agreement_by_hand() -> None:
    assert float(spread_kl(torch.zeros(2, 3, 4))) == 0
    assert float(spread_kl(torch.full((1, 2, 1), math.log(0.5)))) == pytest.approx(2 * -0.5 * (1 + math.log(0.5) - 0.5), rel=1e-5)
    torch.manual_seed(0)
    a, b = torch.randn(5, 3, 4), torch.randn(5, 3, 4)
    plain = 0.0
    for k in range(3):
        other = torch.stack([F.softplus((a[:, k] * b[:, j]).sum(1)) for j in range(3) if j != k]).mean(0)
        plain += float((other + F.softplus(-(a[:, k] * b[:, k]).sum(1))).mean()) / 3
    assert float(parts_agree(a, b)) == pytest.approx(plain, rel=1e-5)
    assert float(parts_agree(a[:, :1], b[:, :1])) == pytest.approx(float(F.softplus(-(a[:, 0] * b[:, 0]).sum(1)).mean()), rel=1e-6)
