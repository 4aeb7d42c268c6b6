"""Pictures of items, small: by item id, from what the data set names, never from a path of a request."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from vitrail.data.dataset import Dataset
from vitrail.data.pictures import small_jpeg
from vitrail.errors import VitrailError

SIZES = (96, 240, 480)
"""Pixels of the longer side that are made."""
LARGEST = 25 * 2**20
"""Bytes of a file that is opened."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MEMORY = 32 * 2**20
"""Bytes of small copies that are kept."""


class Pictures:
    """Small JPEG copies of the pictures of a data set, made when they are first asked for and kept while there is room."""

    def __init__(self, path: str | None) -> None:
        """`path`: the data-set folder; none, or one that is gone: there are no pictures."""
        self._files: dict[str, str] = {}
        self._root = Path()
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        try:
            dataset: Any = Dataset(path) if path is not None else None
            if dataset is None:
                return
            items = dataset.items
        except VitrailError:
            return
        column = next((name for name, kind in dataset.info.columns.get("items", {}).items() if kind == "image" and name in items.columns), None)
        if column is not None:
            self._root = dataset.image_root
            named = items.select("item", column).drop_nulls().filter(~items[column].drop_nulls().cast(str).str.contains(r"^https?://"))
            self._files = dict(named.iter_rows())

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, item: object) -> bool:
        return item in self._files

    def small(self, item: str, size: int) -> bytes | None:
        """The picture of `item` as a JPEG of at most `size` pixels; none where there is none that can be read."""
        name, key = self._files.get(item), (item, size)
        if name is None:
            return None
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = _shrunk(self._root / name, size)
        if made is not None:
            with self._lock:
                self._bytes += len(made) - len(self._kept.pop(key, b""))
                self._kept[key] = made
                while self._bytes > MEMORY:
                    self._bytes -= len(self._kept.popitem(last=False)[1])
        return made


def _shrunk(file: Path, size: int) -> bytes | None:
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:
            return None
    except OSError:
        return None
    return small_jpeg(file, size, quality=86, subsampling=0, formats=FORMATS)
