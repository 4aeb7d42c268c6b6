"""The shape of a split: what is fitted on, and the queries that are asked. The ways to split are in data.splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vitrail.data.batches import Sets
from vitrail.data.log import Log, blocks, indptr_of

Int64 = npt.NDArray[np.int64]


HELD = 1 << 22
"""Events up to which the histories of a part are gathered once and held; those of a larger part are gathered a block at a time."""


class Histories:
    """What is known of the users of Q queries, read from a log when a block is asked for; it reads as `Sets`."""

    def __init__(self, log: Log, users: Int64) -> None:
        """`users` (Q,)"""
        self._log = log
        self.users = torch.from_numpy(users)
        self.indptr = torch.from_numpy(indptr_of(log.lengths[users]))

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> Tensor:
        """(Q,) events of each query."""
        return self.indptr[1:] - self.indptr[:-1]

    @property
    def items(self) -> Tensor:
        """(E,) int64: all of them at once."""
        return self.slice(0, len(self)).items

    def slice(self, start: int, stop: int) -> Sets:
        """Queries [start, stop) as a batch."""
        return self._log.histories(self.users[start:stop].numpy())

    def take(self, rows: Tensor) -> Sets:
        """The queries `rows` (R,) int64 as a batch."""
        return self._log.histories(self.users[rows].numpy())


def histories_of(log: Log, users: Int64) -> Sets | Histories:
    """The histories of `users` (Q,) in `log`, held where they are few."""
    lazy = Histories(log, users)
    return lazy if int(lazy.indptr[-1]) > HELD else log.histories(users)


@dataclass(frozen=True)
class Part:
    """The queries of one evaluated part (valid or test). Q queries.

    A query is what a system may look at (`histories`), what it must not answer with (`mask`), and the truth (`targets`).
    """

    name: str
    """valid or test"""
    histories: Sets | Histories
    """Q ragged histories, CPU tensors; `users` has codes"""
    mask_indptr: Int64
    """(Q + 1,)"""
    mask_items: npt.NDArray[np.integer]
    """items removed from the ranking of each query"""
    target_indptr: Int64
    """(Q + 1,)"""
    target_items: Int64
    """the truth of each query, distinct within a query, at least one each, none of them masked"""
    candidates: npt.NDArray[np.bool_] | None = None
    """(N,) items that are ranked; none: all"""
    left_out: dict[str, int] = field(default_factory=dict)
    """reason -> queries that are not in the headline, e.g. {"no history": 12}"""
    target_rows: Int64 | None = None
    """row of interactions.parquet of each target (its first event in the part)"""
    target_times: Int64 | None = None
    """microseconds since 1970 of each target, where there is a clock"""

    def __len__(self) -> int:
        return len(self.histories)

    def history_blocks(self) -> Iterator[tuple[int, Sets]]:
        """(first query, the histories of some queries), all in turn; of many events only some are held."""
        for start, stop in blocks(self.histories.indptr.numpy()):
            yield start, self.histories.slice(start, stop)


@dataclass(frozen=True)
class Split:
    """A data set cut into train, valid and test."""

    name: str
    settings: dict[str, object]
    """every setting that shaped it, for the fingerprint"""
    train: Log
    valid: Part | None
    test: Part | None
    known: Log
    """what may be known when the test part is asked: train, or train and valid, as the protocol says; never test"""
    cold_items: npt.NDArray[np.bool_]
    """(N,) items without an event in train"""
    leaks: tuple[str, ...] = ()
    """sentences about leakage that the check found; empty is clean"""
