"""Checks of the card collaborative/alpharec that hand values allow; the margin over LightGCN on Games needs its data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.blocks.loss import sampled_softmax
from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes
from vitrail.systems.multimodal.alpharec import AlphaRec
from vitrail.train.loop import train

WIDTH = 6


def random_log(users: int = 20, items: int = 15, seed: int = 0) -> Log:
    have = np.random.default_rng(seed).random((users, items)) < 0.3
    have[0] = False
    have[1] = False
    have[1, 4] = True  # one item alone
    have[:, 9] = False  # an item that nobody met
    return log_of(have)


def log_of(have: np.ndarray) -> Log:
    return Log(np.concatenate([[0], np.cumsum(have.sum(1))]), np.nonzero(have)[1].astype(np.int32), have.shape[1])


LOG = random_log()


def given(log: Log, text: torch.Tensor | None = None, lacking: int | None = None) -> Given:
    plain = Given.of(log, AlphaRec.needs)
    values = torch.randn(log.n_items, WIDTH, generator=torch.Generator().manual_seed(1)) if text is None else text
    mask = torch.ones(log.n_items, dtype=torch.bool)
    if lacking is not None:
        mask[lacking] = False
    return Given(plain.indptr, plain.items, vectors={"text": values}, masks={"text": mask})


def make(log: Log = LOG, facts: Given | None = None, **settings: object) -> AlphaRec:
    torch.manual_seed(0)
    return AlphaRec(AlphaRec.Config.of({"dim": 5, "negatives": 3, **settings}), Sizes(log.n_users, log.n_items, {"text": WIDTH}), facts or given(log))


def prepared(model: AlphaRec) -> AlphaRec:
    with torch.no_grad():
        model.eval().prepare()
    return model


def test_the_loss_by_hand() -> None:
    value = sampled_softmax(torch.tensor([1.0]) / 0.15, torch.zeros(1, 2) / 0.15)
    assert float(value) == pytest.approx(0.0025420, abs=1e-7)
    assert AlphaRec.Config().loss == "sampled_softmax" and AlphaRec.Config().cosine


def test_a_user_of_one_item_has_its_vector() -> None:
    scores = prepared(make(layers=0, form="linear")).scores(LOG.histories(np.array([1])))
    assert float(scores[0, 4]) == pytest.approx(1.0, abs=1e-6)
    assert scores.argmax() == 4


def test_the_linear_form_maps_a_mean_to_the_mean_and_the_other_does_not() -> None:
    for form, same in (("linear", True), ("mlp", False)):
        model = make(form=form, layers=0, cosine=False)
        users, items = model.nodes()
        mean = torch.stack([items[LOG.histories(np.array([u])).items].mean(0) for u in range(2, 20)])
        assert torch.allclose(users[2:], mean, atol=1e-5) is same
    assert make(form="mlp").net[0].out_features == 3 and make(hidden=7).net[0].out_features == 7


def test_nodes_are_the_mean_of_layers_of_mapped_text() -> None:
    model = make()
    x, A = model.start(), model.adjacency.to_dense()
    torch.testing.assert_close(torch.cat(model.nodes()), (x + A @ x + A @ A @ x) / 3)


def test_ids_mean_nothing_and_weights_answer_for_another_catalogue() -> None:
    order = np.random.default_rng(3).permutation(15)
    text = torch.randn(15, WIDTH)
    a, b = make(facts=given(LOG, text)), make(other := log_of(LOG.matrix().toarray()[:, order] > 0), given(other, text[order]))
    (ua, ia), (ub, ib) = a.nodes(), b.nodes()
    torch.testing.assert_close((ua @ ia.T)[:, order], ub @ ib.T)
    elsewhere = random_log(31, 40, seed=5)
    there = make(elsewhere)
    there.load_state_dict(a.state_dict())
    assert prepared(there).scores(elsewhere.histories(np.arange(2, 31))).shape == (29, 40)


def test_an_item_that_nobody_met_answers_by_its_text_and_one_without_text_is_silent_until_met() -> None:
    model = make(facts=given(LOG, lacking=9))
    assert model.can.cold_items and not model.nodes()[1][9].any()
    model = make()
    torch.testing.assert_close(F.normalize(model.nodes()[1][9], dim=0), F.normalize(model.net(model.text[9]), dim=0))
    assert make(facts=given(LOG, lacking=4)).nodes()[1][4].any(), "neighbours speak for it"
    assert not make(facts=given(LOG, lacking=4)).reader[1], "its only reader has read nothing"


def test_a_stranger_with_the_only_history_of_an_item_is_that_user() -> None:
    alone = log_of(np.eye(4, 5, dtype=bool))  # each user an item of their own: what comes back by the graph is the same
    model = prepared(make(alone, layers=1))
    h = alone.histories(np.array([2]))
    folded = F.normalize(model.fold_in(Sets(torch.tensor([-1]), h.indptr, h.items))[0], dim=0)
    torch.testing.assert_close(folded, model._users[2])
    assert torch.isfinite(prepared(make(layers=0)).fold_in(h)).all()


def taste(shuffled: bool) -> Iterator[float]:
    """Recall@20 of held-out items where taste lies in the text, for two draws."""
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        text, people = rng.normal(size=(400, WIDTH)), rng.normal(size=(80, WIDTH))
        liked = (-(people @ text.T + rng.gumbel(size=(80, 400)))).argsort(1)[:, :30]
        have = np.zeros((80, 400), dtype=bool)
        np.put_along_axis(have, liked[:, :20], True, 1)
        table = torch.from_numpy(text[rng.permutation(400)] if shuffled else text).float()
        log = log_of(have)
        model = make(log, given(log, table), form="linear", layers=0, negatives=32, batch=256, lr=0.01, epochs=8)
        train(model, log, model.config, seed=0, validate=None)
        top = prepared(model).scores(log.histories(np.arange(80))).masked_fill(torch.from_numpy(have), -9).topk(20).indices.numpy()
        yield np.mean([len(set(top[u]) & set(liked[u, 20:])) / 10 for u in range(80)])


def test_shuffled_text_takes_more_than_half_of_the_recall_away() -> None:
    for right, wrong in zip(taste(False), taste(True), strict=True):
        assert wrong < right / 2


def test_without_vectors_it_refuses() -> None:
    with pytest.raises(SettingError, match="answers by content alone"):
        make(vectors=[])
