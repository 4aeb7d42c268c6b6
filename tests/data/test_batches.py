"""Batches: slices and padded views of ragged histories, and moving between devices."""

from __future__ import annotations

import pytest
import torch

from vitrail.data.batches import Pairs, Sets

HISTORIES = [[5, 6, 7], [], [8], [1, 2, 3, 4]]


def ragged(histories: list[list[int]], *, extra: bool = True) -> Sets:
    lengths = torch.tensor([len(h) for h in histories], dtype=torch.int64)
    items = torch.tensor([i for h in histories for i in h], dtype=torch.int64)
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return Sets(torch.arange(len(histories)), indptr, items, items * 10 if extra else None, items.float() / 2 if extra else None)


def test_lengths_and_slice() -> None:
    sets = ragged(HISTORIES)
    assert sets.lengths.tolist() == [3, 0, 1, 4] and len(sets) == 4
    for start in range(5):
        for stop in range(start, 5):
            piece, expected = sets.slice(start, stop), ragged(HISTORIES[start:stop])
            assert piece.users.tolist() == list(range(start, stop))
            for name in ("indptr", "items", "times", "weights"):
                assert getattr(piece, name).tolist() == getattr(expected, name).tolist()
    assert ragged(HISTORIES, extra=False).slice(1, 3).times is None


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_last_keeps_the_newest_left_aligned(length: int) -> None:
    batch = ragged(HISTORIES).last(length)
    width = min(length, 4)
    expected = [h[-length:] for h in HISTORIES]
    assert batch.items.tolist() == [h + [0] * (width - len(h)) for h in expected]
    assert batch.mask.tolist() == [[True] * len(h) + [False] * (width - len(h)) for h in expected]
    assert batch.times.tolist() == [[10 * i for i in h] + [0] * (width - len(h)) for h in expected]
    assert batch.users.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("histories", [[], [[]], [[], []]])
def test_last_of_nothing_is_one_empty_step(histories: list[list[int]]) -> None:
    batch = ragged(histories).last(5)
    assert batch.items.shape == (len(histories), 1) == batch.mask.shape and not batch.mask.any()
    assert batch.items.dtype == torch.int64 and batch.mask.dtype == torch.bool


def test_last_of_a_slice_is_a_slice_of_last() -> None:
    sets = ragged(HISTORIES)
    assert sets.slice(2, 4).last(2).items.tolist() == sets.last(2).items[2:4].tolist()


def test_to_moves_every_tensor_and_keeps_none() -> None:
    moved = ragged(HISTORIES).to(torch.device("meta"))
    assert {t.device.type for t in (moved.users, moved.indptr, moved.items, moved.times, moved.weights)} == {"meta"}
    pairs = Pairs(torch.zeros(2), torch.zeros(2), torch.zeros(2, 1)).to(torch.device("cpu"))
    assert pairs.weights is None and isinstance(pairs, Pairs)


def test_queries_are_taken_by_row():
    sets = Sets(torch.tensor([4, 5, 6]), torch.tensor([0, 2, 2, 5]), torch.arange(5), weights=torch.arange(5.0))
    taken = sets.take(torch.tensor([2, 1, 2]))
    assert taken.users.tolist() == [6, 5, 6] and taken.indptr.tolist() == [0, 3, 3, 6]
    assert taken.items.tolist() == [2, 3, 4, 2, 3, 4] == taken.weights.int().tolist() and taken.times is None


def test_histories_without_later_items() -> None:
    sets = Sets(torch.tensor([0, 1, 2]), torch.tensor([0, 3, 3, 5]), torch.tensor([4, 9, 1, 9, 2]), torch.arange(5), torch.ones(5))
    old = sets.before(9)
    assert old.indptr.tolist() == [0, 2, 2, 3] and old.items.tolist() == [4, 1, 2] and old.users is sets.users
    assert old.times is not None and old.times.tolist() == [0, 2, 4] and old.weights is not None and len(old.weights) == 3
    assert sets.before(10) is sets
