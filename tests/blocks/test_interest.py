"""Target attention: the checks of the DIN card, and the quick forms against the plain formula."""

import pytest
import torch

from vitrail.blocks.interest import PairScorer, TargetAttention


@pytest.mark.parametrize(
    ("weights", "scale", "expected"), [("raw", False, [4, 0]), ("softmax", False, [1.761594, 0.119203]), ("softmax", True, [1.608859, 0.19557])]
)
def test_hand_values(weights, scale, expected):
    q, K, mask = torch.tensor([[1.0, 0]]), torch.tensor([[[2.0, 0], [0, 1], [9, 9]]]), torch.tensor([[True, True, False]])
    torch.testing.assert_close(TargetAttention(2, "dot", weights, scale=scale)(q, K, mask), torch.tensor([expected], dtype=torch.float32), atol=1e-6, rtol=1e-5)


def reference(attention, q, K, mask):
    """The definition, a row and an event at a time."""
    out = torch.zeros(len(q), K.shape[2])
    for b in range(len(q)):
        keys = K[b][mask[b]]
        if not len(keys):
            continue
        if attention.scorer == "mean":
            out[b] = keys.mean(0)
            continue
        per_head = []
        for h in range(attention.heads):
            part = slice(h * K.shape[2] // attention.heads, (h + 1) * K.shape[2] // attention.heads)
            if attention.scorer == "mlp":
                four = torch.stack([torch.cat([q[b], k, q[b] - k, q[b] * k]) for k in keys])
                s = attention.score.rest(attention.score.act(attention.score.first(four))).squeeze(-1)
            elif attention.scorer == "multihead":
                s = attention.of_key(keys)[:, part] @ attention.of_query(q[b])[part]
            else:
                s = keys @ (attention.of_query(q[b]) if attention.scorer == "bilinear" else q[b])
            s = s * attention.scale
            w = torch.softmax(s, 0) if attention.weights == "softmax" else torch.relu(s) if attention.weights == "relu" else s
            per_head.append((w[:, None] * keys[:, part]).sum(0))
        out[b] = torch.cat(per_head)
    return out


@pytest.mark.parametrize("scorer", ["mlp", "dot", "bilinear", "multihead", "mean"])
@pytest.mark.parametrize("weights", ["raw", "softmax", "relu"])
@pytest.mark.parametrize("full", [True, False])
def test_every_form_equals_the_definition(scorer, weights, full):
    torch.manual_seed(0)
    attention = TargetAttention(6, scorer, weights, hidden=(5, 4), act="prelu", heads=2, scale=True).eval()
    q, K = torch.randn(7, 6), torch.randn(7, 5, 6)
    mask = torch.ones(7, 5, dtype=torch.bool) if full else torch.arange(5) < torch.tensor([0, 1, 2, 3, 4, 5, 5])[:, None]
    with torch.no_grad():
        torch.testing.assert_close(attention(q, K, mask), reference(attention, q, K, mask), atol=1e-5, rtol=1e-5)


def test_the_two_ways_of_the_pair_scorer_are_one_in_training_too():
    torch.manual_seed(0)
    scorer = PairScorer(6, (8,), "dice")
    q, k = torch.randn(9, 6, requires_grad=True), torch.randn(45, 6, requires_grad=True)
    rows, found = torch.arange(9).repeat_interleave(5), []
    for given in (None, rows):
        y = scorer(q, k, given)
        found.append([y, *torch.autograd.grad(y.square().sum(), [q, k, scorer.first.weight])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scorer(q, k[:18]), scorer(q, k[:18], torch.arange(9).repeat_interleave(2)))  # few steps


def test_order_and_padding_do_not_matter():
    torch.manual_seed(0)
    attention = TargetAttention(4, "mlp", "softmax", hidden=(6,)).eval()
    q, K = torch.randn(2, 4), torch.randn(2, 3, 4)
    mask = torch.ones(2, 3, dtype=torch.bool)
    first = attention(q, K, mask)
    torch.testing.assert_close(attention(q, K[:, [2, 0, 1]], mask), first)
    padded = torch.cat([K, torch.full((2, 2, 4), 1e9)], dim=1)
    torch.testing.assert_close(attention(q, padded, torch.cat([mask, torch.zeros(2, 2, dtype=torch.bool)], dim=1)), first)


def test_a_score_mlp_of_zeros_with_a_bias_is_that_times_the_sum():
    attention = TargetAttention(4, "mlp", "raw", hidden=(6,)).eval()
    with torch.no_grad():
        for parameter in attention.score.parameters():
            parameter.zero_()
        attention.score.rest.layers[-1].bias.fill_(0.3)
        K = torch.randn(3, 5, 4)
        torch.testing.assert_close(attention(torch.randn(3, 4), K, torch.ones(3, 5, dtype=torch.bool)), 0.3 * K.sum(1))


def test_padding_never_enters_the_moments_of_dice():
    attention = TargetAttention(4, "mlp", hidden=(6,)).train()
    other = TargetAttention(4, "mlp", hidden=(6,)).train()
    other.load_state_dict(attention.state_dict())
    q, K = torch.randn(2, 4), torch.randn(2, 3, 4)
    attention(q, K, torch.ones(2, 3, dtype=torch.bool))
    other(q, torch.cat([K, torch.full((2, 4, 4), 100.0)], 1), torch.arange(7).expand(2, 7) < 3)
    torch.testing.assert_close(attention.score.act.mean, other.score.act.mean)


def test_an_empty_history_is_a_zero_and_has_finite_gradients():
    attention = TargetAttention(4, "dot", "softmax")
    q, K = torch.randn(2, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    y = attention(q, K, torch.tensor([[True, False, False], [False] * 3]))
    y.sum().backward()
    assert y[1].tolist() == [0] * 4 and bool(torch.isfinite(q.grad).all()) and bool(torch.isfinite(K.grad).all())


@pytest.mark.parametrize("scorer", ["mlp", "dot", "bilinear", "multihead", "mean"])
@pytest.mark.parametrize("weights", ["raw", "softmax", "relu"])
def test_padded_equals_packed(scorer, weights):
    """What graphs compute is what is computed here, histories without an event among it."""
    torch.manual_seed(0)
    attention = TargetAttention(6, scorer, weights, heads=3, scale=True, act="relu")
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    query, keys = torch.randn(3, 6), torch.randn(3, 3, 6)
    torch.testing.assert_close(attention.padded(query, keys, mask), attention.packed(query, keys[mask], mask))


SCORERS = [("mlp", 1, 0), ("dot", 1, 0), ("bilinear", 1, 0), ("multihead", 2, 0), ("multihead", 2, 8), ("mean", 1, 0)]


@pytest.mark.parametrize("weights", ["raw", "softmax", "relu"])
@pytest.mark.parametrize(("scorer", "heads", "inner"), SCORERS)
def test_one_history_for_all_targets_is_the_same_history_a_target(scorer, heads, inner, weights, monkeypatch):
    """The packed form over copies is the reference; with `inner`, keys and values that are made of each event."""
    torch.manual_seed(0)
    attention = TargetAttention(6, scorer, weights, heads=heads, inner=inner, scale=True).eval()
    query, events = torch.randn(5, 6), torch.randn(4, 6)
    whole = torch.ones(5, 4, dtype=torch.bool)
    rows = whole.nonzero()[:, 0]
    copies = events.repeat(5, 1)
    values = attention.of_value(copies) if inner else copies
    told = attention.weigh(query, copies, whole, rows, False)
    wanted = (values.view(20, heads, -1) * told[:, :, None]).flatten(1).view(5, 4, -1).sum(1)
    wanted = attention.out(wanted) if inner else wanted
    once = torch.ones(1, 4, dtype=torch.bool)
    monkeypatch.setattr("vitrail.blocks.interest.HELD", 1)  # a target at a time
    torch.testing.assert_close(attention.packed(query, events, once), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention(query, events.expand(5, -1, -1), whole), wanted, atol=1e-5, rtol=1e-5)
    assert not attention.packed(query, events[:0], torch.zeros(1, 1, dtype=torch.bool)).any()
    some = torch.tensor([[True, True, False, False]]).expand(5, -1)
    torch.testing.assert_close(attention(query, events.expand(5, -1, -1), some), attention.packed(query, events[:2], once[:, :2]), atol=1e-5, rtol=1e-5)
