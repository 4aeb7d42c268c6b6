"""Items by text or picture, where the data set a model was fitted on has content vectors."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from vitrail.data.conditions import matches
from vitrail.data.dataset import Dataset
from vitrail.errors import DataError, VitrailError
from vitrail.evaluation.ranking import tie_ranks, top_k
from vitrail.serve.answerer import Answerer

KINDS = {"text": "text", "picture": "image"}
"""What is asked with, and the name of the vectors it is compared with."""


class ContentSearch:
    """Searches the content vectors of a model's data set; encoders are opened when they are first asked, and kept."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer
        self._opened: dict[str, Any] = {}
        self._lock = threading.Lock()

    def search(self, text: str | None, picture: bytes | None, k: int, *, filter: str | None = None) -> pl.DataFrame | None:
        """A table of item, rank, score, or none where there are no vectors of that kind.

        Raises DataError for a picture that cannot be read, a question that says nothing, and a filter that leaves nothing.
        """
        kind = "text" if text is not None else "picture"
        with self._lock:
            if kind not in self._opened:
                self._opened[kind] = self._open(kind)
            opened = self._opened[kind]
        if opened is None:
            return None
        encoder, ids, vectors, mask = opened
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

    def _open(self, kind: str) -> tuple[Any, Any, Any, Any] | None:
        """Encoder, item ids, unit vectors (N, D) and mask (N,); none where the model's data have none, or have none any more."""
        path = (self.answerer.info.get("data") or {}).get("path")
        if path is None or not Path(path).is_dir():
            return None
        try:
            from vitrail.content.base import unit
            from vitrail.content.encode import compose, text_encoder
            from vitrail.content.image import load_image
            from vitrail.content.text import TextSettings

            dataset: Any = Dataset(path)
            if KINDS[kind] not in dataset.vector_names():
                return None
            found = dataset.vectors(KINDS[kind])
        except (ImportError, VitrailError):
            return None
        info: Any = found.info
        encoder: Any
        if kind == "text":
            options = TextSettings.of(info.settings, where=f"the settings of the text vectors of {path}")
            encoder = text_encoder(info.encoder, compose(dataset.items, info.columns), options, torch.device("cpu"), "fp32")
        else:
            encoder = load_image(info.encoder, device=torch.device("cpu"))
        if encoder.revision != info.revision:
            raise DataError(f'The vectors of {path} were made by another version of "{info.encoder}": encode them again with --overwrite.')
        return encoder, dataset.item_ids, unit(found.values), np.asarray(found.mask)
