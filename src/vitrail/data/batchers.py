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

from vitrail.data.batches import Batch, Pairs, Sequences, Sets
from vitrail.data.log import Log, blocks, distinct

CELLS = 1 << 24
"""Cells of the user-item matrix up to which those with an event are marked in a table."""
AHEAD = 1 << 18
"""Numbers of pairs that are drawn at once."""
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


def pair_keys(log: Log) -> Int64:
    """The distinct user * N + item of a log, sorted; made a share of the users at a time."""
    keys, end = np.empty(len(log), dtype=np.int64), 0
    for a, b in blocks(log.indptr):
        start, stop = int(log.indptr[a]), int(log.indptr[b])
        own = distinct(np.repeat(np.arange(a, b), log.lengths[a:b]) * log.n_items + log.items[start:stop])
        keys[end : end + len(own)] = own
        end += len(own)
    return keys[:end]


class Negatives:
    """Draws items seen in training, outside the user's own training items, with chance ~ count ** power (0: uniform)."""

    def __init__(self, log: Log, power: float = 0.0) -> None:
        # one sorted array of user * N + item: membership is a binary search, memory is 8 bytes an event
        self._keys = pair_keys(log)
        self._n_items = log.n_items
        # where a byte a cell is little memory, membership is one look-up
        self._cells = None
        if log.n_users * log.n_items <= CELLS:
            self._cells = np.zeros(log.n_users * log.n_items, dtype=bool)
            self._cells[self._keys] = True
        self.pool = np.flatnonzero(log.item_counts).astype(np.int64)
        mass = np.cumsum(log.item_counts[self.pool].astype(np.float64) ** power) if power else None
        self._cumulative = None if mass is None or not len(mass) else mass / mass[-1]

    def draw(self, rng: np.random.Generator, size: int | tuple[int, ...]) -> Int64:
        """Items for everybody, with replacement; (*size) int64."""
        if self._cumulative is None:
            return self.pool[rng.integers(len(self.pool), size=size)]
        return self.pool[np.searchsorted(self._cumulative, rng.random(size), side="right").clip(max=len(self.pool) - 1)]

    def shared(self, rng: np.random.Generator, count: int) -> Int64:
        """(K,) items for a whole batch: distinct where the draw is uniform (fewer than K in a small catalogue)."""
        if self._cumulative is None:
            return rng.choice(self.pool, size=min(count, len(self.pool)), replace=False)
        return self.draw(rng, count)

    def __call__(self, rng: np.random.Generator, users: Int64, count: int) -> Int64:
        """(B,) users -> (B, K) items. A user who has (nearly) every item may get one of their own after 32 rounds."""
        items = self.draw(rng, (len(users), count))
        keys = users[:, None] * self._n_items + items
        rows, columns = np.nonzero(self._known(keys))
        for _ in range(32):
            if len(rows) == 0:
                break
            items[rows, columns] = self.draw(rng, len(rows))
            bad = self._known(users[rows] * self._n_items + items[rows, columns])
            rows, columns = rows[bad], columns[bad]
        return items

    def _known(self, keys: Int64) -> npt.NDArray[np.bool_]:
        if self._cells is not None:
            return self._cells[keys]
        where = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return self._keys[where] == keys


