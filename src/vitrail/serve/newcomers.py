"""Items that come while a model serves: what they say and show becomes vectors, and a system that answers by content takes them in at once.

The vectors are kept with the change of the item, so that other processes, restarts and versions of the model take it in without encoding it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from vitrail.errors import SettingError, VitrailError, unknown
from vitrail.serve.answerer import Asker, Grows
from vitrail.serve.search import ContentSearch
from vitrail.serve.store.base import VECTORS, ItemChange

if TYPE_CHECKING:
    from vitrail.serve.models import Version

Content = Mapping[str, Mapping[str, Sequence[float]]]
"""Item -> name of vectors -> (D,)"""


def wanted(version: Version) -> Mapping[str, int]:
    """Names and widths of the vectors by which a version takes new items in."""
    return version.first.content if isinstance(version.first, Grows) else {}


def with_content(
    versions: Sequence[Version], changes: Sequence[ItemChange], before: Mapping[str, ItemChange], vectors: Content, pictures: Mapping[str, bytes]
) -> list[ItemChange]:
    """The changes with the content of items that some of `versions` (the current one first) never met: `vectors` as they were sent, else by the
    encoders of the version's data from the attributes, now and `before`, and `pictures`.

    Raises SettingError for vectors of a name or width that no version reads, DataError for a picture that cannot be read.
    """
    reads = {name: width for version in reversed(versions) for name, width in wanted(version).items()}
    for item, given in vectors.items():
        for name, numbers in given.items():
            if name not in reads:
                raise unknown("vectors of the model", name, reads) if reads else SettingError("The model takes no vectors: it knows items from training alone.")
            if len(numbers) != reads[name]:
                raise SettingError(f'Vectors "{name}" of item "{item}" have {len(numbers)} numbers, and {reads[name]} are wanted.')
    found: dict[str, dict[str, list[float]]] = {}
    for name, width in reads.items():
        for version in versions:
            fresh = [change for change in changes if not change.withdrawn and wanted(version).get(name) == width and _new_to(version, change.item)]
            if fresh and isinstance(version.searcher, ContentSearch):
                _encode(version.searcher, name, fresh, before, pictures, found)
                break
    made = []
    for change in changes:
        old = before[change.item].vectors if change.item in before else {}
        content = {**old, **found.get(change.item, {}), **{name: list(numbers) for name, numbers in vectors.get(change.item, {}).items()}}
        made.append(replace(change, attributes={**change.attributes, VECTORS: content}) if content and not change.withdrawn else change)
    return made


def _encode(
    searcher: ContentSearch, name: str, fresh: Sequence[ItemChange], before: Mapping[str, ItemChange], pictures: Mapping[str, bytes], found: dict[str, Any]
) -> None:
    """Fill in `found` the vectors `name` of items of which something that they are made of was said."""
    columns = set(searcher.columns(name))
    some = [change for change in fresh if change.item in pictures or columns & set(change.attributes)]
    if not some:
        return
    rows = [{**(before[change.item].told if change.item in before else {}), **change.told} for change in some]
    values = searcher.encode(name, rows, [pictures.get(change.item) for change in some])
    for change, row in zip(some, [] if values is None else values, strict=False):
        if row.any():
            found.setdefault(change.item, {})[name] = [float(value) for value in row]


def _new_to(version: Version, item: str) -> bool:
    return version.first.item_ids.code(item) < 0


def taking_in(version: Version, content: Content) -> Version:
    """The version with those items of `content` that its model can take in and that it was not trained on; itself where that changes nothing."""
    reads = wanted(version)
    if not reads:
        return version
    fits = {item: {n: v for n, v in given.items() if reads.get(n) == len(v)} for item, given in content.items() if _new_to(version, item)}
    fits = {item: given for item, given in fits.items() if given}
    # what another content was said of is made again; what is only new comes behind what is there
    again = any(fits.get(item) != given for item, given in version.met.items())
    base: Any = version.first if again else version.asker.answerer
    fresh = fits if again else {item: given for item, given in fits.items() if item not in version.met}
    if not fresh and not again:
        return version
    if fresh:
        vectors = {n: np.array([given.get(n, [0.0] * reads[n]) for given in fresh.values()], dtype=np.float32) for n in reads}
        try:
            base = base.with_items(pl.DataFrame({"item": list(fresh)}, schema={"item": pl.String}), vectors)
        except VitrailError:  # a model that cannot take them goes on with what it knows
            return version
    searcher = version.searcher.over(base) if isinstance(version.searcher, ContentSearch) else version.searcher
    return replace(version, asker=Asker(base), searcher=searcher, met=fits, loaded_from=version.first)
