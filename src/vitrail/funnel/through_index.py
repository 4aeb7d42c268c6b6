"""Answers of a dense system through an index over its item vectors: the filter is part of the search, seen items are fetched
beyond k and dropped. An index over the first numbers of nested vectors finds a shortlist, which the whole vectors rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vitrail.data.batches import Sets
from vitrail.errors import SettingError
from vitrail.evaluation.ranking import REMOVED
from vitrail.files import fingerprint
from vitrail.index.base import Filter, Index

if TYPE_CHECKING:
    from vitrail.funnel.recommender import Recommender
    from vitrail.index.build import Kind
    from vitrail.index.exact import ExactIndex, Number

SHORTLIST = 200
"""Items, at least, that a narrow index finds for the full vectors to rank."""
ASKED = 1000
"""Known users whose vectors tune an index and measure its recall."""


def source_of(recommender: Recommender) -> str | None:
    """What names the vectors of a saved system: the checksums of its files; none where it was not saved."""
    files = recommender.info.get("files")
    return None if files is None else fingerprint(files)


class ThroughIndex:
    """One recommender and one index of its items."""

    def __init__(self, recommender: Recommender, index: Index) -> None:
        """Raises SettingError where the two do not belong together."""
        vectors = recommender.model.item_vectors()
        if vectors is None:
            raise SettingError(f'The scores of "{recommender.name}" are no inner products, so no index can search them: ask it without one.')
        told = index.stats()
        self.narrow = index.dim < vectors.shape[1] and bool(recommender.model.widths) and recommender.model.prefix is None
        """a shortlist by the first numbers of each vector, ranked by all of them"""
        if index.metric != "ip" or (index.dim != vectors.shape[1] and not self.narrow):
            raise SettingError(
                f'The index is {index.metric} over {index.dim} numbers, and "{recommender.name}" needs ip over {vectors.shape[1]}: build it from this run.'
            )
        if told.get("source") and source_of(recommender) and told["source"] != source_of(recommender):
            raise SettingError("The index was built from the vectors of another fit: build it again with `vitrail index build RUN`.")
        self.recommender, self.index = recommender, index
        self._masks: dict[str, tuple[Any, Filter]] = {}

    def find(self, questions: Sets, k: int, seen: Sets | None, condition: str | None) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (B, K), values (B, K), and (B,) bool: answered by the system itself; the other rows hold the popular items."""
        r = self.recommender
        own = r.model.answerable(questions).cpu()
        width = min(k, len(r.item_ids))
        codes, values = torch.full((len(questions), max(width, 0)), -1), torch.full((len(questions), max(width, 0)), REMOVED)
        allowed = r._allowed(condition) if condition else None  # refuses a filter that leaves nothing, as it does without an index
        if not bool(own.all()):
            rows = (~own).nonzero().flatten()
            codes[rows], values[rows] = r._best(r.popularity.expand(len(rows), -1), k, condition, None if seen is None else _part(seen, rows))
        if bool(own.any()):
            rows = own.nonzero().flatten()
            asked = questions if len(rows) == len(questions) else _part(questions, rows)
            codes[rows], values[rows] = self._search(asked, k, width, None if seen is None else asked, condition, allowed)
        return codes, values, own

    def _search(self, asked: Sets, k: int, width: int, seen: Sets | None, condition: str | None, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
        r = self.recommender
        if k < 1:
            raise SettingError(f"k is {k}: ask for at least 1 item.")
        queries = r.model.query_vectors(asked)
        assert queries is not None
        most = int(seen.lengths.max()) if seen is not None and len(seen.items) else 0
        queries = queries.cpu()
        wanted = min(max(width + most, SHORTLIST) if self.narrow else width + most, max(len(r.item_ids), 1))
        short = r.model.finish(queries[:, : self.index.dim]) if self.narrow else queries  # type: ignore[operator]
        passes = None if allowed is None else self._filter(condition, allowed)
        least = wanted
        while True:
            hits = self.index.search(short, wanted, passes)
            found = torch.from_numpy(r.item_ids.encode(hits.ids.ravel().tolist()).reshape(hits.ids.shape))
            # items that the index gained after the fit stand in the places of known ones
            strangers = torch.from_numpy(np.isfinite(hits.scores)) & (found < 0)
            if wanted >= len(self.index) or not bool((strangers.any(1) & ((found >= 0).sum(1) < least)).any()):
                break
            wanted = min(2 * wanted, len(self.index))
        scores = torch.from_numpy(hits.scores)
        if self.narrow:
            table = r.model.item_vectors()
            assert table is not None
            scores = torch.einsum("bd,bkd->bk", queries, table.cpu()[found.clamp(min=0)]).masked_fill(found < 0, REMOVED)
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            found = found.gather(1, order)
        keep = found >= 0
        if seen is not None and most:
            mine = torch.repeat_interleave(torch.arange(len(seen)), seen.lengths) * len(r.item_ids) + seen.items
            keep &= ~torch.isin(found + torch.arange(len(found))[:, None] * len(r.item_ids), mine)
        # what is kept moves to the left, in its order
        place = torch.where(keep, 0, 1).argsort(dim=1, stable=True)[:, :width]
        kept = keep.gather(1, place)
        return found.gather(1, place).masked_fill(~kept, -1), scores.gather(1, place).masked_fill(~kept, REMOVED)

    def _filter(self, condition: str | None, allowed: Tensor) -> Filter:
        """The condition, tested on the catalogue of the system, as ids of the index."""
        from vitrail.index.exact import ExactIndex

        assert condition is not None
        if not isinstance(self.index, ExactIndex):
            return Filter(ids=self.recommender.item_ids.ids.filter(allowed.numpy()).to_list())
        ids = self.index.ids
        known = self._masks.get(condition)
        if known is None or known[0] is not ids:
            codes = self.recommender.item_ids.encode(ids)
            known = (ids, Filter(mask=np.append(allowed.numpy(), False)[codes]))
            if len(self._masks) >= 64:
                self._masks.clear()
            self._masks[condition] = known
        return known[1]


def _part(sets: Sets, rows: Tensor) -> Sets:
    """The questions at `rows` alone."""
    lengths = sets.lengths[rows]
    indptr = torch.cat([torch.zeros(1, dtype=lengths.dtype), lengths.cumsum(0)])
    place = torch.arange(int(indptr[-1])) + torch.repeat_interleave(sets.indptr[rows] - indptr[:-1], lengths)
    return Sets(
        sets.users[rows],
        indptr,
        sets.items[place],
        None if sets.times is None else sets.times[place],
        None if sets.weights is None else sets.weights[place],
    )


@torch.inference_mode()
def index_of(
    recommender: Recommender, *, kind: Kind = "auto", recall: float = 0.95, k: int = 10, dtype: Number = "float32", say: Callable[[str], None] = lambda _: None
) -> ExactIndex:
    """An index over the item vectors of a dense system, tuned on the vectors of its known users, with the catalogue as attributes.

    Raises SettingError where the system is not dense, or the named kind cannot reach the recall.
    """
    from vitrail.index.build import build_index

    vectors = recommender.model.item_vectors()
    if vectors is None:
        raise SettingError(f'The scores of "{recommender.name}" are no inner products, so there is nothing to index: `vitrail systems` lists who can.')
    users = np.sort(np.random.default_rng(0).permutation(len(recommender.user_ids))[:ASKED])
    histories = recommender.known.histories(users)
    able = recommender.model.answerable(histories)
    queries = recommender.model.query_vectors(_part(histories, able.cpu().nonzero().flatten()))
    assert queries is not None
    return build_index(
        recommender.item_ids.ids.to_list(),
        vectors.cpu(),
        kind=kind,
        recall=recall,
        k=k,
        dtype=dtype,
        attributes=recommender.items,
        queries=queries.cpu() if len(queries) else None,
        source=source_of(recommender),
        say=say,
    )
