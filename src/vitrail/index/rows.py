"""Which row of the vectors an outside id has. A row is never used twice: what is removed or replaced leaves a dead row until compaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Lock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from vitrail.data.vocabulary import UInt64, hash_ids, mix
from vitrail.errors import SettingError
from vitrail.evaluation.ranking import tie_ranks
from vitrail.index.base import Int, Mask

A = TypeVar("A", bound=npt.NDArray[Any])


def room_for(array: A, used: int, more: int) -> A:
    """`array` with room for `more` rows after `used`, half as many again where it must grow; new cells are 0 or None."""
    if used + more <= len(array):
        return array
    grown = np.zeros((used + max(more, used // 2), *array.shape[1:]), dtype=array.dtype)
    if array.dtype == object:
        grown[:] = None
    grown[:used] = array[:used]
    return grown  # type: ignore[return-value]


class Rows:
    """n rows, the live ones and the dead; `names` (capacity,) ends in None, so that the row -1 has no name."""

    def __init__(self, ids: Sequence[str], births: Int | None = None, alive: Mask | None = None, hashes: UInt64 | None = None) -> None:
        """Raises SettingError where an id occurs twice among the live rows."""
        self.n = len(ids)
        self.names = np.empty(self.n + 1, dtype=object)
        self.names[: self.n] = list(ids)
        self.hashes = hash_ids(list(ids)) if hashes is None else hashes
        self.births = np.arange(self.n) if births is None else births
        """(capacity,) the order in which ids were added first: a replacement inherits it"""
        self.alive = np.ones(self.n, dtype=bool) if alive is None else alive
        self._born = int(self.births.max(initial=-1)) + 1
        self._row: dict[str, int] | None = None
        self.changed()
        if alive is None and len(self._rows()) < self.n:
            raise SettingError(f'The id "{self._twice(ids)}" occurs twice: an id has one vector.')

    def changed(self) -> None:
        """Forget what was computed from the rows."""
        self._keys: Any = None
        self._ranks: Any = None
        self._order: Any = None

    def __len__(self) -> int:
        return len(self._rows())

    def _rows(self) -> dict[str, int]:
        if self._row is None:
            live = np.flatnonzero(self.alive[: self.n])
            self._row = dict(zip(self.names[live].tolist(), live.tolist(), strict=True))
        return self._row

    @staticmethod
    def _twice(ids: Sequence[str]) -> str:
        seen: set[str] = set()
        return next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]

    def find(self, ids: Sequence[str]) -> Int:
        """(E,) rows; -1 for an id that is not there."""
        known = self._rows()
        return np.fromiter((known.get(name, -1) for name in ids), dtype=np.int64, count=len(ids))

    def known(self, ids: Sequence[str]) -> Int:
        """(E,) rows. Raises SettingError for an id that is not there, or given twice."""
        rows = self.find(ids)
        if (rows < 0).any():
            raise SettingError(f'There is no item "{ids[int(np.argmin(rows))]}" in the index of {len(self):,} items: add it first.')
        if len(np.unique(rows)) < len(rows):
            raise SettingError(f'The id "{self._twice(ids)}" occurs twice: an id has one vector.')
        return rows

    def fresh(self, ids: Sequence[str]) -> None:
        """Raises SettingError where an id is there already, or given twice."""
        known = self._rows()
        taken = next((name for name in ids if name in known), None)
        if taken is not None:
            raise SettingError(f'The item "{taken}" is in the index already: use replace to give it another vector.')
        if len(set(ids)) < len(ids):
            raise SettingError(f'The id "{self._twice(ids)}" occurs twice: an id has one vector.')

    def append(self, ids: Sequence[str], births: Int | None = None) -> None:
        """New rows at the end."""
        count, known = len(ids), self._rows()
        self.names = room_for(self.names, self.n, count + 1)
        self.hashes, self.births = room_for(self.hashes, self.n, count), room_for(self.births, self.n, count)
        self.alive = room_for(self.alive, self.n, count)
        new = slice(self.n, self.n + count)
        self.names[new], self.hashes[new], self.alive[new] = list(ids), hash_ids(ids), True
        self.births[new] = np.arange(self._born, self._born + count) if births is None else births
        known.update(zip(ids, range(self.n, self.n + count), strict=True))
        self.n += count
        self._born += count if births is None else 0
        self.changed()

    def bury(self, rows: Int) -> None:
        """Make rows dead."""
        self.alive[rows] = False
        known = self._rows()
        for name in self.names[rows]:
            del known[name]
        self.changed()

    @property
    def dead(self) -> int:
        """Rows that hold nothing."""
        return self.n - len(self)

    @property
    def order(self) -> Int:
        """(N,) live rows in the order in which their ids were added."""
        if self._order is None:
            live = np.flatnonzero(self.alive[: self.n])
            self._order = live[np.argsort(self.births[live], kind="stable")]
        return self._order

    @property
    def keys(self) -> torch.Tensor:
        """(n,) int64 in the order of `ranks`, without a sort: the tie rule of evaluation.ranking."""
        if self._keys is None:
            self._keys = torch.from_numpy((mix(self.hashes[: self.n], 0) ^ np.uint64(1 << 63)).view(np.int64))
        return self._keys

    @property
    def ranks(self) -> torch.Tensor:
        """(n,) the place of each row in the order that breaks ties."""
        if self._ranks is None:
            self._ranks = tie_ranks(self.hashes[: self.n], 0)
        return self._ranks

    def compacted(self) -> tuple[Rows, Int]:
        """The live rows alone, in the order of their ids, and the (N,) old rows they were."""
        old = self.order
        return Rows(self.names[old].tolist(), hashes=self.hashes[old].copy()), old


class Gate:
    """Any number of searches at once (`with gate:`), or one change (`with gate.change():`)."""

    def __init__(self) -> None:
        self._turn = Condition(Lock())
        self._inside = self._waiting = 0

    def __enter__(self) -> None:
        with self._turn:
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._inside -= 1
            if self._waiting:
                self._turn.notify_all()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Nobody else is inside; who comes meanwhile waits."""
        with self._turn:
            self._waiting += 1
            try:
                self._turn.wait_for(lambda: self._inside == 0)
                yield
            finally:
                self._waiting -= 1


def limited(cache: dict[Any, Any], key: Any, make: Callable[[], Any], most: int = 64) -> Any:
    """cache[key], made where it is absent; a full cache is emptied."""
    found = cache.get(key)
    if found is None:
        found = make()
        if len(cache) >= most:
            cache.clear()
        cache[key] = found
    return found
