"""Impressions in batches: rows drawn or in order, histories gathered from the log in one vectorised look-up a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from vitrail.data.batchers import draws
from vitrail.data.batches import Impressions, Windows
from vitrail.data.impressions import Rows

Int64 = npt.NDArray[np.int64]
SEARCHED = 1 << 22
"""Events of long histories that rows read at once may have together."""


def gather(rows: Rows, chosen: Int64, length: int, long: int = 0) -> Impressions:
    """The rows `chosen` (B,), which have their fields, as one batch with the newest `length` events of each history, and windows of the newest `long`."""
    assert rows.fields is not None, "the fields of rows are made by data.features"
    log, owners = rows.log, rows.users[chosen]
    where, mask = log.places(owners, rows.stops[chosen], length)
    none = len(log) == 0

    def of(array: npt.NDArray[np.generic]) -> torch.Tensor:
        taken = np.zeros(mask.shape, dtype=np.int64) if none else np.where(mask, array[where], 0)
        return torch.from_numpy(taken.astype(np.int64, copy=False))

    def picked(array: npt.NDArray[np.generic] | None) -> torch.Tensor | None:
        return None if array is None else torch.from_numpy(array[chosen])

    return Impressions(
        users=torch.from_numpy(owners),
        items=torch.from_numpy(rows.items[chosen]),
        labels=torch.from_numpy(rows.labels[chosen]),
        history=of(log.items),
        mask=torch.from_numpy(mask),
        fields=torch.from_numpy(rows.fields[chosen].astype(np.int64)),
        signals=None if rows.signals is None else of(rows.signals),
        times=None if log.times is None else of(log.times),
        now=picked(rows.times),
        weights=picked(rows.weights),
        long=windows(rows, chosen, long) if long else None,
        outcomes=picked(rows.outcomes),
    )


def shared(rows: Rows, length: int, long: int = 0) -> Impressions:
    """All of `rows`, which have their fields and one history in common, as one batch that has the history once: (1, T)."""
    assert rows.fields is not None, "the fields of rows are made by data.features"
    once = gather(rows, np.zeros(1, dtype=np.int64), length, long)
    return replace(
        once,
        users=torch.from_numpy(rows.users),
        items=torch.from_numpy(rows.items),
        labels=torch.from_numpy(rows.labels),
        fields=torch.from_numpy(rows.fields.astype(np.int64)),
        now=None if rows.times is None else torch.from_numpy(rows.times),
        long=None if once.long is None else replace(once.long, of=torch.zeros(len(rows), dtype=torch.int64)),
    )


def windows(rows: Rows, chosen: Int64, length: int) -> Windows:
    """The newest `length` events of the history of each of the rows `chosen` (B,): what several rows have in common is taken from the log once."""
    log, stops = rows.log, rows.stops[chosen]
    lengths = np.minimum(stops - log.indptr[rows.users[chosen]], length)
    keys, of = np.unique(stops * (length + 1) + lengths, return_inverse=True)
    stops, lengths = np.divmod(keys, length + 1)
    starts = stops - lengths
    by = np.argsort(starts, kind="stable")
    reach = np.maximum.accumulate(stops[by])
    first = np.flatnonzero(np.append(True, starts[by][1:] > reach[:-1]))  # a stretch of the log that no earlier window touches
    begins, ends = starts[by][first], reach[np.append(first[1:], len(by)) - 1]
    before = np.concatenate([[0], np.cumsum(ends - begins)])
    where = np.repeat(begins - before[:-1], ends - begins) + np.arange(before[-1])
    shift = np.empty(len(by), dtype=np.int64)
    shift[by] = np.repeat(before[:-1] - begins, np.diff(np.append(first, len(by))))

    def of_log(array: npt.NDArray[np.generic] | None) -> torch.Tensor | None:
        # where nobody has an event there is one that no window has, so that there is something to look up
        return None if array is None else torch.from_numpy(np.asarray(array[where]) if len(where) else np.zeros(1, dtype=array.dtype))

    found = of_log(log.items)
    assert found is not None
    return Windows(
        found.int(), torch.from_numpy(starts + shift), torch.from_numpy(stops + shift),
        torch.from_numpy(of.reshape(-1)), of_log(log.times), of_log(rows.signals),
    )  # fmt: skip


class ImpressionBatcher:
    """Every row once an epoch, shuffled, then sorted by the length of its history inside blocks of `bucket` batches, so that a batch is hardly padded."""

    def __init__(self, rows: Rows, *, batch: int, length: int, seed: int, rank: int = 0, world: int = 1, bucket: int = 32, long: int = 0) -> None:
        """`batch`: rows a step over all processes; `length`: events T of a history that are read; `long`: those that are searched."""
        self._rows, self._batch, self._length, self._seed, self._bucket = rows, min(batch, max(len(rows), 1)), length, seed, bucket
        self._rank, self._world, self._long = rank, world, long
        self._kept = np.minimum(rows.stops - rows.starts, max(length, long))

    def steps(self) -> int:
        return max(1, -(-len(self._rows) // self._batch))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Impressions]:
        rng = draws(self._seed, epoch, 0, purpose=1)
        order = rng.permutation(len(self._rows))
        block = np.arange(len(order)) // (self._batch * self._bucket)
        order = order[np.lexsort([self._kept[order], block])]
        batches = [order[i : i + self._batch] for i in range(0, len(order), self._batch)]
        for step in rng.permutation(len(batches))[start:]:
            mine = batches[step]
            if len(mine) >= self._world:
                mine = mine[self._rank :: self._world]
            yield gather(self._rows, mine, self._length, self._long)


def in_order(rows: Rows, length: int, batch: int = 4096, long: int = 0) -> Iterator[tuple[Int64, Impressions]]:
    """Every row once, shortest histories first: (places (B,) of the rows, the batch)."""
    order = np.argsort(np.minimum(rows.stops - rows.starts, max(length, long)), kind="stable")
    batch = max(min(batch, SEARCHED // long), 1) if long else batch
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        yield chosen, gather(rows, chosen, length, long)
