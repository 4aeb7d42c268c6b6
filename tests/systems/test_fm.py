"""Factorization machines, with the MLP beside them and alone: the checks of their cards."""

from dataclasses import replace

import pytest
import torch

from vitrail.data.fields import Field
from vitrail.systems import registry
from vitrail.testing_rank import tiny, tiny_batch, tiny_rows


def set_linear(model, source):
    """The linear part gets the weights of a logistic regression."""
    model.linear.features.load_state_dict(source.features.state_dict())
    with torch.no_grad():
        model.linear.bias.copy_(source.bias)


def test_without_vectors_it_is_logistic_regression():
    lr, fm = tiny("logistic", scale=1.0), tiny("fm")
    torch.nn.init.constant_(lr.bias, 0.3)
    set_linear(fm, lr)
    for p in fm.features.parameters():
        torch.nn.init.zeros_(p)
    torch.testing.assert_close(fm.logit(tiny_batch()), lr.logit(tiny_batch()))


def test_it_is_the_double_loop_over_fields():
    fm, batch = tiny("fm"), tiny_batch()
    for p in fm.linear.parameters():
        torch.nn.init.normal_(p)
    vectors = fm.vectors(batch)
    assert vectors.shape == (12, fm.fields, 4) and fm.fields == 3 + 2 + 3
    pairs = sum((vectors[:, i] * vectors[:, j]).sum(1) for i in range(8) for j in range(i + 1, 8))
    torch.testing.assert_close(fm.logit(batch), fm.linear(batch.items, batch.users, batch.fields) + pairs, rtol=1e-5, atol=1e-5)


def test_the_history_is_the_mean_of_its_events():
    fm, batch = tiny("fm"), tiny_batch()
    vectors = fm.vectors(batch)
    for b in range(12):
        kept = batch.history[b][batch.mask[b]]
        wanted = fm.features.item(kept).mean(0) if len(kept) else torch.zeros(12)
        torch.testing.assert_close(vectors[b, -3:].flatten(), wanted)
    plain = tiny("fm", history=False)
    assert plain.fields == 5 and torch.equal(plain.vectors(batch), plain.vectors(replace(batch, mask=torch.zeros_like(batch.mask))))


def test_with_two_ids_alone_it_is_biased_matrix_factorisation():
    """logit = w0 + w_u + w_i + v_u . v_i, and so are its gradients."""
    fm, batch = tiny("fm", history=False), tiny_batch()
    with torch.no_grad():
        for part in (fm.features, fm.linear.features):
            part.of_lists[0].weight.zero_()
            part.of_events.weight.zero_()
            part.of_items.weight[10:] = 0  # the categories
    torch.nn.init.normal_(fm.linear.features.of_users.weight)
    city = torch.tensor([2, 3, 2, 0])[batch.users]
    v, u, w, b = (t.detach().clone().requires_grad_() for t in (
        fm.features.of_items.weight, fm.features.of_users.weight, fm.linear.features.of_items.weight, fm.linear.features.of_users.weight
    ))  # fmt: skip
    logit = w[batch.items + 2, 0] + b[city, 0] + (v[batch.items + 2] * u[city]).sum(1)
    torch.testing.assert_close(fm.logit(batch), logit)
    fm.loss(batch).backward()
    torch.nn.functional.binary_cross_entropy_with_logits(logit, batch.labels).backward()
    torch.testing.assert_close(fm.features.of_users.weight.grad, u.grad)
    torch.testing.assert_close(fm.features.of_items.weight.grad[:10], v.grad[:10])
    torch.testing.assert_close(fm.linear.features.of_users.weight.grad, b.grad)


def test_vectors_of_zero_do_not_move():
    """V = 0 is a stationary point: what a linear start would be is no start for pairs."""
    fm = tiny("fm")
    for p in fm.features.parameters():
        torch.nn.init.zeros_(p)
    fm.loss(tiny_batch()).backward()
    assert all(float(p.grad.abs().sum()) == 0 for p in fm.features.parameters()) and float(fm.linear.bias.grad) != 0


def test_the_deep_one_is_the_sum_of_machine_and_mlp():
    """DeepFM with a silent MLP is FM, with silent pairs and linear part the MLP over the same vectors."""
    deep, fm, dnn, batch = tiny("deepfm"), tiny("fm"), tiny("dnn"), tiny_batch()
    state = deep.state_dict()
    fm.load_state_dict({key: value for key, value in state.items() if not key.startswith("deep.")})
    dnn.load_state_dict({key: value for key, value in state.items() if not key.startswith("linear.")})
    torch.testing.assert_close(deep.logit(batch), fm.logit(batch) + dnn.logit(batch))
    deep.train().loss(batch).backward()
    assert all(p.grad is not None for p in deep.parameters())


@pytest.mark.parametrize("name", ["fm", "deepfm", "dnn", "dcnv2", "wide-deep", "dlrm", "autoint"])
def test_the_order_of_a_history_does_not_matter(name):
    model, batch = tiny(name), tiny_batch(tiny_rows(12))
    full = batch.mask.all(1)
    turned = replace(batch, history=torch.where(full[:, None], batch.history.flip(1), batch.history))
    assert bool(full.any())
    torch.testing.assert_close(model.logit(turned), model.logit(batch))


STORED = [name for name in registry.names() if registry.card(name).stage == "rank" and "tables" in registry.find(name).Config.model_fields]
WIDE = [Field(name="shop", whose="event", kind="category", codes=500, values=[str(n) for n in range(498)])]


@pytest.mark.parametrize("kind", ["hash", "qr", "low_rank", "multi_size", "unified"])
@pytest.mark.parametrize("name", STORED)
def test_every_ranker_takes_every_way_to_store_vectors(name, kind):
    model = tiny(name, fields=WIDE, tables=kind, budget=0.3).train()
    if getattr(model.config, "searched", 0):
        pytest.skip("reads histories that these rows do not have")
    batch = tiny_batch(tiny_rows(12, codes=500))
    model.loss(batch).backward()
    assert model.features.numbers() <= 0.31 * model.features.whole_numbers
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.features.of_events.stores.parameters()) or kind == "unified"
    other = tiny(name, fields=WIDE, tables=kind, budget=0.3)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.logit(batch), model.eval().logit(batch))
