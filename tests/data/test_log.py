"""The log: vectorised gathers against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.data.log import Log


def random_log(rng: np.random.Generator, *, users: int = 30, n_items: int = 12) -> Log:
    lengths = rng.integers(0, 7, users)
    lengths[[0, 5, users - 1]] = 0
    total = int(lengths.sum())
    return Log(
        np.concatenate([[0], np.cumsum(lengths)]),
        rng.integers(0, n_items, total).astype(np.int32),
        n_items,
        times=rng.integers(0, 10**15, total),
        weights=rng.random(total).astype(np.float32),
        rows=rng.permutation(total),
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def loop(log: Log, user: int) -> slice:
    return slice(0, 0) if user < 0 else slice(int(log.indptr[user]), int(log.indptr[user + 1]))


def test_histories_equal_a_plain_loop(rng: np.random.Generator) -> None:
    log = random_log(rng)
    users = rng.integers(-1, log.n_users, 100)
    sets = log.histories(users)
    assert len(sets) == 100 and sets.users.tolist() == users.tolist()
    for q, user in enumerate(users):
        mine, theirs = slice(int(sets.indptr[q]), int(sets.indptr[q + 1])), loop(log, int(user))
        assert sets.items[mine].tolist() == log.items[theirs].tolist()
        assert sets.times[mine].tolist() == log.times[theirs].tolist()
        assert sets.weights[mine].tolist() == log.weights[theirs].tolist()


def test_histories_of_nobody(rng: np.random.Generator) -> None:
    sets = random_log(rng).histories(np.array([], dtype=np.int64))
    assert len(sets) == 0 and sets.indptr.tolist() == [0] and sets.items.tolist() == []


def test_histories_can_be_given_in_any_integer_type(rng: np.random.Generator) -> None:
    log = random_log(rng)
    assert log.histories([3, 4]).items.tolist() == log.histories(np.array([3, 4], dtype=np.int32)).items.tolist()


def test_spans_are_pieces_of_histories(rng: np.random.Generator) -> None:
    log = random_log(rng)
    users = np.flatnonzero(log.lengths >= 3)
    starts = log.indptr[users] + 1
    sets = log.spans(users, starts, starts + 2)
    assert sets.items.reshape(-1, 2).tolist() == [log.items[s : s + 2].tolist() for s in starts]


@pytest.mark.parametrize("length", [1, 3, 50])
def test_windows_equal_a_plain_loop(rng: np.random.Generator, length: int) -> None:
    log = random_log(rng)
    stops = rng.integers(0, len(log) + 1, 60)
    users = np.clip(np.searchsorted(log.indptr, stops, side="left") - 1, 0, None)
    window = log.window(users, stops, length)
    width = max(1, max(min(length, int(stop - log.indptr[user])) for user, stop in zip(users, stops, strict=True)))
    assert window.items.shape == (60, width)
    for row, (user, stop) in enumerate(zip(users, stops, strict=True)):
        expected = log.items[max(int(log.indptr[user]), int(stop) - length) : stop].tolist()
        assert window.items[row][window.mask[row]].tolist() == expected
        assert window.mask[row].tolist() == [True] * len(expected) + [False] * (width - len(expected))
        assert window.items[row][~window.mask[row]].eq(0).all() and window.times[row][~window.mask[row]].eq(0).all()


def test_where_keeps_order_and_everybody(rng: np.random.Generator) -> None:
    log = random_log(rng)
    keep = rng.random(len(log)) < 0.5
    part = log.where(keep)
    assert part.n_users == log.n_users and part.n_items == log.n_items and len(part) == keep.sum()
    for user in range(log.n_users):
        where = np.arange(len(log))[loop(log, user)]
        where = where[keep[where]]
        for name in ("items", "times", "weights", "rows"):
            assert getattr(part, name)[loop(part, user)].tolist() == getattr(log, name)[where].tolist()
    assert len(log.where(np.zeros(len(log), dtype=bool))) == 0


def test_matrix_counts_sums_or_marks(rng: np.random.Generator) -> None:
    log = random_log(rng)
    plain, weighted = np.zeros((log.n_users, log.n_items)), np.zeros((log.n_users, log.n_items))
    np.add.at(plain, (log.users, log.items), 1)
    np.add.at(weighted, (log.users, log.items), log.weights.astype(np.float64))
    assert (log.matrix().toarray() == (plain > 0)).all()
    assert np.allclose(log.matrix(binary=False).toarray(), weighted)
    counts = Log(log.indptr, log.items, log.n_items).matrix(binary=False)
    assert (counts.toarray() == plain).all() and counts.has_canonical_format
    assert (log.item_counts == plain.sum(0)).all() and (log.lengths == plain.sum(1)).all()


def test_matrix_leaves_the_log_alone(rng: np.random.Generator) -> None:
    log = random_log(rng)
    before = (log.indptr.copy(), log.items.copy(), log.weights.copy())
    log.matrix(), log.matrix(binary=False)
    assert all((a == b).all() for a, b in zip(before, (log.indptr, log.items, log.weights), strict=True))
