"""Batches: every event once, negatives never own, nothing depends on what ran before."""

import numpy as np
import pytest
import torch

from vitrail.data.batchers import Negatives, PairBatcher, SequenceBatcher, SetBatcher
from vitrail.data.log import Log


def a_log(users=30, items=40, seed=0):
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(items)[: rng.integers(0, 12)] for _ in range(users)]
    return Log(np.concatenate([[0], np.cumsum([len(r) for r in rows])]), np.concatenate(rows).astype(np.int32), items)


LOG = a_log()
OWN = {(u, i) for u, i in zip(LOG.users.tolist(), LOG.items.tolist(), strict=True)}


def test_every_pair_once_and_negatives_never_own():
    batches = list(PairBatcher(LOG, 16, 3, seed=0).epoch(0))
    pairs = [(u, i) for b in batches for u, i in zip(b.users.tolist(), b.items.tolist(), strict=True)]
    assert sorted(pairs) == sorted(OWN)
    negatives = {(int(u), int(i)) for b in batches for u, row in zip(b.users, b.negatives, strict=True) for i in row}
    assert not negatives & OWN
    assert {i for _, i in negatives} <= {i for _, i in OWN}


def test_epochs_differ_and_steps_do_not_depend_on_where_one_starts():
    batcher = PairBatcher(LOG, 16, 1, seed=0)
    whole, tail = list(batcher.epoch(2)), list(batcher.epoch(2, start=3))
    assert all(torch.equal(a.items, b.items) and torch.equal(a.negatives, b.negatives) for a, b in zip(whole[3:], tail, strict=True))
    assert not torch.equal(whole[0].items, next(batcher.epoch(3)).items)


@pytest.mark.parametrize(
    "make", [lambda r, w: PairBatcher(LOG, 16, 1, 0, r, w), lambda r, w: SequenceBatcher(LOG, batch=8, length=5, negatives=0, seed=0, rank=r, world=w)]
)
def test_ranks_share_the_rows(make):
    def users(rank, world):
        return [b.users.tolist() for b in make(rank, world).epoch(0)]

    for whole, a, b in zip(users(0, 1), users(0, 2), users(1, 2), strict=True):
        assert sorted(whole) == sorted(a + b)


def test_negatives_of_a_user_who_has_everything_end():
    log = Log(np.array([0, 3]), np.array([0, 1, 2], dtype=np.int32), 3)
    assert Negatives(log)(np.random.default_rng(0), np.array([0]), 2).shape == (1, 2)


def events(batch):
    return [(int(u), tuple(i[m].tolist()), t[t >= 0].tolist()) for u, i, m, t in zip(batch.users, batch.items, batch.mask, batch.targets, strict=True)]


def test_prefixes_are_every_event_with_what_came_before():
    batcher = SequenceBatcher(LOG, batch=8, length=4, negatives=0, seed=0, target="prefix")
    rows = sorted(row for b in batcher.epoch(0) for row in events(b))
    expected = []
    for u in range(LOG.n_users):
        own = LOG.items[LOG.indptr[u] : LOG.indptr[u + 1]].tolist()
        expected += [(u, tuple(own[max(0, p - 4) : p]), [own[p]]) for p in range(1, len(own))]
    assert rows == sorted(expected)


def test_cloze_hides_some_events_and_asks_for_them():
    batcher = SequenceBatcher(LOG, batch=8, length=6, negatives=0, seed=0, target="cloze", cloze_share=0.3)
    for batch in batcher.epoch(0):
        hidden = batch.items == LOG.n_items
        assert torch.equal(hidden, batch.targets >= 0) and (hidden.sum(1) >= 1).all() and not (hidden & ~batch.mask).any()
        original = torch.where(hidden, batch.targets, batch.items)
        for u, row, mask in zip(batch.users, original, batch.mask, strict=True):
            own = LOG.items[LOG.indptr[u] : LOG.indptr[u + 1]].tolist()
            assert row[mask].tolist() == own[-6:]


def test_shared_negatives_are_distinct_and_positions_get_their_own_otherwise():
    shared = next(SequenceBatcher(LOG, batch=8, length=6, negatives=10, seed=0, shared_negatives=True).epoch(0)).negatives
    assert len(shared.unique()) == 10
    batch = next(SequenceBatcher(LOG, batch=8, length=6, negatives=2, seed=0).epoch(0))
    asked = batch.targets >= 0
    assert batch.negatives.shape == (*asked.shape, 2)
    owners = batch.users[:, None].expand_as(asked)[asked]
    assert not {(int(u), int(i)) for u, row in zip(owners, batch.negatives[asked], strict=True) for i in row} & OWN


def test_negatives_by_popularity_follow_the_counts():
    draw = Negatives(LOG, power=0.5)
    counts = np.bincount(draw.draw(np.random.default_rng(0), 200_000), minlength=LOG.n_items)
    expected = LOG.item_counts**0.5 / (LOG.item_counts**0.5).sum()
    assert np.abs(counts / counts.sum() - expected).max() < 0.003
    assert not counts[LOG.item_counts == 0].any()


def test_pairs_may_share_their_negatives():
    batch = next(PairBatcher(LOG, 16, 7, seed=0, shared_negatives=True).epoch(0))
    assert batch.negatives.shape == (7,) and len(batch.negatives.unique()) == 7


def test_sets_are_every_history_once():
    batches = list(SetBatcher(LOG, 7, seed=0).epoch(1))
    rows = {int(u): b.items[b.indptr[n] : b.indptr[n + 1]].tolist() for b in batches for n, u in enumerate(b.users)}
    assert rows == {u: LOG.items[LOG.indptr[u] : LOG.indptr[u + 1]].tolist() for u in range(LOG.n_users) if LOG.lengths[u]}
    tail = list(SetBatcher(LOG, 7, seed=0).epoch(1, start=2))
    assert torch.equal(tail[0].users, batches[2].users)


def one_history(length, **settings):
    log = Log(np.array([0, length]), np.arange(length, dtype=np.int32), length)
    batch = next(SequenceBatcher(log, batch=1, length=100, negatives=0, seed=0, target="cloze", **settings).epoch(0))
    return (batch.targets >= 0)[0]


@pytest.mark.parametrize(("length", "masked"), [(7, 4), (2, 1), (100, 30)])
def test_cloze_masks_an_exact_share_up_to_a_most(length, masked):
    assert int(one_history(length, cloze_share=0.6, cloze_most=30).sum()) == masked


def test_cloze_may_ask_for_the_newest_event_alone():
    hidden = one_history(9, cloze_share=0.6, cloze_last=1.0)
    assert hidden.nonzero().flatten().tolist() == [8]
