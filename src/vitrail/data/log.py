"""The log: interactions as time-sorted CSR arrays (memory-mapped from the data set's cache)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from vitrail.data.batches import Sequences, Sets

Int64 = npt.NDArray[np.int64]


def indptr_of(lengths: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Int64:
    """(U,) events of each user -> (U + 1,) where they start and end."""
    indptr = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr[1:])
    return indptr


def distinct(keys: Int64) -> Int64:
    """The distinct `keys`, sorted: by sorting, which numpy's unique no longer does and which is far faster on millions of large numbers."""
    keys = np.sort(keys)
    return keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys


def blocks(indptr: npt.NDArray[np.integer], events: int = 1 << 22) -> Iterator[tuple[int, int]]:
    """[start, stop) of rows with about so many `events` together, one row at least: what is done for them at once takes little memory."""
    start, last = 0, len(indptr) - 1
    while start < last:
        stop = min(max(int(np.searchsorted(indptr, indptr[start] + events, side="right")) - 1, start + 1), last)
        yield start, stop
        start = stop


@dataclass(frozen=True)
class Log:
    """Events grouped by user, oldest first. E events, U users, N items."""

    indptr: Int64
    """(U + 1,)"""
    items: npt.NDArray[np.int32]
    """(E,) item codes"""
    n_items: int
    """N: the whole catalogue, also items without events"""
    times: Int64 | None = None
    """(E,) microseconds since 1970, where there is a clock"""
    weights: npt.NDArray[np.float32] | None = None
    """(E,)"""
    rows: npt.NDArray[np.integer] | None = None
    """(E,) row of interactions.parquet each event came from; int32 where that is enough"""

    @property
    def n_users(self) -> int:
        """U: the whole vocabulary, also users without events."""
        return len(self.indptr) - 1

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> Int64:
        """(U,) events of each user."""
        return np.diff(self.indptr)

    @property
    def users(self) -> Int64:
        """(E,) user code of each event."""
        return np.repeat(np.arange(self.n_users), self.lengths)

    @property
    def small_users(self) -> npt.NDArray[np.int32]:
        """The same in half the memory."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), self.lengths)

    @property
    def item_counts(self) -> Int64:
        """(N,) events of each item."""
        step = 1 << 24  # bincount copies what it counts as int64
        return sum(
            (np.bincount(self.items[start : start + step], minlength=self.n_items) for start in range(0, len(self), step)),
            start=np.zeros(self.n_items, dtype=np.int64),
        )

    def owners(self, events: npt.NDArray[np.integer]) -> Int64:
        """User code of each of `events` (places in the log)."""
        return np.searchsorted(self.indptr, events, side="right") - 1

    def counted(self, keep: npt.NDArray[np.bool_]) -> Int64:
        """(U,) events of each user with `keep` (E,) true."""
        found = np.zeros(self.n_users, dtype=np.int64)
        for a, b in blocks(self.indptr):
            start, stop = int(self.indptr[a]), int(self.indptr[b])
            before = indptr_of(keep[start:stop])[self.indptr[a : b + 1] - start]
            found[a:b] = before[1:] - before[:-1]
        return found

    def where(self, keep: npt.NDArray[np.bool_]) -> Log:
        """The log of the events with `keep` (E,) true, order kept."""
        if keep.all():
            return self
        return Log(
            indptr_of(self.counted(keep)),
            self.items[keep],
            self.n_items,
            None if self.times is None else self.times[keep],
            None if self.weights is None else self.weights[keep],
            None if self.rows is None else self.rows[keep],
        )

    def matrix(self, *, binary: bool = True) -> sparse.csr_array:
        """(U, N) float64 CSR matrix: 1 where the user has the item (`binary`), else the sum of weights (or counts)."""
        data = np.ones(len(self)) if self.weights is None or binary else self.weights.astype(np.float64)
        X = sparse.csr_array((data, self.items.astype(np.int64), self.indptr.astype(np.int64)), shape=(self.n_users, self.n_items))
        X.sum_duplicates()
        if binary:
            X.data[:] = 1.0
        return X

    def histories(self, users: Int64) -> Sets:
        """The events of `users` (B,) as one ragged batch, one vectorised gather; none for -1, a user unknown to the vocabulary."""
        users = np.asarray(users, dtype=np.int64)
        known = users >= 0
        return self.spans(users, np.where(known, self.indptr[users], 0), np.where(known, self.indptr[users + 1], 0))

    def spans(self, users: Int64, starts: Int64, stops: Int64) -> Sets:
        """The events [start, stop) of each query (B,) as one ragged batch; `users` (B,) says whose they are."""
        lengths = stops - starts
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        where = np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])
        return Sets(
            torch.from_numpy(np.asarray(users, dtype=np.int64)),
            torch.from_numpy(indptr),
            torch.from_numpy(self.items[where].astype(np.int64)),
            None if self.times is None else torch.from_numpy(np.asarray(self.times[where])),
            None if self.weights is None else torch.from_numpy(np.asarray(self.weights[where])),
        )

    def places(self, users: Int64, stops: Int64, length: int) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """Places in the log of the newest `length` events of each of `users` (B,) before place `stops` (B,), left-aligned, and
        the mask of those that are there; both (B, T), T = the longest kept (at least 1). A place off the mask is 0."""
        starts = np.maximum(self.indptr[users], stops - length)
        lengths = stops - starts
        steps = np.arange(max(int(lengths.max(initial=0)), 1))
        mask = steps < lengths[:, None]
        return np.where(mask, starts[:, None] + steps, 0), mask

    def window(self, users: Int64, stops: Int64, length: int) -> Sequences:
        """The newest `length` events of each of `users` (B,) before place `stops` (B,) of the log: (B, T) left-aligned,
        T = the longest kept (at least 1), one vectorised gather."""
        where, mask = self.places(users, stops, length)
        empty = len(self) == 0
        items = np.zeros(mask.shape, dtype=np.int64) if empty else np.where(mask, self.items[where], 0).astype(np.int64)
        times = None if self.times is None or empty else torch.from_numpy(np.where(mask, self.times[where], 0))
        return Sequences(torch.from_numpy(np.asarray(users, dtype=np.int64)), torch.from_numpy(items), torch.from_numpy(mask), times)
