"""Checks of the card collaborative/rearm that hand values allow (its modules: blocks/test_meta.py, blocks/test_co_occurrence.py). The leak is not offered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from worlds import ITEMS, KINDS, USERS, as_strangers, facts, first_batch, grown_by_one, make, random_log

from vitrail.data.batchers import PairBatcher
from vitrail.errors import SettingError
from vitrail.systems.multimodal.rearm import REARM

SMALL = {"neighbours": 4, "user_neighbours": 5, "rank": 2, "layers": 2}


def test_people_like_the_mean_of_what_they_have() -> None:
    log = random_log()
    model = make(REARM, log, facts(log, {"image": 3}), **SMALL)
    content, own = facts(log).vectors["image"], log.items[log.indptr[4] : log.indptr[5]]
    own = torch.from_numpy(own.astype(np.int64))
    torch.testing.assert_close(model.tastes.values_1[4], content[own[own != 3]].mean(0))
    assert not model.tastes.has(0)[0] and model.tastes.values_1.shape == (USERS, KINDS["image"])
    S = model.among_users.alike.products()[0][0].to_dense()
    torch.testing.assert_close(S.diagonal(), 0.2 * model.tastes.has(0))
    assert not S[0].any() and (S.sum(1) <= 1 + 1e-6).all()


def test_loss_equals_the_formulas() -> None:
    log = random_log()
    given = facts(log, {"image": 3})
    model, batch = make(REARM, log, given, **SMALL, contrast=0.3, orthogonal=0.2).eval(), first_batch(log, 16)
    fast = model.loss(batch)
    eye = torch.eye(USERS), torch.eye(ITEMS)
    E = [graph(x) for graph, x in zip((model.among_users, model.among_items), eye, strict=True)]
    kinds = [model.content(0), model.content(1) * (torch.arange(ITEMS) != 3)[:, None]]
    tastes = [model.tastes(n) * model.tastes.has(n)[:, None] for n in range(2)]
    users = F.normalize(E[0] @ torch.cat([model.users, *tastes], 1), dim=1)
    items = F.normalize(E[1] @ torch.cat([model.items, *kinds], 1), dim=1)
    users = torch.cat([users[:, :8], model.bend(users[:, 8:])], 1)
    items = torch.cat([items[:, :8], *model.attend(list(items[:, 8:].split(8, 1)))], 1)
    A, x = model.adjacency.to_dense(), torch.cat([users, items])
    mean = (x + A @ x + A @ A @ x) / 3
    G, v, t = mean.split(8, 1)
    shared = torch.cat([model.share[0](G[:USERS], mean[:USERS, 8:]), model.share[1](G[USERS:], mean[USERS:, 8:])])
    final = torch.cat([model.bend(part) + G for part in (v, t, shared)], 1)
    u, p, n = final[batch.users], final[USERS + batch.items], final[USERS + batch.negatives[:, 0]]
    plain = F.softplus((u * n).sum(1) - (u * p).sum(1)).mean()
    both = torch.cat([batch.items, batch.negatives[:, 0]]).unique()
    for ids, asked in ((batch.users.unique(), batch.users), (USERS + both, USERS + batch.items)):
        cosines = F.cosine_similarity(v[ids][:, None], t[ids][None], dim=2) / 0.6
        a, b = (F.normalize(part[asked] - part[asked].mean(0), dim=1) for part in (v, t))
        plain = plain + 0.3 * F.cross_entropy(cosines, torch.arange(len(ids))) + 0.2 * (a.T @ b).square().mean()
    torch.testing.assert_close(fast, plain)
    assert not final[0].any(), "who has nothing has no vector"


def test_a_held_out_item_is_drawn_as_a_negative_as_often_as_any_other() -> None:
    log, drawn = random_log(), []
    user = 3
    held_out = next(i for i in range(ITEMS) if i not in set(log.items[log.indptr[user] : log.indptr[user + 1]].tolist()))
    for batch in PairBatcher(log, 64, 50, seed=0).epoch(0):
        drawn.append(batch.negatives[batch.users == user].flatten())
    counts = torch.bincount(torch.cat(drawn), minlength=ITEMS)
    outside = ITEMS - len(set(log.items[log.indptr[user] : log.indptr[user + 1]].tolist()))
    assert float(counts[held_out] / counts.sum()) == pytest.approx(1 / outside, rel=0.4)


def test_cold_and_new_items_and_strangers() -> None:
    log = random_log(cold=5)
    given = facts(log, {"text": 7, "image": 7})
    model = make(REARM, log, given, neighbours=4, user_neighbours=5, layers=1).eval()
    with torch.no_grad():
        items = model.nodes()[1]
        assert items[5].any() and not model.items[5].any()
        grown = grown_by_one(model, log, given)
        torch.testing.assert_close(grown.nodes()[1][:ITEMS], items, atol=1e-3, rtol=1e-2)  # a mean over all items moves a little
        assert F.cosine_similarity(grown.nodes()[1][ITEMS], items[3], dim=0) > 0
        model.prepare()
        stranger = model.query_vectors(as_strangers(log, [3]))
        x = model.start()
        x[3] = 0.0  # a stranger comes with nothing of their own
        mean = (x + model.adjacency @ x)[3:4] / 2
        torch.testing.assert_close(stranger, model.finished(mean, 0, whole=False))


@pytest.mark.parametrize("settings", [{"user_weights": [1.0]}, {"graph_weights": [0.0, 0.0]}])
def test_weights_that_do_not_fit(settings: dict) -> None:
    with pytest.raises(SettingError, match=f"{next(iter(settings))} must hold a number for each"):
        make(REARM, random_log(), **SMALL, **settings)


def test_one_kind_of_content_is_enough() -> None:
    log = random_log()
    model = make(REARM, log, vectors=["text"], **SMALL)
    assert model.loss(first_batch(log)).isfinite() and model.nodes()[1].shape == (ITEMS, 16)
