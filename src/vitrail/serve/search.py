"""Items by text or picture, where the data set a model was fitted on has content vectors; and the vectors of items that come while it serves."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from vitrail.data.conditions import matches
from vitrail.data.dataset import Dataset
from vitrail.errors import DataError, VitrailError
from vitrail.evaluation.ranking import tie_ranks, top_k
from vitrail.funnel.catalogue import as_kind
from vitrail.serve.answerer import Answerer

KINDS = {"text": "text", "picture": "image"}
"""What is asked with, and the name of the vectors it is compared with."""


@dataclass(frozen=True)
class Opened:
    """Vectors of a data set and the encoder that made them."""

    encoder: Any
    dataset: Any
    found: Any


class ContentSearch:
    """Searches the content vectors of a model's data set; encoders are opened when they are first asked, and kept."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer
        self._opened: dict[str, Opened | None] = {}
        self._unit: dict[str, Any] = {}
        self._lock = threading.Lock()

    def over(self, answerer: Answerer) -> ContentSearch:
        """The same encoders and vectors for another state of the model."""
        other = copy(self)
        other.answerer = answerer
        return other

    def search(self, text: str | None, picture: bytes | None, k: int, *, filter: str | None = None) -> pl.DataFrame | None:
        """A table of item, rank, score, or none where there are no vectors of that kind.

        Raises DataError for a picture that cannot be read, a question that says nothing, and a filter that leaves nothing.
        """
        name = KINDS["text" if text is not None else "picture"]
        opened = self.opened(name)
        if opened is None:
            return None
        encoder, ids = opened.encoder, opened.dataset.item_ids
        if name not in self._unit:
            from vitrail.content.base import unit

            self._unit[name] = unit(opened.found.values), np.asarray(opened.found.mask)
        vectors, mask = self._unit[name]
        asked = encoder.encode_query([text]) if text is not None else encoder.encode([picture])
        if not asked.any():
            raise DataError("The picture cannot be read." if text is None else f'The text says nothing to the encoder "{encoder.name}": ask in other words.')
        if filter:
            items = self.answerer.items
            passing = items["item"].filter(matches(filter, items))
            mask = mask & ids.ids.is_in(passing.implode()).to_numpy()
        if not mask.any():
            raise DataError("No item with content passes the filter: loosen it.")
        scores = torch.from_numpy(vectors @ (asked[0] / np.linalg.norm(asked[0]))).masked_fill(~torch.from_numpy(mask), -torch.inf)
        codes, values = top_k(scores[None], min(k, int(mask.sum())), tie_ranks(ids.hashes, 0))
        rank = np.arange(1, codes.shape[1] + 1, dtype=np.int32)
        return pl.DataFrame({"item": ids.decode_series(codes[0].numpy()), "rank": rank, "score": values[0].numpy()})

    def encode(self, name: str, rows: Sequence[Mapping[str, Any]], pictures: Sequence[bytes | None]) -> npt.NDArray[np.float32] | None:
        """(n, D) what the vectors `name` would hold for items with the attributes `rows` and `pictures`, a row of zeros where that is nothing; none
        where nothing here could encode it. Raises DataError for a picture that cannot be read."""
        opened = self.opened(name)
        if opened is None:
            return None
        encoder, info = opened.encoder, opened.found.info
        values = np.zeros((len(rows), info.dim), dtype=np.float32)
        if info.kind == "image":
            contents: list[Any] = list(pictures)
        else:
            from vitrail.content.encode import compose

            schema = {column: self.answerer.items.schema.get(column, pl.String()) for column in info.columns}
            cells = [{column: as_kind(row.get(column), kind) for column, kind in schema.items()} for row in rows]
            contents = compose(pl.DataFrame(cells, schema=schema), info.columns)
        places = [place for place, content in enumerate(contents) if content not in (None, "")]
        if places:
            values[places] = encoder.encode([contents[place] for place in places])
        if info.kind == "image" and not values[places].any(axis=1).all():
            raise DataError("A picture cannot be read: send the bytes of a JPEG, PNG, WebP, GIF or BMP file.")
        return values

    def columns(self, name: str) -> list[str]:
        """The attributes that the vectors `name` are made of; none where nothing here could encode them."""
        opened = self.opened(name)
        return [] if opened is None else list(opened.found.info.columns)

    def opened(self, name: str) -> Opened | None:
        """The vectors `name` of the model's data and their encoder; none where there are none of that name, or none any more, or from elsewhere."""
        with self._lock:
            if name not in self._opened:
                self._opened[name] = self._open(name)
            return self._opened[name]

    def _open(self, name: str) -> Opened | None:
        path = (self.answerer.info.get("data") or {}).get("path")
        if path is None or not Path(path).is_dir():
            return None
        try:
            from vitrail.content.encode import compose, text_encoder
            from vitrail.content.image import load_image
            from vitrail.content.text import TextSettings

            dataset: Any = Dataset(path)
            if name not in dataset.vector_names():
                return None
            found = dataset.vectors(name)
        except (ImportError, VitrailError):
            return None
        info: Any = found.info
        if not info.columns:  # brought by the user: nothing here could encode a question
            return None
        encoder: Any
        if info.kind == "image":
            encoder = load_image(info.encoder, device=torch.device("cpu"))
        else:
            options = TextSettings.of(info.settings, where=f"the settings of the text vectors of {path}")
            encoder = text_encoder(info.encoder, compose(dataset.items, info.columns), options, torch.device("cpu"), "fp32")
        if encoder.revision != info.revision:
            raise DataError(f'The vectors of {path} were made by another version of "{info.encoder}": encode them again with --overwrite.')
        return Opened(encoder, dataset, found)
