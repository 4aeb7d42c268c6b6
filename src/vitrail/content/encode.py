"""Encode the texts and pictures of a data set into its vectors: only what is new, resumable, told in items a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from vitrail.content.base import ImageEncoder, TextEncoder
from vitrail.content.cache import Cache, digest
from vitrail.content.image import COLOUR_TEXTURE, load_image
from vitrail.content.text import MINILM, Pooling, Precision, TextSettings, TransformerText, load_text
from vitrail.content.tfidf import FITTED, TfIdf
from vitrail.data.dataset import Dataset
from vitrail.data.vectors import ContentKind, VectorsInfo, check_name, read_info, same_encoder, write_vectors
from vitrail.errors import DataError, SettingError, did_you_mean
from vitrail.files import fingerprint
from vitrail.train.progress import bar, silent

STEP = 128
"""Items encoded at a time on a processor: the bar moves after each."""
STEP_GPU = 1024


def encode(
    data: str | Path | Dataset,
    *,
    text: str | None = None,
    image: str | None = None,
    columns: Sequence[str] | None = None,
    name: str | None = None,
    prefix: str = "",
    query_prefix: str = "",
    pooling: Pooling = "mean",
    length: int = 256,
    precision: Precision = "auto",
    device: str = "auto",
    cache: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> list[dict[str, Any]]:
    """Write vectors of the items' texts (by the encoder `text`) and pictures (by `image`); neither named: of whatever the data set has, by the defaults.

    `text`: minilm, tfidf, words, or a transformers name or path, of which `prefix`, `query_prefix`, `pooling` and `length` (tokens) are settings; `image`:
    colour-texture, or a transformers name or path. `columns`: item attributes to read (none: all of the kind). `name`: of the vectors (none: text, image).
    `cache`: where vectors are kept by content (none: in the data set's cache). Returns a report each: name, encoder, revision, dim, kind, columns,
    items, without, unreadable, encoded, seconds, items_per_second. Raises DataError where there is nothing to read or another encoder's vectors have
    the name (`overwrite` replaces them), SettingError for an unknown column, ResourceError where an encoder is not at hand.
    """
    from vitrail.train.fit import pick_device

    dataset = data if isinstance(data, Dataset) else Dataset(data)
    texts, images = choose_columns(dataset, columns)
    if text is None and image is None:
        text, image = MINILM if texts else None, COLOUR_TEXTURE if images else None
        if text is None and image is None:
            raise DataError(f'Data set "{dataset.info.name}" has no texts and no pictures of items: name columns to read with --columns.')
    if name is not None and text is not None and image is not None:
        raise SettingError("One --name cannot hold both texts and pictures: encode them one after the other.")
    for kind, found, asked in (("text", texts, text), ("image", images, image)):
        if asked is not None and not found:
            what = "texts" if kind == "text" else "pictures"
            raise DataError(f'Data set "{dataset.info.name}" has no {what} of items to encode: name columns with --columns, or ingest with such a column.')
    options = TextSettings.of({"prefix": prefix, "query_prefix": query_prefix, "pooling": pooling, "length": length}, where="the flags")
    job = Job(dataset, pick_device(device), precision, cache, overwrite, quiet)
    reports = []
    if text is not None:
        reports.append(job.texts(check_name(name or "text"), text, texts, options))
    if image is not None:
        reports.append(job.pictures(check_name(name or "image"), image, images))
    return reports


def choose_columns(dataset: Dataset, columns: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The columns that are read as text and as pictures. Raises SettingError for an unknown one."""
    kinds = dataset.info.columns.get("items", {})
    if columns is None:
        return [c for c, kind in kinds.items() if kind == "text"], [c for c, kind in kinds.items() if kind == "image"]
    for column in columns:
        if column not in kinds:
            raise SettingError(f'Items have no attribute "{column}".{did_you_mean(column, kinds)}')
    return [c for c in columns if kinds[c] != "image"], [c for c in columns if kinds[c] == "image"]


def compose(items: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """(N,) one text an item: the filled cells of `columns` in their order; lists are joined by commas; "" where all are empty."""
    cells: list[pl.Series] = []
    for column in columns:
        series = items[column]
        if isinstance(series.dtype, pl.List):
            series = series.list.eval(pl.element().cast(pl.String)).list.join(", ")
        cells.append(series.cast(pl.String).str.strip_chars().fill_null("").alias(f"cell {len(cells)}"))
    joined = pl.concat_list([pl.when(pl.col(c.name) != "").then(pl.col(c.name)) for c in cells]).list.drop_nulls().list.join(" ")
    return pl.DataFrame(cells).select(text=joined)["text"].to_list()


def picture_files(dataset: Dataset, columns: Sequence[str]) -> list[Path | None]:
    """(N,) the picture of each item: the first of `columns` that names one; none where there is no such file."""
    found: list[Path | None] = [None] * len(dataset.items)
    for column in columns:
        for n, value in enumerate(dataset.items[column].to_list()):
            if found[n] is None and value:
                file = dataset.image_root / value
                found[n] = file if file.is_file() else None
    return found


def text_encoder(name: str, texts: Sequence[str], options: TextSettings, device: torch.device, precision: Precision) -> TextEncoder:
    """The encoder of that name; `texts` are the catalogue's, which `tfidf` and `words` are fitted on."""
    return FITTED[name]([text for text in texts if text]) if name in FITTED else load_text(name, options, device=device, precision=precision)


class Job:
    """One call of `encode`."""

    def __init__(self, dataset: Dataset, device: torch.device, precision: Precision, cache: str | Path | None, overwrite: bool, quiet: bool) -> None:
        self.dataset, self.device, self.precision = dataset, device, precision
        self.cache = Path(cache) if cache is not None else dataset.path / "cache" / "content"
        self.overwrite, self.quiet = overwrite, quiet

    def texts(self, name: str, encoder_name: str, columns: list[str], options: TextSettings) -> dict[str, Any]:
        """Encode texts, the longest first within a chunk; an item whose cells are all empty has none."""
        started = time.perf_counter()
        composed = compose(self.dataset.items, columns)
        encoder = text_encoder(encoder_name, composed, options, self.device, self.precision)
        self._mixing(name, encoder)
        has = np.array([bool(text) for text in composed], dtype=bool)
        contents = [text for text in composed if text]
        settings = options.model_dump() if isinstance(encoder, TransformerText) else {}
        # neighbours of one length share a batch, so chunks are cut from the sorted texts
        order = sorted(range(len(contents)), key=lambda n: -len(contents[n]))
        contents, places = [contents[n] for n in order], np.flatnonzero(has)[order]

        return self._write(name, encoder, "text", columns, settings, places, [digest(text) for text in contents], contents, started)

    def pictures(self, name: str, encoder_name: str, columns: list[str]) -> dict[str, Any]:
        """Encode pictures; an item without a file, or with one that cannot be read, has none."""
        started = time.perf_counter()
        encoder: ImageEncoder = load_image(encoder_name, device=self.device, precision=self.precision)
        self._mixing(name, encoder)
        files = picture_files(self.dataset, columns)
        places = np.array([n for n, file in enumerate(files) if file is not None], dtype=np.int64)
        contents = [file for file in files if file is not None]
        hashes = [digest(file.read_bytes()) for file in contents]
        return self._write(name, encoder, "image", columns, {}, places, hashes, contents, started)

    def _mixing(self, name: str, encoder: TextEncoder | ImageEncoder) -> None:
        """Before the work: vectors of another encoder are not replaced unasked. A fitted encoder is another one for every catalogue."""
        file = self.dataset.path / "vectors" / f"{name}.json"
        if file.exists() and not self.overwrite:
            info = read_info(self.dataset.path, name)
            if not (isinstance(encoder, TfIdf) and info.encoder == encoder.name):
                same_encoder(info, name, encoder.name, encoder.revision, encoder.dim)

    def _write(
        self, name: str, encoder: TextEncoder | ImageEncoder, kind: ContentKind, columns: list[str], settings: dict[str, Any], places: np.ndarray,
        hashes: list[bytes], contents: list[Any], started: float,
    ) -> dict[str, Any]:  # fmt: skip
        key = fingerprint([encoder.name, encoder.revision, encoder.dim, self.precision, str(self.device.type)])
        cache = Cache(self.cache / key, encoder.dim)
        loaded = time.perf_counter()
        there = len({h for h in hashes if h in cache})
        with (silent if self.quiet else bar(f"encode {name}", "items"))(len(set(hashes)), there) as advance:
            step = STEP_GPU if self.device.type == "cuda" else STEP
            encoded = cache.fill(hashes, contents, encoder.encode, step=step, advance=lambda count: advance(count, ""))
        seconds = time.perf_counter() - loaded
        values = cache.take(hashes)
        says = np.abs(values).sum(1) > 0 if len(values) else np.zeros(0, dtype=bool)
        order = np.argsort(places[says], kind="stable")
        info: VectorsInfo = write_vectors(
            self.dataset.path, name, values[says][order], self.dataset.items["item"].gather(places[says][order]), encoder=encoder.name,
            revision=encoder.revision, kind=kind, columns=columns, settings=settings, overwrite=True,
        )  # fmt: skip
        return {
            "name": name, **info.model_dump(mode="json", include={"encoder", "revision", "dim", "kind", "columns"}), "items": int(says.sum()),
            "without": len(self.dataset.items) - len(places), "unreadable": int((~says).sum()), "encoded": encoded,
            "seconds": round(time.perf_counter() - started, 3), "items_per_second": round(encoded / seconds, 1) if encoded else None,
        }  # fmt: skip
