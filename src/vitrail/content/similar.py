"""Text to item and picture to item: the nearest items by the vectors of their content, and never across two spaces."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import torch

from vitrail.content.base import Float32, unit
from vitrail.content.encode import compose, text_encoder
from vitrail.content.image import TransformerImage, load_image, open_picture
from vitrail.content.text import TextSettings
from vitrail.content.tfidf import FITTED
from vitrail.data.dataset import Dataset
from vitrail.data.vectors import VectorsInfo, read_info
from vitrail.errors import DataError, SettingError
from vitrail.evaluation.ranking import tie_ranks, top_k
from vitrail.train.fit import pick_device

E = TypeVar("E")


def similar(
    data: str | Path | Dataset, query: str | None = None, *, image: str | Path | None = None, vectors: str | None = None, k: int = 10, device: str = "auto"
) -> pl.DataFrame:
    """The k items nearest to a text or a picture by cosine: item, rank, score, and the columns the vectors were made of.

    `vectors`: their name (none: text for a text, image for a picture). Raises SettingError where not exactly one is asked or `k` is no number of
    items, DataError where the vectors are absent, of another space than the question, or made by another version of their encoder.
    """
    if (query is None) == (image is None):
        raise SettingError("Ask with a text or with a picture (--image FILE), one of the two.")
    if k < 1:
        raise SettingError(f"k is {k}: ask for at least 1 item.")
    dataset = data if isinstance(data, Dataset) else Dataset(data)
    name = vectors or ("text" if query is not None else "image")
    info = read_info(dataset.path, name)
    where = pick_device(device)
    asked = of_text(dataset, name, info, query, where) if query is not None else of_picture(name, info, image, where)  # type: ignore[arg-type]
    if not asked.any():
        raise DataError(f'The question says nothing to the encoder "{info.encoder}": ask in other words, or with another picture.')
    found = dataset.vectors(name)
    scores = torch.from_numpy(unit(found.values) @ unit(asked)[0]).masked_fill(~torch.from_numpy(found.mask), -torch.inf)
    codes, values = top_k(scores[None], min(k, int(found.mask.sum())), tie_ranks(dataset.item_ids.hashes, 0))
    rows = codes[0].numpy()
    table = pl.DataFrame(
        {"item": dataset.item_ids.decode_series(rows), "rank": np.arange(1, len(rows) + 1, dtype=np.int32), "score": values[0].numpy().astype(np.float32)}
    )
    shown = [column for column in info.columns if column in dataset.items.columns and column not in table.columns]
    return table.with_columns(dataset.items[column].gather(rows) for column in shown)


def of_text(dataset: Dataset, name: str, info: VectorsInfo, query: str, device: torch.device) -> Float32:
    """(1, D) of a text in the space of the vectors `name`."""
    if info.kind == "image":
        encoder = _same_revision(name, info, load_image(_known(name, info), device=device))
        if not isinstance(encoder, TransformerImage) or not encoder.joint:
            raise DataError(f'Vectors "{name}" are pictures by "{info.encoder}", which knows no texts: ask with --image FILE, or encode with a CLIP model.')
        return encoder.encode_text([query])
    texts = compose(dataset.items, info.columns) if info.encoder in FITTED else []
    settings = TextSettings.of(info.settings, where=f'the settings of vectors "{name}"')
    return _same_revision(name, info, text_encoder(_known(name, info), texts, settings, device, "fp32")).encode_query([query])


def of_picture(name: str, info: VectorsInfo, image: str | Path, device: torch.device) -> Float32:
    """(1, D) of a picture in the space of the vectors `name`."""
    if info.kind != "image":
        raise DataError(
            f'Vectors "{name}" are of {info.kind} by "{info.encoder}", and a picture is not of that space: name vectors of pictures with --vectors.'
        )
    if open_picture(image) is None:
        raise DataError(f"{image} is no picture that can be read.")
    return _same_revision(name, info, load_image(_known(name, info), device=device)).encode([image])


def _known(name: str, info: VectorsInfo) -> str:
    if info.encoder == "import":
        raise DataError(f'Vectors "{name}" were imported, so nothing here encodes a question in their space: ask vectors made by `vitrail content encode`.')
    return info.encoder


def _same_revision(name: str, info: VectorsInfo, encoder: E) -> E:
    if encoder.revision != info.revision:  # type: ignore[attr-defined]
        raise DataError(f'Vectors "{name}" were made by another version of "{info.encoder}", or the texts changed since: encode again with --overwrite.')
    return encoder
