"""The shape of a split: what is fitted on, and the queries that are asked. The ways to split are in data.splits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vitrail.data.batches import Sets
from vitrail.data.log import Log

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """The queries of one evaluated part (valid or test). Q queries.

    A query is what a system may look at (`histories`), what it must not answer with (`mask`), and the truth (`targets`).
    """

    name: str
    """valid or test"""
    histories: Sets
    """Q ragged histories, CPU tensors; `users` has codes"""
    mask_indptr: Int64
    """(Q + 1,)"""
    mask_items: Int64
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
