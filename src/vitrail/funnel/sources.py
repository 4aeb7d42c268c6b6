"""Sources: what retrieves candidates for a batch of requests. A fitted system searched exactly or through an index, or a date of the catalogue.

Filters are part of the search: a source gives k items that may be shown, not k of which some may not. Letters: B requests, k items, N items.
"""

from __future__ import annotations

from copy import copy
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
from vitrail.funnel.recommender import BLOCK, Recommender

Int64 = npt.NDArray[np.int64]


MOST = 256
"""Requests asked at once."""


def block_for(n_items: int) -> int:
    """Requests whose scores over the whole catalogue are held at once."""
    return max(1, min(MOST, BLOCK // (4 * max(n_items, 1))))


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
        self._orders: dict[int, tuple[Tensor | None, Int64, npt.NDArray[np.float32]]] = {}

    @torch.inference_mode()
    def search(self, ask: Ask, k: int) -> Found:
        """Exact, ties by hash."""
        if not self.personal:
            return self._same_for_all(ask, k)
        scores, own = self.recommender.score(ask.histories)
        scores = scores.cpu()
        if self.personal and not bool(own.all()):
            scores = scores.masked_fill(~own.cpu()[:, None], REMOVED)
        if self.above is not None:
            scores = scores.masked_fill(scores <= self.above, REMOVED)
        codes, values = top_k(ask.mask(scores).contiguous(), min(k, scores.shape[1]), self._ties)
        return Found(self.name, codes.numpy(), values.numpy())

    def _same_for_all(self, ask: Ask, k: int) -> Found:
        """One order serves everybody: its head, less what each has seen."""
        order, worth = self._order(ask.allowed)
        seen = ask.seen if ask.seen is not None and len(ask.seen.items) else None
        most = 0 if seen is None else int(seen.lengths.max())
        head = np.broadcast_to(order[: k + most], (len(ask), min(k + most, len(order))))
        values = np.broadcast_to(worth[: k + most], head.shape)
        if seen is not None:
            n = len(self.recommender.item_ids)
            keys = np.repeat(np.arange(len(ask)), seen.lengths.numpy()) * n + seen.items.numpy()
            gone = np.isin(np.arange(len(ask))[:, None] * n + head, keys)
            place = np.argsort(gone, axis=1, kind="stable")
            gone = np.take_along_axis(gone, place, axis=1)
            head = np.where(gone, -1, np.take_along_axis(head, place, axis=1))
            values = np.where(gone, np.float32(REMOVED), np.take_along_axis(values, place, axis=1))
        return Found(self.name, head[:, :k], values[:, :k])

    def _order(self, allowed: Tensor | None) -> tuple[Int64, npt.NDArray[np.float32]]:
        """The items that may be shown, best first, and their scores; kept for the filters asked lately."""
        known = self._orders.get(id(allowed))
        if known is None or known[0] is not allowed:
            nobody = Sets(torch.tensor([-1]), torch.tensor([0, 0]), torch.empty(0, dtype=torch.int64))
            scores = Ask(nobody, allowed).mask(self.recommender.score(nobody)[0].cpu().float())[0].numpy()
            order = np.lexsort([self._ties.numpy(), -scores])
            order = order[(scores[order] > (REMOVED if self.above is None else self.above))]
            if len(self._orders) >= 64:
                self._orders.clear()
            known = self._orders[id(allowed)] = (allowed, order, scores[order])
        return known[1], known[2]


class Elder:
    """A source that knows the first items of a catalogue alone."""

    def __init__(self, source: Source, count: int) -> None:
        """`count`: items it knows."""
        self.name, self.personal, self.source, self._count = source.name, source.personal, source, count
        self._cut: tuple[Tensor, Tensor] | None = None

    def search(self, ask: Ask, k: int) -> Found:
        """What the source finds among the items it knows, by histories without the others."""
        seen = None if ask.seen is None else ask.seen.before(self._count)
        return self.source.search(Ask(ask.histories.before(self._count), self._allowed(ask.allowed), seen, ask.now), k)

    def _allowed(self, allowed: Tensor | None) -> Tensor | None:
        """One filter is one tensor: a source keeps what it worked out for it."""
        if allowed is None:
            return None
        if self._cut is None or self._cut[0] is not allowed:
            self._cut = (allowed, allowed[: self._count])
        return self._cut[1]


class IndexSource:
    """A fitted system whose item vectors are in an index; its query vectors are searched there."""

    def __init__(self, name: str, recommender: Recommender, path: str | Path) -> None:
        """Raises SettingError where the system has no vectors, ArtifactError where the index is damaged or absent."""
        self.name, self.recommender, self.personal = name, recommender, True
        model: Any = recommender.model
        vectors = model.item_vectors() if hasattr(model, "item_vectors") else None
        if vectors is None:
            raise SettingError(f'The source "{name}" names an index, and the scores of "{recommender.name}" are no inner products: leave index out.')
        try:
            from vitrail.index.store import open_index  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            raise SettingError(f'The source "{name}" names an index, and this installation has none: leave index out, or install vitrail[index].') from None
        self.index: Any = open_index(path)
        if self.index.metric != "ip" or self.index.dim != vectors.shape[1]:
            told = f"{self.index.metric} over {self.index.dim} numbers, and its system needs ip over {vectors.shape[1]}"
            raise SettingError(f'The index of the source "{name}" is {told}: build it from the run of that system.')
        self._held: Any = None

    def search(self, ask: Ask, k: int) -> Found:
        """As many more are fetched as a request has seen items, so that k are left."""
        model: Any = self.recommender.model
        ids = self.recommender.item_ids
        codes, scores = np.full((len(ask), k), -1, dtype=np.int64), np.full((len(ask), k), REMOVED, dtype=np.float32)
        own = np.flatnonzero(model.answerable(ask.histories).cpu().numpy())
        if not len(own):
            return Found(self.name, codes, scores)
        asked = ask.histories.take(torch.from_numpy(own))
        seen = None if ask.seen is None else ask.seen.take(torch.from_numpy(own))
        more = 0 if seen is None else int(seen.lengths.max())
        hits = self.index.search(model.query_vectors(asked).cpu().numpy(), k + more, None if ask.allowed is None else self._filter(ask.allowed))
        found = ids.encode(hits.ids.ravel().tolist()).reshape(hits.ids.shape)
        if seen is not None:
            keys = np.repeat(np.arange(len(own)), seen.lengths.numpy()) * len(ids) + seen.items.numpy()
            found[np.isin(np.arange(len(own))[:, None] * len(ids) + found, keys) & (found >= 0)] = -1
        order = np.argsort(found < 0, axis=1, kind="stable")[:, :k]
        width = order.shape[1]
        codes[own, :width] = np.take_along_axis(found, order, axis=1)
        scores[own, :width] = np.where(codes[own, :width] >= 0, np.take_along_axis(hits.scores, order, axis=1), REMOVED)
        return Found(self.name, codes, scores)

    def over(self, recommender: Recommender) -> IndexSource:
        """The same index, which has the vectors of the longer catalogue of `recommender` by now."""
        other = copy(self)
        other.recommender, other._held = recommender, None
        return other

    def _filter(self, allowed: Tensor) -> Any:
        """What is allowed, in the order of the index where it tells its ids, else as ids."""
        from vitrail.index.base import Filter  # type: ignore[import-untyped,import-not-found,unused-ignore]

        ids, held = self.recommender.item_ids, getattr(self.index, "ids", None)
        if held is None:
            return Filter(ids=ids.ids.filter(pl.Series(allowed.numpy())).to_list())
        if held is not self._held:
            self._held, self._places = held, ids.encode(list(held))
        return Filter(mask=np.append(allowed.numpy(), False)[self._places])


class DateSource:
    """The newest items by a date of the catalogue, none of them from after the request; reaches items without an event."""

    personal = False

    def __init__(self, name: str, items: pl.DataFrame, column: str, ties: Tensor) -> None:
        """Raises DataError where the items have no such date."""
        if column not in items.columns:
            raise DataError(f'The source "{name}" takes dates from "{column}", which is no attribute of the items.{did_you_mean(column, items.columns)}')
        if items.schema[column] not in (pl.Date, pl.Datetime):
            raise DataError(f'The source "{name}" takes dates from "{column}", which holds {items.schema[column]}: name an attribute of the kind date.')
        self.name, self.column, self._ties = name, column, ties
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
