"""Checks of docs/cards/last_item.md: last-item and repeat-last."""

import numpy as np
import pytest
import torch

from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes
from vitrail.systems.sequential.last_item import LastItem, transitions
from vitrail.systems.sequential.repeat_last import RepeatLast
from vitrail.testing import checkerboard
from vitrail.train.fit import fit

A, B, C, D, E = range(5)


def log_of(*histories):
    return Log(np.concatenate([[0], np.cumsum([len(h) for h in histories])]), np.concatenate(histories).astype(np.int32), 5)


LOG = log_of([A, B, C], [A, B], [B, C], [D])


def fitted(cls, log=LOG, **settings):
    model = cls(cls.Config(**settings), Sizes(log.n_users, log.n_items), Given.of(log, cls.needs))
    model.learn(log)
    model.prepare()
    return model


def ask(model, *histories):
    indptr = torch.tensor(np.concatenate([[0], np.cumsum([len(h) for h in histories])]))
    return model.scores(Sets(torch.full((len(histories),), -1), indptr, torch.tensor([i for h in histories for i in h])))


def test_counts_by_hand():
    first = transitions(LOG, 1).toarray()
    assert first[A, B] == 2 and first[B, C] == 2 and first.sum() == 4
    second = transitions(LOG, 2).toarray()
    assert second[A, C] == 0.5 and (second - first).sum() == 0.5
    assert transitions(log_of([A], [B]), 10).nnz == 0


@pytest.mark.parametrize("by", ["transitions", "cosine"])
def test_only_the_newest_event_matters(by):
    scores = ask(fitted(LastItem, by=by), [A, C, B], [D, B], [B])
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])
    assert scores[0].argmax() in (A, C)


def test_what_never_followed_comes_by_popularity_below_all_that_did():
    scores = ask(fitted(LastItem, window=2), [A], [E])
    assert scores[0].argsort(descending=True)[:2].tolist() == [B, C]
    assert scores[1].argsort(descending=True).tolist() == [B, A, C, D, E] or scores[1].argsort(descending=True).tolist() == [B, C, A, D, E]
    assert scores[0, D] < scores[0, C] and scores[0, A] < scores[0, C]


def test_cosine_by_hand():
    scores = ask(fitted(LastItem, by="cosine"), [A])[0]
    # A: users 0, 1; B: users 0, 1, 2; C: users 0, 2
    rest = torch.tensor([2.0, 3, 2, 1, 0]) / 4 * 0.5
    torch.testing.assert_close(scores - rest, torch.tensor([0, 2 / 6**0.5, 0.5, 0, 0]))


def test_the_newest_comes_again_first():
    scores = ask(fitted(RepeatLast), [B, A], [A, D])
    assert scores.argmax(1).tolist() == [A, D]
    every = ask(fitted(RepeatLast, again="all"), [A, B, C, B], [E])
    assert every[0].argsort(descending=True)[:3].tolist() == [B, C, A]
    assert every[1].argmax() == E


def test_masked_it_is_last_item(tmp_path):
    data = checkerboard(tmp_path / "data")
    users = [f"u{u}" for u in range(24)]
    lists = [fit(name, data, split="none", quiet=True).recommender.recommend(users=users, k=5) for name in ("last-item", "repeat-last")]
    assert lists[0]["item"].to_list() == lists[1]["item"].to_list()


def test_with_repeats_the_newest_is_first(tmp_path):
    recommender = fit("repeat-last", checkerboard(tmp_path / "data"), split="none", quiet=True).recommender
    assert recommender.recommend(histories=[["i 4", "i 2", "i 8"]], k=1, include_seen=True)["item"].to_list() == ["i 8"]
