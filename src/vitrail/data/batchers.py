"""Batchers: a log -> typed batches, drawn vectorised. Every draw is a function of (seed, epoch, step), never of what ran
before, so a run resumed at any step sees the very batches an uninterrupted run sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vitrail.data.batches import Batch, Pairs, Sequences
from vitrail.data.log import Log

Int64 = npt.NDArray[np.int64]


def draws(seed: int, epoch: int, step: int, purpose: int = 0) -> np.random.Generator:
    """The generator of one step."""
    return np.random.default_rng([seed, epoch, step, purpose])


class Batcher(Protocol):
    """What the training loop asks of a source of batches."""

    def steps(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from step `start` on."""
        ...


class Negatives:
    """Draws items uniformly from those seen in training, outside the user's own training items."""

    def __init__(self, log: Log) -> None:
        users = log.users
        # one sorted array of user * N + item: membership is a binary search, memory is 8 bytes an event
        self._keys = np.unique(users * log.n_items + log.items)
        self._n_items = log.n_items
        self.pool = np.flatnonzero(log.item_counts).astype(np.int64)

    def __call__(self, rng: np.random.Generator, users: Int64, count: int) -> Int64:
        """(B,) users -> (B, K) items. A user who has (nearly) every item may get one of their own after 32 rounds."""
        items = self.pool[rng.integers(len(self.pool), size=(len(users), count))]
        keys = users[:, None] * self._n_items + items
        rows, columns = np.nonzero(self._known(keys))
        for _ in range(32):
            if len(rows) == 0:
                break
            items[rows, columns] = self.pool[rng.integers(len(self.pool), size=len(rows))]
            bad = self._known(users[rows] * self._n_items + items[rows, columns])
            rows, columns = rows[bad], columns[bad]
        return items

    def _known(self, keys: Int64) -> npt.NDArray[np.bool_]:
        where = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return self._keys[where] == keys


