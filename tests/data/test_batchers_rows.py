"""Rows in batches: what is gathered equals the loop, every row comes once, and a resumed epoch sees what it would have seen."""

import numpy as np
import torch

from vitrail.data.batchers_rows import ImpressionBatcher, gather, in_order, shared, windows
from vitrail.data.impressions import Rows
from vitrail.data.log import Log


def rows(n=97, users=11):
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 9, users)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    log = Log(indptr, rng.integers(0, 20, indptr[-1]).astype(np.int32), 20, np.arange(indptr[-1]), np.ones(indptr[-1], np.float32))
    u = rng.integers(0, users, n)
    stops = indptr[u] + rng.integers(0, lengths[u] + 1)
    fields = np.arange(n, dtype=np.int32)[:, None]
    return Rows(
        u,
        rng.integers(0, 20, n),
        (np.arange(n) % 2).astype(np.float32),
        stops,
        log,
        np.arange(n),
        np.ones(n, np.float32),
        fields=fields,
        signals=np.arange(indptr[-1]).astype(np.int8) % 3,
    )


def test_a_batch_holds_the_newest_events_before_each_row():
    r = rows()
    batch = gather(r, np.arange(97), 4)
    for b in range(97):
        where = np.arange(max(r.starts[b], r.stops[b] - 4), r.stops[b])
        assert batch.history[b][batch.mask[b]].tolist() == r.log.items[where].tolist() and batch.times[b][batch.mask[b]].tolist() == where.tolist()
        assert batch.signals[b][batch.mask[b]].tolist() == (where % 3).tolist() and batch.history[b][~batch.mask[b]].sum() == 0
    assert batch.fields[:, 0].tolist() == list(range(97)) and batch.now.tolist() == list(range(97)) and batch.history.shape[1] <= 4
    empty = Rows(
        np.zeros(2, np.int64),
        np.zeros(2, np.int64),
        np.zeros(2, np.float32),
        np.zeros(2, np.int64),
        Log(np.zeros(2, np.int64), np.zeros(0, np.int32), 3),
        fields=np.zeros((2, 0), np.int32),
    )
    assert gather(empty, np.arange(2), 4).mask.sum() == 0


def test_every_row_once_an_epoch_and_resumable():
    batcher = ImpressionBatcher(rows(), batch=10, length=5, seed=3, bucket=2)
    batches = list(batcher.epoch(1))
    assert len(batches) == batcher.steps() == 10
    assert sorted(torch.cat([b.fields[:, 0] for b in batches]).tolist()) == list(range(97))
    for a, b in zip(batches[4:], batcher.epoch(1, 4), strict=True):
        assert torch.equal(a.history, b.history) and torch.equal(a.fields, b.fields)
    assert not torch.equal(batches[0].fields, next(batcher.epoch(2)).fields)
    halves = [ImpressionBatcher(rows(), batch=10, length=5, seed=3, rank=r, world=2, bucket=2) for r in (0, 1)]
    assert sorted(torch.cat([b.fields[:, 0] for half in halves for b in half.epoch(1)]).tolist()) == list(range(97))
    assert sorted(np.concatenate([chosen for chosen, _ in in_order(rows(), 5, 16)]).tolist()) == list(range(97))


def test_windows_hold_the_newest_events_of_each_row_once():
    r = rows()
    for length in (3, 100):
        chosen = np.random.default_rng(1).permutation(97)[:60]
        found = windows(r, chosen, length)
        places, mask = found.places()
        for b, row in enumerate(chosen):
            where = np.arange(max(r.starts[row], r.stops[row] - length), r.stops[row])
            w = int(found.of[b])
            mine = places[w][mask[w]]
            assert found.items[mine].tolist() == r.log.items[where].tolist() and found.times[mine].tolist() == where.tolist()
            assert found.signals[mine].tolist() == (where % 3).tolist()
        assert len(found.items) <= len(r.log) and len(found.starts) == len({(int(r.stops[c]), min(int(r.stops[c] - r.starts[c]), length)) for c in chosen})
    assert len(windows(r, np.zeros(50, np.int64), 100).items) == r.stops[0] - r.starts[0]


def test_histories_of_10_000_events_are_not_copied_a_row():
    """1,000 rows of two people with 10,000 events each: a batch holds the events once, 4 bytes an item."""
    log = Log(np.array([0, 10_000, 20_000]), np.zeros(20_000, np.int32), 1)
    users = np.repeat([0, 1], 500)
    stops, none = log.indptr[users + 1] - np.tile(np.arange(500), 2), np.zeros((1000, 0), np.int32)
    r = Rows(users, np.zeros(1000, np.int64), np.zeros(1000, np.float32), stops, log, fields=none)
    batch = gather(r, np.arange(1000), 50, 10_000)
    held = sum(t.numel() * t.element_size() for t in (batch.long.items, batch.long.starts, batch.long.stops, batch.long.of))
    assert len(batch.long.items) == 20_000 and held < 120_000 and batch.to(torch.device("cpu")).long.items is batch.long.items
    order = ImpressionBatcher(r, batch=300, length=50, seed=0, long=10_000)
    assert sum(len(b.items) for b in order.epoch(0)) == 1000 and all(b.long is not None for b in order.epoch(0))
    assert [len(chosen) for chosen, _ in in_order(r, 50, long=10_000)][:2] == [419, 419]


def test_a_history_that_all_rows_have_is_given_once():
    log = Log(np.array([0, 3, 3]), np.array([4, 1, 2], dtype=np.int32), 5, np.array([10, 20, 30]))
    for person, events in ((0, [1, 2]), (1, [])):
        fields, three = np.eye(3, dtype=np.int32), np.full(3, 3)
        rows = Rows(np.full(3, person), np.array([0, 3, 4]), np.zeros(3, dtype=np.float32), three, log, np.full(3, 40), fields=fields)
        each, once = gather(rows, np.arange(3), 2, 3), shared(rows, 2, 3)
        assert once.history.shape[0] == 1 and once.history[once.mask].tolist() == events
        for name in ("history", "mask", "times"):
            assert torch.equal(getattr(once, name).expand(3, -1), getattr(each, name))
        for name in ("users", "items", "labels", "fields", "now"):
            assert torch.equal(getattr(once, name), getattr(each, name))
        assert once.long.of.tolist() == each.long.of.tolist() == [0, 0, 0] and once.long.items.tolist() == each.long.items.tolist()
        assert len(once.long.items) and once.long.lengths.tolist() == [3 if events else 0]  # there is something to look up, even if nobody has it
    part = rows.slice(1, 3)
    assert part.items.tolist() == [3, 4] and rows.slice(0, 9) is rows
