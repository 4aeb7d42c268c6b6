"""What an index is: vectors under outside ids, searched by inner product or cosine. Filters are part of the search.

Letters: B queries, N vectors, D width, K answers a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.data.conditions import matches
from vitrail.errors import DataError, SettingError

Metric = Literal["ip", "cosine"]
Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Filter:
    """Which items may be found: those that pass every part given. It is decided before the search, so that no answer is lost to it."""

    ids: Sequence[str] | None = None
    """the items allowed; those that the index does not hold are passed over"""
    where: str | None = None
    """a condition over the index's attributes, such as `price < 20` (data.conditions); an item without attributes fails it"""
    mask: Mask | None = None
    """(N,) true where an item is allowed, in the order of the index's `ids`"""


@dataclass(frozen=True, eq=False)
class Hits:
    """The answers, best first; a list shorter than K ends in None with score -inf."""

    ids: npt.NDArray[np.object_]
    """(B, K) outside ids or None"""
    scores: Float
    """(B, K) inner products, or cosines"""

    def lists(self) -> list[list[str]]:
        """B lists of ids without the padding."""
        return [[name for name in row if name is not None] for row in self.ids.tolist()]


@runtime_checkable
class Index(Protocol):
    """An engine. `ids` never change their meaning: what is removed, replaced or compacted moves inside only."""

    kind: str
    metric: Metric
    dim: int

    def __len__(self) -> int:
        """Items that can be found."""
        ...

    def add(self, ids: Sequence[str], vectors: Any, attributes: pl.DataFrame | None = None) -> None:
        """Take E new items with vectors (E, D). Raises SettingError where one is there already."""
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Forget items. Raises SettingError where one is not there."""
        ...

    def replace(self, ids: Sequence[str], vectors: Any, attributes: pl.DataFrame | None = None) -> None:
        """Give items that are there other vectors (E, D). Raises SettingError where one is not there."""
        ...

    def search(self, queries: Any, k: int = 10, filter: Filter | None = None) -> Hits:
        """The min(K, items that pass) best items for each query (B, D) or (D,)."""
        ...

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a folder, atomically. Raises DataError where `path` is taken."""
        ...

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open what `save` wrote. Raises ArtifactError where it is damaged."""
        ...

    def stats(self) -> dict[str, Any]:
        """What it holds, how it searches, the recall that was measured."""
        ...


def as_vectors(values: Any, dim: int | None = None) -> Float:
    """(E, D) float32, contiguous, from an array or tensor (E, D) or (D,). Raises SettingError for another shape, DataError for NaN or infinity."""
    array = np.ascontiguousarray(values.numpy(force=True) if hasattr(values, "numpy") else values, dtype=np.float32)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or (dim is not None and array.shape[1] != dim):
        wanted = "two dimensions" if dim is None else f"the shape (any, {dim})"
        raise SettingError(f"The vectors have the shape {array.shape}, and {wanted} is needed: pass what the index was built from.")
    # one product tells that all is finite; where it overflows each number is looked at
    if not isfinite(np.vdot(array, array)) and not np.isfinite(array).all():
        raise DataError("A vector holds NaN or an infinite number: mend it before it goes to an index.")
    return array


def unit(vectors: Float) -> Float:
    """(E, D) rows of length 1; a row of zeros stays."""
    norms: Float = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
    norms[norms == 0] = 1.0
    return vectors / norms


def check_metric(metric: str) -> Metric:
    """The metric as it is known. Raises SettingError."""
    if metric not in ("ip", "cosine"):
        raise SettingError(f'There is no metric "{metric}": choose ip (inner product) or cosine.')
    return "ip" if metric == "ip" else "cosine"


def check_k(k: int) -> None:
    """Raises SettingError where `k` is under 1."""
    if k < 1:
        raise SettingError(f"k is {k}: ask for at least 1 item.")


def passing(attributes: pl.DataFrame | None, condition: str) -> Mask:
    """(rows of `attributes`,) bool: where the condition holds. Raises SettingError where there are no attributes, or it does not fit them."""
    if attributes is None:
        raise SettingError("The index holds no attributes, so a condition cannot be tested: pass attributes when it is built, or filter by ids.")
    return np.array(matches(condition, attributes).to_numpy(), dtype=bool)


def merged(old: pl.DataFrame | None, new: pl.DataFrame | None) -> pl.DataFrame | None:
    """`old` with the rows of `new` added; where both have an item, that of `new` counts. Raises DataError where they do not fit."""
    if new is not None and "item" not in new.columns:
        raise DataError(f'The attributes have no column "item" ({", ".join(new.columns)}): name the column of ids so.')
    if old is None or new is None:
        return old if new is None else new
    try:
        table = pl.concat([old.filter(~pl.col("item").is_in(new["item"].implode())), new], how="diagonal_relaxed")
    except pl.exceptions.PolarsError:
        raise DataError("The new attributes do not fit those of the index: give the columns the same types.") from None
    return table
