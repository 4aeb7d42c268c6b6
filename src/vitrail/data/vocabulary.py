"""Outside ids <-> integer codes.

Codes follow a hash of the id, not the order of the file: files often number items by first appearance, which leaks
the future into any model that sees the order (see also the tie rule of evaluation.ranking, which uses the same hash).
New ids are appended, so codes already given never move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]


def hash_ids(ids: Sequence[str]) -> UInt64:
    """(N,) 64-bit hashes of ids, the same on every machine and version (BLAKE2b)."""
    digests = b"".join(hashlib.blake2b(i.encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(digests, dtype="<u8").copy()


def mix(hashes: UInt64, seed: int) -> UInt64:
    """(N,) hashes re-drawn under `seed` (the SplitMix64 finaliser), one vectorised pass."""
    with np.errstate(over="ignore"):
        z = hashes + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


class Vocabulary:
    """A growing list of unique outside ids; the code of an id is its place.

    >>> v = Vocabulary.of(["b", "a"]).grown(["c", "a"])
    >>> v.decode(v.encode(["c", "zzz", "a"]))
    ['c', None, 'a']
    """

    def __init__(self, ids: pl.Series) -> None:
        """`ids`: unique strings in code order."""
        self.ids = ids.cast(pl.String).rename("id")

    @classmethod
    def of(cls, ids: Iterable[str] | pl.Series) -> Vocabulary:
        """A fresh vocabulary of the distinct `ids`, in hash order."""
        return cls(pl.Series("id", [], dtype=pl.String)).grown(ids)

    def grown(self, ids: Iterable[str] | pl.Series) -> Vocabulary:
        """This vocabulary with the unknown ones of `ids` appended in hash order; known codes stay."""
        series = ids if isinstance(ids, pl.Series) else pl.Series(list(ids), dtype=pl.String)
        fresh = series.cast(pl.String).unique().drop_nulls()
        fresh = fresh.filter(~fresh.is_in(self.ids.implode()))
        order = np.argsort(hash_ids(fresh.to_list()), kind="stable")
        return Vocabulary(pl.concat([self.ids, fresh.gather(order).rename("id")]))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def hashes(self) -> UInt64:
        """(N,) stable hashes of the ids in code order."""
        return hash_ids(self.ids.to_list())

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.ids.to_list())}

    def code(self, id: str) -> int:
        """The code of one id, or -1."""
        return self._codes.get(id, -1)

    def encode(self, ids: Iterable[str] | pl.Series) -> Int64:
        """(E,) codes; -1 for an unknown id."""
        if not isinstance(ids, pl.Series):
            return np.fromiter((self._codes.get(i, -1) for i in ids), dtype=np.int64)
        table = pl.DataFrame({"id": self.ids, "code": np.arange(len(self), dtype=np.int64)})
        found = ids.cast(pl.String).rename("id").to_frame().join(table, on="id", how="left", maintain_order="left")
        return found["code"].fill_null(-1).to_numpy().copy()

    def decode(self, codes: Sequence[int] | npt.NDArray[np.integer]) -> list[str | None]:
        """Outside ids; None for a negative code."""
        return self.decode_series(np.asarray(codes, dtype=np.int64)).to_list()

    def decode_series(self, codes: Int64) -> pl.Series:
        """(E,) outside ids as a polars Series; null for a negative code."""
        where = pl.Series(codes)
        return self.ids.gather(where.set(where < 0, None))