class PairBatcher:
    """Every training event once an epoch, shuffled, each with K negatives -> Pairs."""

    def __init__(
        self, log: Log, batch: int, negatives: int, seed: int, rank: int = 0, world: int = 1, *, power: float = 0.0, shared_negatives: bool = False
    ) -> None:
        """`batch`: pairs a step over all processes; `rank` of `world` processes takes every world-th pair; `power` as in
        `Negatives`; with `shared_negatives` K for the whole batch, possibly items of its users."""
        self._users, self._items, self._weights = log.small_users, log.items, log.weights
        self._batch, self._count, self._seed = min(batch, max(len(log), 1)), negatives, seed
        self._rank, self._world = rank, world
        self._negatives, self._shared = Negatives(log, power), shared_negatives

    def steps(self) -> int:
        return max(1, -(-len(self._items) // self._batch))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Pairs]:
        # the same draw as permutation(E), in half the memory
        order = draws(self._seed, epoch, 0, purpose=1).permutation(np.arange(len(self._items), dtype=np.int32 if len(self._items) < 2**31 else np.int64))
        # several steps are drawn at once: a step alone is too small for its calls not to count
        ahead = max(1, AHEAD // (self._batch * (self._count + 2)))
        for first in range(start - start % ahead, self.steps(), ahead):
            mine = [self._mine(order, step) for step in range(first, min(first + ahead, self.steps()))]
            stops = np.cumsum([len(rows) for rows in mine])
            rows = np.concatenate(mine)
            users, items = self._users[rows].astype(np.int64), self._items[rows].astype(np.int64)
            weights = None if self._weights is None else np.asarray(self._weights[rows])
            own = None if self._shared else self._negatives(draws(self._seed, epoch, first, purpose=2 + self._rank), users, self._count)
            for step in range(max(first, start), first + len(mine)):
                part = slice(int(stops[step - first] - len(mine[step - first])), int(stops[step - first]))
                if own is None:
                    negatives = self._negatives.shared(draws(self._seed, epoch, step, purpose=2 + self._rank), self._count)
                else:
                    negatives = own[part]
                weight = None if weights is None else torch.from_numpy(weights[part])
                yield Pairs(torch.from_numpy(users[part]), torch.from_numpy(items[part]), torch.from_numpy(negatives), weight)

    def _mine(self, order: npt.NDArray[np.integer], step: int) -> npt.NDArray[np.integer]:
        """The events of a step that are this process's."""
        rows = order[step * self._batch : (step + 1) * self._batch]
        return rows[self._rank :: self._world] if len(rows) >= self._world else rows


class SetBatcher:
    """Every user with training events once an epoch, shuffled -> Sets with the whole history."""

    def __init__(self, log: Log, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        """`batch`: users a step over all processes."""
        self._log, self._batch, self._seed, self._rank, self._world = log, batch, seed, rank, world
        self._users = np.flatnonzero(log.lengths)

    def steps(self) -> int:
        return max(1, -(-len(self._users) // self._batch))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Sets]:
        order = draws(self._seed, epoch, 0, purpose=1).permutation(self._users)
        for step in range(start, self.steps()):
            mine = order[step * self._batch : (step + 1) * self._batch]
            if len(mine) >= self._world:
                mine = mine[self._rank :: self._world]
            yield self._log.histories(mine)


class SequenceBatcher:
    """Rows of history -> Sequences with targets; -1 where nothing is asked.

    `shifted`: one row a user, every position asks for the next item. `prefix`: one row an event, the newest position asks
    for it. `cloze`: one row a user, a share of its events is replaced by the code N and asked for, always at least one.
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
        cloze_most: int | None = None,
        cloze_last: float = 0.0,
        power: float = 0.0,
        bucket: int = 32,
    ) -> None:
        """`length`: positions T at most; `negatives`: K uniform negatives a position (0: none), outside the user's training
        items, or K for the whole batch (`shared_negatives`) out of all items seen in training; `power` as in `Negatives`;
        `cloze_most` events masked at most, `cloze_last` the share of rows in which the newest event alone is masked."""
        self._log, self._batch, self._length, self._count, self._seed = log, batch, length, negatives, seed
        self._rank, self._world, self._shared, self._bucket = rank, world, shared_negatives, bucket
        self._target, self._cloze_share, self._cloze_last = target, cloze_share, cloze_last
        self._cloze_most = cloze_most or length
        self._negatives = Negatives(log, power) if negatives else None
        owners = np.flatnonzero(log.lengths >= 2)
        if target == "prefix":
            first = np.zeros(len(log), dtype=bool)
            first[log.indptr[:-1][log.lengths > 0]] = True
            self._stops = np.flatnonzero(~first)
            self._users = log.owners(self._stops)
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
        mask = window.mask.numpy()
        lengths = mask.sum(1)
        wanted = np.rint(lengths * self._cloze_share).clip(1, self._cloze_most)
        places = (rng.random(mask.shape) + ~mask * 2.0).argsort(1).argsort(1)  # padding comes last
        hidden = places < wanted[:, None]
        if self._cloze_last:
            only = rng.random(len(mask)) < self._cloze_last
            hidden[only] = np.arange(mask.shape[1]) == lengths[only, None] - 1
        chosen = torch.from_numpy(hidden)
        return replace(window, items=window.items.masked_fill(chosen, self._log.n_items), targets=window.items.masked_fill(~chosen, -1))

    def _draw(self, rng: np.random.Generator, batch: Sequences) -> Tensor | None:
        if self._negatives is None or batch.targets is None:
            return None
        if self._shared:
            return torch.from_numpy(self._negatives.shared(rng, self._count))
        asked = batch.targets >= 0
        owners = batch.users.numpy().repeat(asked.sum(1).numpy())
        items = torch.zeros((*asked.shape, self._count), dtype=torch.int64)
        items[asked] = torch.from_numpy(self._negatives(rng, owners, self._count))
        return items
