"""The exact index: always there, the reference of all others. Vectors lie in one array, memory-mapped when they come from disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from vitrail.errors import SettingError
from vitrail.index.base import Filter, Float, Hits, Int, Mask, Metric, as_vectors, check_k, check_metric, merged, passing, unit
from vitrail.index.rows import Gate, Rows, limited, room_for
from vitrail.index.scan import scan

DEAD = 0.2
"""Share of dead rows at which an index is compacted."""
GATHER = 0.25
"""Share of rows under which those that pass are copied out; above it all are scored and the others closed."""

Number = Literal["float32", "float16"]


@dataclass(eq=False)
class Kept:
    """The rows a search may find."""

    mask: Mask
    """(n,) bool: alive, and passing the filter"""
    exactly: bool | None = None
    """the answer to this filter must be exact; none: not known yet"""
    selector: Any = field(default=None, repr=False)
    """the mask as an approximate engine takes it"""

    @cached_property
    def rows(self) -> Int:
        """(S,) those rows, ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def closed(self) -> Int:
        """(n - S,) the others, ascending."""
        return np.flatnonzero(~self.mask)

    @cached_property
    def bits(self) -> npt.NDArray[np.uint8]:
        """(n / 8,) the mask, a bit a row, lowest first."""
        return np.packbits(self.mask, bitorder="little")

    @cached_property
    def count(self) -> int:
        """S"""
        return int(np.count_nonzero(self.mask))


