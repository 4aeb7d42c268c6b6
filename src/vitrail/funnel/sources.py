"""Sources: what retrieves candidates for a batch of requests. A fitted system searched exactly or through an index, or a date of the catalogue.

Filters are part of the search: a source gives k items that may be shown, not k of which some may not. Letters: B requests, k items, N items.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from vitrail.data.batches import Sets
from vitrail.errors import DataError, SettingError, did_you_mean
from vitrail.evaluation.ranking import REMOVED, top_k
from vitrail.funnel.fuse import Found
from vitrail.funnel.recommender import Recommender

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ask:
    """A batch of requests."""

    histories: Sets
    """B histories"""
    allowed: Tensor | None = None
    """(N,) bool: what filters leave; none: everything"""
    seen: Sets | None = None
    """items of each request that are not shown again"""
    now: Int64 | None = None
    """(B,) microseconds since 1970; none: nothing in the catalogue is in the future"""

    def __len__(self) -> int:
        return len(self.histories)

    def mask(self, scores: Tensor) -> Tensor:
        """Scores (B, N) with -inf at what may not be shown; a copy where anything is masked."""
        if self.allowed is not None:
            scores = scores.masked_fill(~self.allowed, REMOVED)
        if self.seen is not None and len(self.seen.items):
            scores = scores.clone() if self.allowed is None else scores
            rows = torch.repeat_interleave(torch.arange(len(self.seen)), self.seen.lengths)
            scores[rows, self.seen.items] = REMOVED
        return scores


class Source(Protocol):
    """Gives candidates."""

    name: str
    personal: bool
    """whether its answer depends on who asks"""

    def search(self, ask: Ask, k: int) -> Found:
        """The k best of each request that may be shown."""
        ...


class SystemSource:
    """A fitted system, over the whole catalogue. Rows that a personal system cannot answer are empty."""

    def __init__(self, name: str, recommender: Recommender, ties: Tensor, *, above: float | None = None) -> None:
        """`above`: items that score no more than this are no candidates."""
        self.name, self.recommender, self.above = name, recommender, above
        self.personal = bool(recommender.model.can.personal)
        self._ties = ties

    def search(self, ask: Ask, k: int) -> Found:
        """Exact, ties by hash."""
        scores, own = self.recommender.score(ask.histories)
        scores = scores.cpu()
        if self.personal and not bool(own.all()):
            scores = scores.masked_fill(~own.cpu()[:, None], REMOVED)
        if self.above is not None:
            scores = scores.masked_fill(scores <= self.above, REMOVED)
        codes, values = top_k(ask.mask(scores).contiguous(), min(k, scores.shape[1]), self._ties)
        return Found(self.name, codes.numpy(), values.numpy())


class IndexSource:
    """A fitted system whose item vectors are in an index; its query vectors are searched there."""

    def __init__(self, name: str, recommender: Recommender, path: str | Path) -> None:
        """Raises SettingError where the system has no vectors, ArtifactError where the index is damaged or absent."""
        self.name, self.recommender, self.personal = name, recommender, True
        if not hasattr(recommender.model, "query_vectors"):
            raise SettingError(f'The source "{name}" names an index, and its system "{recommender.name}" has no query vectors: leave index out.')
        try:
            from vitrail.index.store import open_index  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            raise SettingError(f'The source "{name}" names an index, and this installation has none: leave index out, or install vitrail[index].') from None
        self.index: Any = open_index(path)

    def search(self, ask: Ask, k: int) -> Found:
        """As many more are fetched as a request has seen items, so that k are left."""
        from vitrail.index.base import Filter  # type: ignore[import-untyped,import-not-found,unused-ignore]

        model: Any = self.recommender.model
        own = model.answerable(ask.histories).cpu().numpy()
        more = 0 if ask.seen is None or not len(ask.seen) else int(ask.seen.lengths.max())
        ids = self.recommender.item_ids
        kept = None if ask.allowed is None else Filter(ids=ids.ids.filter(pl.Series(ask.allowed.numpy())).to_list())
        hits = self.index.search(model.query_vectors(ask.histories).cpu().numpy(), k + more, kept)
        codes = ids.encode(hits.ids.ravel().tolist()).reshape(hits.ids.shape)
        codes[~own] = -1
        if ask.seen is not None:
            keys = np.repeat(np.arange(len(ask)), ask.seen.lengths.numpy()) * len(ids) + ask.seen.items.numpy()
            codes[np.isin(np.arange(len(ask))[:, None] * len(ids) + codes, keys) & (codes >= 0)] = -1
        order = np.argsort(codes < 0, axis=1, kind="stable")[:, :k]
        return Found(self.name, np.take_along_axis(codes, order, axis=1), np.take_along_axis(hits.scores, order, axis=1))


class DateSource:
    """The newest items by a date of the catalogue, none of them from after the request; reaches items without an event."""

    personal = False

    def __init__(self, name: str, items: pl.DataFrame, column: str, ties: Tensor) -> None:
        """Raises DataError where the items have no such date."""
        if column not in items.columns:
            raise DataError(f'The source "{name}" takes dates from "{column}", which is no attribute of the items.{did_you_mean(column, items.columns)}')
        if items.schema[column] not in (pl.Date, pl.Datetime):
            raise DataError(f'The source "{name}" takes dates from "{column}", which holds {items.schema[column]}: name an attribute of the kind date.')
        self.name, self._ties = name, ties
        known = items[column].dt.epoch("us")
        self._known = torch.from_numpy(known.is_not_null().to_numpy().copy())
        self._when = torch.from_numpy(known.fill_null(0).to_numpy().copy())
        _, place = torch.unique(self._when, return_inverse=True)
        self._scores = place.float().masked_fill(~self._known, REMOVED)

    def search(self, ask: Ask, k: int) -> Found:
        """Items of the future are masked, each request by its own time."""
        scores = self._scores.expand(len(ask), -1)
        if ask.now is not None:
            scores = scores.masked_fill(self._when[None, :] > torch.from_numpy(ask.now)[:, None], REMOVED)
        codes, values = top_k(ask.mask(scores).contiguous(), min(k, scores.shape[1]), self._ties)
        return Found(self.name, codes.numpy(), values.numpy())
