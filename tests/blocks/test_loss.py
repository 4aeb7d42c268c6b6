"""Fast losses equal their plain forms."""

import math

import pytest
import torch
import torch.nn.functional as F

from vitrail.blocks import loss


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0], ids=["small", "usual", "would underflow"])
@pytest.mark.parametrize("block", [7, 1000])
def test_full_softmax_equals_cross_entropy_with_gradients(scale, block):
    torch.manual_seed(0)
    h, E = (torch.randn(40, 8) * scale).requires_grad_(), torch.randn(50, 8).requires_grad_()
    targets = torch.randint(0, 50, (40,))
    fast, plain = loss.full_softmax(h, E, targets, block=block), F.cross_entropy(h @ E.T, targets)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
    for a, b in zip(torch.autograd.grad(3 * fast, (h, E)), torch.autograd.grad(3 * plain, (h, E)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_losses_of_ignorance():
    zero, many = torch.zeros(5), torch.zeros(5, 3)
    assert float(loss.bpr(zero, many)) == pytest.approx(math.log(2))
    assert float(loss.bce(zero, many)) == pytest.approx(2 * math.log(2))
    assert float(loss.sampled_softmax(zero, many)) == pytest.approx(math.log(4))
    same = torch.zeros(5, 3, dtype=torch.bool)
    same[:, 0] = True
    assert float(loss.sampled_softmax(zero, many, same)) == pytest.approx(math.log(3))


def test_bpr_equals_its_plain_form_with_gradients():
    torch.manual_seed(0)
    positive, negative = (torch.randn(6) * 9).requires_grad_(), torch.randn(6, 4).requires_grad_()
    fast, plain = loss.bpr(positive, negative), -F.logsigmoid(positive[:, None] - negative).mean()
    torch.testing.assert_close(fast, plain)
    for a, b in zip(torch.autograd.grad(3 * fast, (positive, negative)), torch.autograd.grad(3 * plain, (positive, negative)), strict=True):
        torch.testing.assert_close(a, b)


def test_gbce_is_bce_without_calibration_and_scales_by_the_sampling_rate_with_it():
    torch.manual_seed(0)
    p, n = torch.randn(6), torch.randn(6, 4)
    assert float(loss.gbce(p, n, 101, 0.0)) == pytest.approx(float(loss.bce(p, n)))
    beta = 4 / 100
    expected = beta * F.softplus(-p).mean() + F.softplus(n).mean()
    assert float(loss.gbce(p, n, 101, 1.0)) == pytest.approx(float(expected))


def test_l2_of_batch_is_half_the_squared_norm_a_row():
    assert float(loss.l2_of_batch(torch.ones(2, 3), 2 * torch.ones(2, 3))) == pytest.approx((6 + 24) / 2 / 2)


def test_bpr_max_with_one_negative_and_no_penalty_is_bpr():
    torch.manual_seed(0)
    p, n = torch.randn(6), torch.randn(6, 1)
    assert float(loss.bpr_max(p, n, 0.0)) == pytest.approx(float(loss.bpr(p, n)), abs=1e-6)
    n = torch.randn(6, 4)
    s = n.softmax(1)
    expected = (-torch.log((s * torch.sigmoid(p[:, None] - n)).sum(1)) + 0.3 * (s * n**2).sum(1)).mean()
    assert float(loss.bpr_max(p, n, 0.3)) == pytest.approx(float(expected), abs=1e-5)
    same = torch.zeros(6, 4, dtype=torch.bool)
    same[:, 1:] = True
    assert float(loss.bpr_max(p, n, 0.0, same)) == pytest.approx(float(loss.bpr(p, n[:, :1])), abs=1e-5)


def test_ccl_by_hand():
    positive, negative = torch.tensor([0.8]), torch.tensor([[0.9, 0.3, 0.6]])
    assert float(loss.ccl(positive, negative, 0.5, 10.0)) == pytest.approx(1.866667, abs=1e-6)
    one = torch.ones(1, requires_grad=True)
    low = torch.full((1, 3), 0.4, requires_grad=True)
    done = loss.ccl(one, low, 0.5, 10.0)
    done.backward()
    assert float(done.detach()) == 0 and not low.grad.any()
    assert float(loss.ccl(positive, negative, 1.0, 10.0)) == pytest.approx(0.2)


def test_info_nce_by_hand():
    assert float(loss.info_nce(torch.eye(2), torch.eye(2), 0.2)) == pytest.approx(math.log1p(math.exp(-5)), abs=1e-6)
    assert float(loss.info_nce(torch.ones(7, 3), torch.ones(7, 3), 0.2)) == pytest.approx(math.log(7), abs=1e-6)


def test_info_nce_among_rows_that_keys_name():
    torch.manual_seed(0)
    a, b, keys = torch.randn(4, 3), torch.randn(9, 3), torch.tensor([8, 0, 0, 3])
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.2
    torch.testing.assert_close(loss.info_nce(a, b, 0.2, keys), (logits.logsumexp(1) - logits[torch.arange(4), keys]).mean())


def test_l2_of_named_rows_is_that_of_the_batch():
    users, items = torch.arange(6.0).view(3, 2).requires_grad_(), torch.arange(8.0).view(4, 2).requires_grad_()
    u, i = torch.tensor([2, 0, 2]), torch.tensor([[1, 1, 3], [0, 1, 1]])
    found = loss.l2_of_rows(3, (users, u), (items, i))
    torch.testing.assert_close(found, loss.l2_of_batch(users[u], items[i]))
    for one, table in zip(torch.autograd.grad(found, (users, items)), (users, items), strict=True):
        torch.testing.assert_close(one.to_dense(), torch.autograd.grad(loss.l2_of_batch(users[u], items[i]), table)[0])


def test_info_nce_within_by_hand():
    eye = torch.eye(2)
    assert float(loss.info_nce_within(eye, eye, 0.5)) == pytest.approx(0.23955, abs=1e-5)
    assert float(loss.info_nce_within(eye[:0], eye[:0], 0.5)) == 0
    assert float(loss.info_nce_within(eye, eye, 0.001)) == pytest.approx(0, abs=1e-5), "e^1000 is no number"


@pytest.mark.parametrize("cold", [0.0, 1.0])
def test_info_nce_within_in_blocks(cold, monkeypatch):
    monkeypatch.setattr(loss, "COLD", cold)  # gradients made ahead, or by a second pass
    monkeypatch.setattr(loss, "WIDE", 8)
    torch.manual_seed(0)
    a, b = torch.randn(11, 3).requires_grad_(), torch.randn(11, 3).requires_grad_()
    x, y = F.normalize(a, dim=1), F.normalize(b, dim=1)
    same, other = torch.exp(x @ x.T / 0.4), torch.exp(x @ y.T / 0.4)
    plain = -torch.log(other.diagonal() / (same.sum(1) + other.sum(1) - same.diagonal())).mean()
    fast = loss.info_nce_within(a, b, 0.4, block=4)
    torch.testing.assert_close(fast, plain)
    for one, two in zip(torch.autograd.grad(fast, (a, b)), torch.autograd.grad(plain, (a, b)), strict=True):
        torch.testing.assert_close(one, two)


def test_info_nce_within_of_half_numbers_is_near():
    torch.manual_seed(0)
    a, b = torch.randn(40, 8).requires_grad_(), torch.randn(40, 8).requires_grad_()
    plain = loss.info_nce_within(a, b, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        near = loss.info_nce_within(a, b, 0.5)
    torch.testing.assert_close(near, plain, rtol=1e-3, atol=0)
    for one, two in zip(torch.autograd.grad(near, (a, b)), torch.autograd.grad(plain, (a, b)), strict=True):
        assert float((one - two).norm() / two.norm()) < 0.01


def test_alignment_and_uniformity_plain_and_calibrated():
    torch.manual_seed(0)
    x, y = F.normalize(torch.randn(6, 3), dim=1), F.normalize(torch.randn(6, 3), dim=1)
    torch.testing.assert_close(loss.alignment(x, y), ((x - y) ** 2).sum(1).mean())
    assert float(loss.alignment(x, x)) == 0
    plain = torch.pdist(x).square().mul(-2).exp().mean().log()
    torch.testing.assert_close(loss.uniformity(x), plain)
    torch.testing.assert_close(loss.uniformity(x, x[:1].expand(6, -1)), plain)
    assert float(loss.uniformity(x[:1].expand(5, -1))) == pytest.approx(0, abs=1e-6), "collapsed"
    two = torch.tensor([[1.0, 0], [0.5, 0.75**0.5]])  # cosine .5
    assert float(loss.uniformity(two, two, -1.0, 0.2).exp()) == pytest.approx(3.32012, abs=1e-5)
    assert float(loss.uniformity(two).exp()) == pytest.approx(0.13534, abs=1e-5)
    assert float(loss.uniformity(two[:1])) == 0


@pytest.mark.parametrize("alike", [False, True])
def test_uniformity_in_blocks_has_the_value_and_the_gradients_of_the_formula(alike, monkeypatch):
    monkeypatch.setattr(loss, "PAIRS", 70 * 32)
    torch.manual_seed(0)
    x, like = (F.normalize(torch.randn(70, 5), dim=1).requires_grad_() for _ in range(2))
    asked = (x, like) if alike else (x,)
    similar = (like @ like.T).clamp(-0.3, 0.6) if alike else 1.0
    off = ~torch.eye(70, dtype=torch.bool)
    plain = (-2 * (torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square() - 2 + 2 * similar))[off].exp().mean().log()
    fast = loss.uniformity(x, like, -0.3, 0.6) if alike else loss.uniformity(x)
    torch.testing.assert_close(fast, plain)
    # on the sphere: |x_a - x_b|^2 also moves with the lengths, which are fixed
    for one, two, at in zip(torch.autograd.grad(fast, asked), torch.autograd.grad(plain, asked), asked, strict=True):
        along = [g - (g * at).sum(1, keepdim=True) * at for g in (one, two)]
        torch.testing.assert_close(*(along if at is x else (one, two)), atol=1e-5, rtol=1e-4)


def test_emb_loss_is_norms_over_the_rows_of_the_last():
    assert float(loss.emb_loss(torch.full((4, 1), 3.0), torch.full((2, 2), 1.0))) == pytest.approx((6 + 2) / 2)


def test_orthogonality_is_zero_where_kinds_have_nothing_in_common():
    torch.manual_seed(0)
    a, b = torch.zeros(6, 3), torch.zeros(6, 3)
    a[:3], b[3:] = torch.tensor([[1.0, 2, 0], [-1, 0, 1], [0, -2, -1]]), torch.tensor([[2.0, 0, 1], [-1, 1, 0], [-1, -1, -1]])  # columns sum to 0
    assert float(loss.orthogonality(a, b)) == 0
    x = torch.randn(6, 3)
    assert float(loss.orthogonality(x, x)) > 0
    torch.testing.assert_close(loss.orthogonality(x, a + 1), loss.orthogonality(x + 7, a), atol=1e-5, rtol=1e-4)
    z, y = (F.normalize(v - v.mean(0), dim=1) for v in (x, a))
    torch.testing.assert_close(loss.orthogonality(x, a), (z.T @ y).square().mean())