class PairBatcher:
    """Every training event once an epoch, shuffled, each with K negatives -> Pairs."""

    def __init__(self, log: Log, batch: int, negatives: int, seed: int, rank: int = 0, world: int = 1) -> None:
        """`batch`: pairs a step over all processes; `rank` of `world` processes takes every world-th pair."""
        self._users, self._items, self._weights = log.users, np.asarray(log.items, dtype=np.int64), log.weights
        self._batch, self._count, self._seed = min(batch, max(len(log), 1)), negatives, seed
        self._rank, self._world = rank, world
        self._negatives = Negatives(log)

    def steps(self) -> int:
        return max(1, -(-len(self._items) // self._batch))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Pairs]:
        order = draws(self._seed, epoch, 0, purpose=1).permutation(len(self._items))
        for step in range(start, self.steps()):
            mine = order[step * self._batch : (step + 1) * self._batch]
            if len(mine) >= self._world:
                mine = mine[self._rank :: self._world]
            users, items = self._users[mine], self._items[mine]
            negatives = self._negatives(draws(self._seed, epoch, step, purpose=2 + self._rank), users, self._count)
            weights = None if self._weights is None else torch.from_numpy(np.asarray(self._weights[mine]))
            yield Pairs(torch.from_numpy(users), torch.from_numpy(items), torch.from_numpy(negatives), weights)


class SequenceBatcher:
    """Rows of history -> Sequences with targets; -1 where nothing is asked.

    `shifted`: one row a user, every position asks for the next item. `prefix`: one row an event, the newest position asks
    for it. `cloze`: one row a user, some events are replaced by the code N and asked for, always at least one.
    Rows are shuffled, then sorted by length inside blocks of `bucket` batches, so that a batch is hardly padded; `share`
    makes up for long rows meeting in the same batch.
    """

    def __init__(
        self,
        log: Log,
        *,
        batch: int,
        length: int,
        negatives: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        shared_negatives: bool = False,
        target: Literal["shifted", "prefix", "cloze"] = "shifted",
        cloze_share: float = 0.2,
        bucket: int = 32,
    ) -> None:
        """`length`: positions T at most; `negatives`: K uniform negatives a position (0: none), outside the user's training
        items, or K for the whole batch (`shared_negatives`) out of all items seen in training."""
        self._log, self._batch, self._length, self._count, self._seed = log, batch, length, negatives, seed
        self._rank, self._world, self._shared, self._bucket = rank, world, shared_negatives, bucket
        self._target, self._cloze_share = target, cloze_share
        self._negatives = Negatives(log) if negatives else None
        owners = np.flatnonzero(log.lengths >= 2)
        if target == "prefix":
            self._stops = np.flatnonzero(np.arange(len(log)) > np.repeat(log.indptr[:-1], log.lengths))
            self._users = np.repeat(np.arange(log.n_users), log.lengths)[self._stops]
        else:
            self._users, self._stops = owners, np.asarray(log.indptr)[owners + 1]
        kept = np.minimum(self._stops - log.indptr[self._users], length)
        self._asked = np.ones_like(kept) if target == "prefix" else np.minimum(kept, log.lengths[self._users] - 1) if target == "shifted" else kept

    def steps(self) -> int:
        return max(1, -(-len(self._users) // self._batch))

    def _plan(self, epoch: int) -> list[Int64]:
        rng = draws(self._seed, epoch, 0, purpose=1)
        order = rng.permutation(len(self._users))
        kept = np.minimum(self._stops[order] - self._log.indptr[self._users[order]], self._length)
        block = np.arange(len(order)) // (self._batch * self._bucket)
        order = order[np.lexsort([kept, block])]
        batches = [order[i : i + self._batch] for i in range(0, len(order), self._batch)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Sequences]:
        plan = self._plan(epoch)
        make = {"shifted": self._shifted, "prefix": self._prefix, "cloze": self._cloze}[self._target]
        for step in range(start, len(plan)):
            rows = plan[step]
            if len(rows) >= self._world:
                rows = rows[self._rank :: self._world]
            rng = draws(self._seed, epoch, step, purpose=2 + self._rank)
            batch = make(self._users[rows], self._stops[rows], rng)
            share = float(self._asked[plan[step]].sum()) / (float(self._asked.sum()) / len(plan))
            yield replace(batch, negatives=self._draw(rng, batch), share=share)

    def _shifted(self, users: Int64, stops: Int64, rng: np.random.Generator) -> Sequences:
        window = self._log.window(users, stops, self._length + 1)
        mask = window.mask[:, 1:]
        targets = window.items[:, 1:].masked_fill(~mask, -1)
        times = None if window.times is None else window.times[:, :-1]
        return Sequences(window.users, window.items[:, :-1] * mask, mask, times, targets)

    def _prefix(self, users: Int64, stops: Int64, rng: np.random.Generator) -> Sequences:
        window = self._log.window(users, stops, self._length)
        ends = window.mask.sum(1, keepdim=True) - 1
        asked = torch.from_numpy(self._log.items[stops].astype(np.int64))[:, None]
        return replace(window, targets=torch.full_like(window.items, -1).scatter(1, ends, asked))

    def _cloze(self, users: Int64, stops: Int64, rng: np.random.Generator) -> Sequences:
        window = self._log.window(users, stops, self._length)
        keys = rng.random(window.mask.shape) + ~window.mask.numpy() * 2.0
        hidden = keys < self._cloze_share
        hidden[np.arange(len(keys)), keys.argmin(1)] = True
        chosen = torch.from_numpy(hidden)
        return replace(window, items=window.items.masked_fill(chosen, self._log.n_items), targets=window.items.masked_fill(~chosen, -1))

    def _draw(self, rng: np.random.Generator, batch: Sequences) -> Tensor | None:
        if self._negatives is None or batch.targets is None:
            return None
        if self._shared:
            pool = self._negatives.pool
            return torch.from_numpy(rng.choice(pool, size=min(self._count, len(pool)), replace=False))
        asked = batch.targets >= 0
        owners = batch.users.numpy().repeat(asked.sum(1).numpy())
        items = torch.zeros((*asked.shape, self._count), dtype=torch.int64)
        items[asked] = torch.from_numpy(self._negatives(rng, owners, self._count))
        return items
