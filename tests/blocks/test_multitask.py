"""Bottoms of several objectives: the checks of their card."""

import math

import pytest
import torch

from vitrail.blocks.multitask import CGC, PLE, MMoE, SharedBottom, chain, entropy, masked_bce, mixed


def test_gates_by_hand():
    """Experts [1, 0], [0, 2], [4, 4] and gate logits [0, ln 2, 0]: weights [.25, .5, .25], h = [1.25, 2]."""
    weights = torch.softmax(torch.tensor([[0.0, math.log(2), 0.0]]), 1)
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.5, 0.25]]))
    torch.testing.assert_close(mixed(weights, [torch.tensor([row]) for row in ([1.0, 0], [0, 2], [4, 4])]), torch.tensor([[1.25, 2.0]]))
    assert float(entropy(torch.full((3, 4), 0.25))) == pytest.approx(1.0) and float(entropy(torch.tensor([[1.0, 0.0]]))) == pytest.approx(0.0, abs=1e-6)


def test_one_expert_is_a_shared_bottom():
    torch.manual_seed(0)
    mmoe, plain, x = MMoE(5, 2, [4], experts=1), SharedBottom(5, 2, [4]), torch.randn(3, 5)
    plain.net.load_state_dict(mmoe.experts[0].state_dict())
    for a, b in zip(mmoe(x), plain(x), strict=True):
        torch.testing.assert_close(a, b)


def test_one_objective_without_experts_of_its_own_is_a_mixture():
    torch.manual_seed(0)
    cgc, mmoe, x = CGC(5, 1, [4], own=0, shared=3, last=True), MMoE(5, 1, [4], experts=3), torch.randn(3, 5)
    mmoe.experts.load_state_dict(cgc.shared.state_dict())
    mmoe.gates.load_state_dict(cgc.gates.state_dict())
    ways, common = cgc([x], x)
    torch.testing.assert_close(ways[0], mmoe(x)[0])
    assert common is x and cgc.gate is None


def test_gates_add_up_and_the_order_of_experts_does_not_matter():
    torch.manual_seed(0)
    mmoe, x, order = MMoE(5, 2, [4], experts=3), torch.randn(3, 5), [2, 0, 1]
    for weights in mmoe.shares(x):
        torch.testing.assert_close(weights.sum(1), torch.ones(3))
    other = MMoE(5, 2, [4], experts=3)
    for place, came in enumerate(order):
        other.experts[place].load_state_dict(mmoe.experts[came].state_dict())
    with torch.no_grad():
        for gate, before in zip(other.gates, mmoe.gates, strict=True):
            gate.weight.copy_(before.weight[order])
    for a, b in zip(mmoe(x), other(x), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("levels", "shared", "touched"), [(1, 2, False), (3, 0, False), (2, 2, True)])
def test_experts_of_one_objective_do_not_learn_of_another(levels, shared, touched):
    """But through the shared way of a lower level."""
    torch.manual_seed(0)
    ple = PLE(5, 2, [4], levels=levels, own=2, shared=shared)
    ple(torch.randn(6, 5))[0].square().sum().backward()
    grads = [p.grad for level in ple.levels for p in level.own[1].parameters()]
    assert any(g is not None and bool(g.any()) for g in grads) == touched
    assert all(p.grad is not None for p in ple.levels[0].own[0].parameters())


def test_a_chain_of_chances_by_hand():
    """pCTR .2, pCVR .1: both .02; the complement adds up, also where chances are tiny."""
    first, then = (torch.logit(torch.tensor([p], dtype=torch.float64)) for p in (0.2, 0.1))
    log_p, log_q = chain(first, then)
    assert float(log_p.exp()) == pytest.approx(0.02) and float(log_q.exp()) == pytest.approx(0.98)
    far = torch.linspace(-60, 60, 25)
    a, b = (part.flatten() for part in torch.meshgrid(far, far, indexing="ij"))
    log_p, log_q = chain(a, b)
    assert bool(torch.isfinite(log_p).all() and torch.isfinite(log_q).all()) and bool((log_p <= torch.nn.functional.logsigmoid(a)).all())
    torch.testing.assert_close(log_p.double().exp() + log_q.double().exp(), torch.ones(625, dtype=torch.float64), atol=1e-5, rtol=0)


def test_rows_without_a_label_do_not_count():
    z, labels = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([1.0, float("nan"), 0.0])
    log_p, log_q = torch.nn.functional.logsigmoid(z), torch.nn.functional.logsigmoid(-z)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(z[[0, 2]], labels[[0, 2]])
    torch.testing.assert_close(masked_bce(log_p, log_q, labels), wanted)
    assert float(masked_bce(log_p, log_q, torch.full((3,), torch.nan))) == 0.0
    torch.testing.assert_close(masked_bce(log_p, log_q, labels, torch.full((3,), 2.0)), 2 * wanted)