class ExactIndex:
    """Scores everything that passes, in blocks. Safe to search from several threads; a change waits for searches under way."""

    kind: str = "exact"
    kinds: ClassVar[tuple[str, ...]] = ("exact",)

    def __init__(
        self,
        ids: Sequence[str] | Rows,
        vectors: Any,
        *,
        metric: Metric = "ip",
        dtype: Number = "float32",
        attributes: pl.DataFrame | None = None,
        source: str | None = None,
    ) -> None:
        """`vectors` (N, D) belong to `ids`; `attributes` has a column item; `source` says what made the vectors (a fingerprint).

        Raises SettingError where numbers of ids and vectors differ or an id occurs twice, DataError for NaN or infinity.
        """
        self.metric = check_metric(metric)
        self.dtype: Number = dtype
        self.source = source
        self.attributes = merged(None, attributes)
        if isinstance(ids, Rows):  # from disk: the vectors are as they must be
            self.rows, self._vectors = ids, vectors
        else:
            array = self._stored(as_vectors(vectors))
            if len(array) != len(ids):
                raise SettingError(f"There are {len(ids):,} ids and {len(array):,} vectors: each id needs one.")
            self.rows, self._vectors = Rows(list(ids)), array
        self.dim = int(self._vectors.shape[1])
        self._gate = Gate()
        self._made: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind}: {len(self):,} x {self.dim}, {self.metric})"

    @property
    def ids(self) -> list[str]:
        """N outside ids in the order in which they were added; the order of a filter's mask."""
        return limited(self._made, "ids", lambda: self.rows.names[self.rows.order].tolist())  # type: ignore[no-any-return]

    def vectors(self, ids: Sequence[str] | None = None) -> Float:
        """(E, D) the vectors of `ids`, of all in the order of `ids` where none are named; unit length under cosine. Raises SettingError."""
        rows = self.rows.order if ids is None else self.rows.known(ids)
        return self._vectors[rows].astype(np.float32)

    # searching

    def search(self, queries: Any, k: int = 10, filter: Filter | None = None) -> Hits:
        """The min(K, items that pass) best items for each query (B, D) or (D,).

        Raises SettingError for a bad shape, k or filter, DataError for NaN or infinity.
        """
        check_k(k)
        Q = self._asked(queries)
        with self._gate:
            kept = self._keep(filter)
            rows, scores = self._search(Q, k, kept)
            return Hits(self.rows.names[rows], scores)

    def _asked(self, queries: Any) -> Float:
        Q = as_vectors(queries, self.dim)
        return unit(Q) if self.metric == "cosine" else Q

    def _search(self, Q: Float, k: int, kept: Kept | None) -> tuple[Int, Float]:
        """Rows (B, K), -1 at the end of short lists, and scores."""
        return self._scan(Q, k, kept)

    def _scan(self, Q: Float, k: int, kept: Kept | None) -> tuple[Int, Float]:
        n = self.rows.n
        rows = kept.rows if kept is not None and kept.count < GATHER * n else None
        closed = kept.closed if kept is not None and rows is None and kept.count < n else None
        return scan(self._vectors[:n], Q, k, self.rows.keys, lambda: self.rows.ranks, rows, closed)

    def _keep(self, filter: Filter | None) -> Kept | None:
        """What may be found; none where that is every row."""
        if filter is None or (filter.ids is None and filter.where is None and filter.mask is None):
            return limited(self._made, "alive", lambda: Kept(self.rows.alive[: self.rows.n].copy(), False)) if self.rows.dead else None
        if filter.ids is None and filter.mask is None:
            return limited(self._made, ("where", filter.where), lambda: Kept(self._passing(filter)))
        mask = self._passing(filter)
        if mask.all():
            return None
        return limited(self._made, blake2b(np.packbits(mask).tobytes(), digest_size=16).digest(), lambda: Kept(mask))

    def _passing(self, filter: Filter) -> Mask:
        n = self.rows.n
        mask = self.rows.alive[:n].copy()
        if filter.ids is not None:
            mask &= self._only(self.rows.find(list(filter.ids)))
        if filter.mask is not None:
            given = np.asarray(filter.mask, dtype=bool)
            if given.shape != (len(self),):
                raise SettingError(f"The mask has the shape {given.shape}, and the index holds {len(self):,} items: make it in the order of the index's ids.")
            mask &= self._only(self.rows.order[given])
        if filter.where is not None:
            held = passing(self.attributes, filter.where)
            assert self.attributes is not None
            mask &= self._only(self._attribute_rows()[held])
        return mask

    def _only(self, rows: Int) -> Mask:
        mask = np.zeros(self.rows.n + 1, dtype=bool)
        mask[rows] = True  # -1, what is not there, is the extra place
        return mask[:-1]

    def _attribute_rows(self) -> Int:
        table = self.attributes
        return limited(self._made, "attributes", lambda: self.rows.find(table["item"].to_list()))  # type: ignore[index,return-value]

    # changing

    def add(self, ids: Sequence[str], vectors: Any, attributes: pl.DataFrame | None = None) -> None:
        """Take E new items with vectors (E, D). Raises SettingError where one is there already, DataError for NaN or infinity."""
        array, ids = self._counted(ids, vectors)
        with self._gate.change():
            self.rows.fresh(ids)
            table = merged(self.attributes, attributes)
            self._append(ids, array)
            self.attributes = table
            self._changed()

    def remove(self, ids: Sequence[str]) -> None:
        """Forget items; their rows are reused when a fifth of all is dead. Raises SettingError where one is not there."""
        with self._gate.change():
            self.rows.bury(self.rows.known(list(ids)))
            self._changed()
            self._compact_if_due()

    def replace(self, ids: Sequence[str], vectors: Any, attributes: pl.DataFrame | None = None) -> None:
        """Give items that are there other vectors (E, D), and other attributes if any. Raises SettingError where one is not there."""
        array, ids = self._counted(ids, vectors)
        with self._gate.change():
            rows = self.rows.known(ids)
            table = merged(self.attributes, attributes)
            births = self.rows.births[rows]
            self.rows.bury(rows)
            self._append(ids, array, births)
            self.attributes = table
            self._changed()
            self._compact_if_due()

    def compact(self) -> None:
        """Give back the rows of what was removed or replaced."""
        with self._gate.change():
            self._compact()

    def _counted(self, ids: Sequence[str], vectors: Any) -> tuple[npt.NDArray[Any], list[str]]:
        names = list(ids)
        array = self._stored(as_vectors(vectors, self.dim)) if names or np.size(vectors) else np.empty((0, self.dim), dtype=self.dtype)
        if len(array) != len(names):
            raise SettingError(f"There are {len(names):,} ids and {len(array):,} vectors: each id needs one.")
        return array, names

    def _stored(self, vectors: Float) -> npt.NDArray[Any]:
        return (unit(vectors) if self.metric == "cosine" else vectors).astype(self.dtype)

    def _append(self, ids: list[str], vectors: npt.NDArray[Any], births: Int | None = None) -> None:
        n = self.rows.n
        self._vectors = room_for(self._vectors, n, len(ids))
        self._vectors[n : n + len(ids)] = vectors
        self.rows.append(ids, births)

    def _changed(self) -> None:
        self._made = {}

    def _compact_if_due(self) -> None:
        if self.rows.dead > DEAD * self.rows.n:
            self._compact()

    def _compact(self) -> None:
        self.rows, old = self.rows.compacted()
        self._vectors = self._vectors[old]
        if self.attributes is not None:
            self.attributes = self.attributes.filter(pl.col("item").is_in(pl.Series(self.ids, dtype=pl.String).implode()))
        self._changed()

    # telling and saving

    def stats(self) -> dict[str, Any]:
        """What it holds and how it searches."""
        return {
            "kind": self.kind,
            "metric": self.metric,
            "dim": self.dim,
            "count": len(self),
            "dead": self.rows.dead,
            "dtype": self.dtype,
            "attributes": [] if self.attributes is None else [name for name in self.attributes.columns if name != "item"],
            "source": self.source,
            **self._plan(),
        }

    def _plan(self) -> dict[str, Any]:
        """How it was tuned, and the recall measured; what its manifest must hold besides."""
        return {"recall": {"target": 1.0, "measured": 1.0}}

    def _write(self, folder: Path) -> None:
        """The files of the engine, beside vectors and rows."""

    @classmethod
    def _read(cls, folder: Path, manifest: dict[str, Any], rows: Rows, vectors: Any, attributes: pl.DataFrame | None) -> Self:
        return cls(rows, vectors, metric=manifest["metric"], dtype=manifest["dtype"], attributes=attributes, source=manifest["source"])

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a folder, atomically. Raises DataError where `path` is taken, ResourceError where the disk is full."""
        from vitrail.index.store import save_index

        with self._gate:
            save_index(self, path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open what `save` wrote. Raises ArtifactError where it is damaged, newer, absent, or of another engine."""
        from vitrail.index.store import open_index_as

        return open_index_as(cls, path)
