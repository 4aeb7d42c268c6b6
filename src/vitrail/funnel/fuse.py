"""Several sources made one list: weighted reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009; card retrieval/bm25_rrf), or a weighted
sum of scores on one scale. Each candidate keeps the rank and the score each source gave it.

A batch of requests is one sort. Letters: B requests, k items a source gives, S sources, K candidates kept, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from vitrail.config import PositiveFloat, PositiveInt, Settings
from vitrail.errors import SettingError

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


class Fusion(Settings):
    """How sources become one list."""

    method: Literal["rrf", "scores"] = "rrf"
    """rrf: the sum of weight / (constant + rank) over the sources that have an item; scores: of weight x score, scaled within the list of a source."""
    constant: PositiveFloat = 60.0
    """Of rrf: the greater, the less the first ranks stand out."""
    scale: Literal["minmax", "standard"] = "minmax"
    """Of scores: to [0, 1] within a list, or to mean 0 and deviation 1 and up from the lowest; an item that a list lacks counts 0 there."""
    k: PositiveInt = 200
    """Candidates that are kept."""


@dataclass(frozen=True)
class Found:
    """What a source found, best first."""

    name: str
    codes: Int64
    """(B, k) items, -1 where a list is short"""
    scores: npt.NDArray[np.floating]
    """(B, k) on the source's own scale"""


@dataclass(frozen=True)
class Fused:
    """Candidates, best first, with where they came from."""

    names: tuple[str, ...]
    """the S sources"""
    codes: Int64
    """(B, K) items, each once a row; -1 where there are fewer"""
    scores: Float64
    """(B, K) fused; -inf where there are fewer"""
    ranks: npt.NDArray[np.int32]
    """(B, K, S) rank from 1 in each source; 0 where it lacks the item"""
    values: npt.NDArray[np.float32]
    """(B, K, S) score in each source; NaN where it lacks the item"""

    def reordered(self, order: Int64) -> Fused:
        """The candidates at the places `order` (B, K')."""
        deep = order[:, :, None]
        codes, scores = np.take_along_axis(self.codes, order, axis=1), np.take_along_axis(self.scores, order, axis=1)
        return Fused(self.names, codes, scores, np.take_along_axis(self.ranks, deep, axis=1), np.take_along_axis(self.values, deep, axis=1))


def fuse(found: Sequence[Found], weights: Sequence[float], n_items: int, ties: Int64, settings: Fusion | None = None) -> Fused:
    """One list a request from the lists of S sources; equal scores are ordered by `ties` (N,), lower first.

    Raises SettingError where there is no source, or as many weights as sources are not given.
    """
    settings = settings or Fusion()
    if not found or len(found) != len(weights):
        raise SettingError(f"{len(found)} sources and {len(weights)} weights were given to fuse: give a source at least, and a weight for each.")
    b, s = len(found[0].codes), len(found)
    keys, owner, rank, value, worth = [], [], [], [], []
    for place, (one, weight) in enumerate(zip(found, weights, strict=True)):
        there = one.codes >= 0
        rows, places = np.nonzero(there)
        keys.append(rows * n_items + one.codes[there])
        owner.append(np.full(len(rows), place))
        rank.append(places + 1)
        value.append(one.scores[there])
        worth.append(weight * _worth(one, there, settings)[there])
    key, source = np.concatenate(keys), np.concatenate(owner)
    candidates, at = np.unique(key, return_inverse=True)
    score = np.bincount(at, weights=np.concatenate(worth), minlength=len(candidates))
    ranks, values = np.zeros((len(candidates), s), dtype=np.int32), np.full((len(candidates), s), np.nan, dtype=np.float32)
    ranks[at, source], values[at, source] = np.concatenate(rank), np.concatenate(value)
    row, code = candidates // n_items, candidates % n_items
    order = np.lexsort([ties[code], -score, row])
    row = row[order]
    column = np.arange(len(row)) - np.searchsorted(row, row)
    kept = column < settings.k
    row, column, order = row[kept], column[kept], order[kept]
    width = int(column.max(initial=-1)) + 1
    fused = Fused(
        tuple(one.name for one in found),
        np.full((b, width), -1, dtype=np.int64),
        np.full((b, width), -np.inf),
        np.zeros((b, width, s), dtype=np.int32),
        np.full((b, width, s), np.nan, dtype=np.float32),
    )
    fused.codes[row, column], fused.scores[row, column] = code[order], score[order]
    fused.ranks[row, column], fused.values[row, column] = ranks[order], values[order]
    return fused


def _worth(one: Found, there: npt.NDArray[np.bool_], settings: Fusion) -> Float64:
    """(B, k) what a place in the list of a source is worth, before its weight."""
    if settings.method == "rrf":
        return np.broadcast_to(1.0 / (settings.constant + np.arange(1, one.codes.shape[1] + 1)), one.codes.shape)
    scores = np.where(there, one.scores, np.nan).astype(np.float64)
    filled = np.where(there, scores, np.inf)
    low = filled.min(1, keepdims=True, initial=np.inf)
    n = np.maximum(there.sum(1, keepdims=True), 1)
    if settings.scale == "minmax":
        spread = np.where(there, scores, -np.inf).max(1, keepdims=True, initial=-np.inf) - low
    else:
        middle = np.where(there, scores, 0.0).sum(1, keepdims=True) / n
        spread = np.sqrt(np.where(there, (scores - middle) ** 2, 0.0).sum(1, keepdims=True) / n)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = (scores - low) / np.where(spread > 0, spread, np.inf)
    # the last of a list is still better than what the list lacks, and a list of equal scores says that all of it is
    return np.where(there, np.where(spread > 0, (scaled * n + 1) / (n + 1), 1.0), 0.0)
