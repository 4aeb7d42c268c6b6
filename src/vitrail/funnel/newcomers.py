"""A funnel that takes in items nobody has met: the sources that answer by content find them, and the ranker scores them as items it has not seen.

Codes of old items stay and new ones come behind. A source that knows items from training alone goes on with the items it knows; a ranker reads the id and
the attributes of a new item as its fields read what training never had. Letters: B requests, N items before, K candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
import torch.nn.functional as F

from vitrail.errors import SettingError
from vitrail.funnel.grow import add_to_index, grown_model, longer_catalogue
from vitrail.funnel.recommender import Recommender
from vitrail.funnel.sources import DateSource, Elder, IndexSource, Source, SystemSource
from vitrail.funnel.stages import Ranking

if TYPE_CHECKING:
    from vitrail.funnel.funnel import Funnel


def content_of(sources: Sequence[Source]) -> dict[str, int]:
    """Names and widths of the vectors by which some of `sources` take items in."""
    return {name: width for source in reversed(sources) if (known := recommender_of(source)) is not None for name, width in known.content.items()}


def recommender_of(source: Source) -> Recommender | None:
    """The system of a source over the whole catalogue, where it has one."""
    found: Recommender | None = getattr(source, "recommender", None)
    return found


def with_items(funnel: Funnel, items: pl.DataFrame, vectors: Mapping[str, npt.NDArray[np.floating]]) -> Funnel:
    """A funnel whose catalogue ends with the rows of `items`; `vectors` name -> (n, D) as in `grow.with_items`. The old funnel is not changed.

    Raises SettingError where no source answers by content, or by content of that name, and DataError where ids or widths do not fit.
    """
    known = content_of(funnel.sources)
    if not known:
        raise SettingError(f'No source of the funnel "{funnel.name}" answers with items it never met: add one such as content-knn.')
    strangers = sorted(set(vectors) - set(known))
    if strangers:
        raise SettingError(f'The sources of the funnel "{funnel.name}" read no vectors "{strangers[0]}": they read {", ".join(known)}.')
    from vitrail.funnel.build import layout
    from vitrail.funnel.funnel import Funnel

    old = funnel.base
    catalogue = longer_catalogue(old, items)
    count, log = items.height, replace(old.known, n_items=len(catalogue))
    # what stands for the catalogue alone: its model is asked through the sources
    base = Recommender(old.model, old.given, log, F.pad(old.popularity, (0, count)), catalogue, old._users, old.info)
    sources = [_taking(source, items, vectors, base) for source in funnel.sources]
    ranking = None if funnel.ranking is None else _ranking(funnel.ranking, items, vectors)
    likeness = np.concatenate([funnel.layout.vectors, np.zeros((count, funnel.layout.vectors.shape[1]), dtype=np.float32)])
    return Funnel(funnel.file, sources, base, ranking, layout(funnel.file, base, likeness), funnel.policy, funnel.info, rng=funnel._rng)


def _taking(source: Source, items: pl.DataFrame, vectors: Mapping[str, npt.NDArray[np.floating]], base: Recommender) -> Source:
    """The source over the longer catalogue of `base`, as far as it can."""
    known = recommender_of(source)
    if isinstance(source, Elder):
        return source
    if isinstance(source, DateSource):
        return DateSource(source.name, base.items, source.column, base._ties)
    if known is None or not known.content:
        return Elder(source, len(base.item_ids) - items.height)
    grown = known.with_items(items, {name: values for name, values in vectors.items() if name in known.content})
    if isinstance(source, IndexSource):
        add_to_index(source.index, grown, items["item"].to_list())
        return source.over(grown)
    assert isinstance(source, SystemSource)
    return SystemSource(source.name, grown, base._ties, above=source.above)


def _ranking(ranking: Ranking, items: pl.DataFrame, vectors: Mapping[str, npt.NDArray[np.floating]]) -> Ranking:
    """The ranker over the longer catalogue; as it is where it knows items from training alone, and then new ones come last."""
    model, given = ranking.model, ranking.given
    if given is None or not (ranking.ranker or model.can.cold_items):
        return ranking
    grown, given = grown_model(model, given, items, {name: values for name, values in vectors.items() if name in model.sizes.vectors})
    with torch.no_grad():
        grown.prepare()
    return Ranking(grown, mix=ranking.mix, budget_ms=ranking.budget_ms, given=given)
