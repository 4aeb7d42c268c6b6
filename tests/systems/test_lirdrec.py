"""Checks of the card collaborative/lirdrec that hand values allow; its margin over FREEDOM needs Baby with images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from worlds import ITEMS, KINDS, USERS, as_strangers, facts, first_batch, grown_by_one, make, random_log

from vitrail.data.batchers import draws
from vitrail.systems.multimodal.lirdrec import LIRDRec
from vitrail.train.loop import train


@pytest.mark.parametrize(
    ("start", "after"), [(0.9, [0.8901, 0.8677, 0.8271, 0.7583, 0.6495, 0.4962]), (0.99, [0.9889, 0.9863, 0.9814, 0.9719, 0.9532, 0.9155])]
)
def test_the_gate_falls_as_it_should(start: float, after: list[float]) -> None:
    model, shares = make(LIRDRec, random_log(), gate_share=start), []
    for epoch in range(40):
        model.on_epoch(epoch, draws(0, epoch, 0))
        shares.append(float(model.gate))
    np.testing.assert_allclose(shares[:6], after, atol=1e-4)
    assert shares[-1] < 1e-6, "in the end the table alone weighs"


def test_attention_is_copied_into_the_table_epoch_by_epoch() -> None:
    log = random_log()
    model = make(LIRDRec, log, epochs=1, batch=64, lr=1e-3)
    before = model.leaning.detach().clone()
    train(model, log, model.config, seed=0, validate=None)
    drift = (model.leaning.detach() - before).abs().max()
    assert drift < 0.1, "in the first epoch nothing is there to copy"
    model.on_epoch(1, draws(0, 1, 0))
    torch.testing.assert_close(model.leaning, model.copied)
    torch.testing.assert_close(model.leaning.sum(1), torch.ones(USERS))
    kept = model.copied.clone()
    model.eval().nodes()
    assert torch.equal(model.copied, kept), "an answer copies nothing"


def test_forward_and_loss_equal_the_formulas() -> None:
    log = random_log()
    model, batch = make(LIRDRec, log, facts(log, {"image": 3}), layers=2, l2=0.5), first_batch(log, 16)
    fast = model.loss(batch)
    spectrum = model.get_buffer("spectrum")
    assert spectrum.shape == (ITEMS, sum(KINDS.values())) and not spectrum[3, KINDS["text"] :].any()
    kinds = [model.content(0), model.content(1) * (torch.arange(ITEMS) != 3)[:, None], model.common(spectrum)]
    users = model.users.view(USERS, 3, 8) * (torch.from_numpy(log.lengths) > 0)[:, None, None]
    x = torch.cat([F.normalize(torch.cat([users[:, b], kinds[b]]), dim=1) for b in range(3)], 1)
    A, S = model.adjacency.to_dense(), model.graph(torch.eye(ITEMS))
    summed = x + A @ x + A @ A @ x
    r = summed[:USERS].view(USERS, 3, 8)
    logits = torch.stack([0.9 * model.gates[b](r[:, b])[:, 0] + 0.1 * model.leaning[:, b] for b in range(3)], 1)
    u = (r * logits.softmax(1)[:, :, None]).flatten(1)
    i = summed[USERS:] + S @ summed[USERS:]
    positive, negative = (u[batch.users] * i[batch.items]).sum(1), (u[batch.users] * i[batch.negatives[:, 0]]).sum(1)
    plain = F.softplus(negative - positive).mean() + 0.5 * (u.square().mean() + i.square().mean())
    torch.testing.assert_close(fast, plain)


def test_without_its_parts_it_is_a_light_graph_on_content_with_summed_layers() -> None:
    log = random_log()
    model = make(LIRDRec, log, layers=2, users="even", shared="none", item_layers=0)
    x = model.start()
    assert x.shape == (USERS + ITEMS, 16) and not hasattr(model, "common")
    A = model.adjacency.to_dense()
    summed = x + A @ x + A @ A @ x
    users, items = model.nodes()
    torch.testing.assert_close(users, summed[:USERS] / 2)
    torch.testing.assert_close(items, summed[USERS:])


def test_cold_and_new_items_and_strangers() -> None:
    log = random_log(cold=5)
    given = facts(log, {"text": 7, "image": 7})
    model = make(LIRDRec, log, given, layers=1).eval()
    with torch.no_grad():
        model.users.zero_(), model.leaning.fill_(0.3)
        items = model.nodes()[1]
        assert items[5].any() and not model.start()[USERS + 7].any()
        grown = grown_by_one(model, log, given)
        torch.testing.assert_close(grown.nodes()[1][:ITEMS], items)
        model.prepare()
        known, stranger = model.query_vectors(log.histories(np.array([3, 9]))), model.query_vectors(as_strangers(log, [3, 9]))
    torch.testing.assert_close(known, stranger)


def test_one_kind_of_content_is_enough() -> None:
    log = random_log()
    model = make(LIRDRec, log, vectors=["text"])
    assert model.blocks == 2 and model.loss(first_batch(log)).isfinite()
