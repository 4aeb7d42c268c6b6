"""Content vectors beside the tables: alignment by ids, masks, mixing refused, damage found, and no move of the fingerprint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.schema import DatasetInfo
from vitrail.data.vectors import read_info, write_vectors
from vitrail.errors import ArtifactError, DataError, SettingError

IDS = [f"i{n}" for n in range(7)]


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    events = pl.DataFrame({"user": ["u"] * 7, "item": IDS, "position": range(7)})
    return write_dataset(tmp_path / "d", DatasetInfo(name="d", order="position"), events)


def rows(n: int = 7, dim: int = 3, dtype: type = np.float32) -> np.ndarray:
    return np.arange(n * dim).reshape(n, dim).astype(dtype) + 1


def test_any_order_of_rows_is_aligned_by_ids(data: Dataset) -> None:
    before = data.fingerprint
    info = write_vectors(data.path, "text", rows(), IDS, encoder="hand", revision="1", kind="text", columns=["title"])
    found = Dataset(data.path).vectors("text")
    for n, item in enumerate(IDS):
        assert found.values[data.item_ids.code(item)].tolist() == rows()[n].tolist()
    assert found.mask.all() and found.values.dtype == np.float32 and found.info == info
    assert Dataset(data.path).fingerprint == before and data.vector_names() == ["text"]
    data.verify()


def test_code_order_is_memory_mapped_and_half_floats_are_read(data: Dataset) -> None:
    in_order = data.item_ids.ids.to_list()
    write_vectors(data.path, "a", rows(), in_order, encoder="hand")
    write_vectors(data.path, "b", rows(dtype=np.float16), in_order, encoder="hand")
    assert isinstance(data.vectors("a").values, np.memmap)
    assert not isinstance(data.vectors("b").values, np.memmap)
    assert np.array_equal(data.vectors("a").values, data.vectors("b").values)
    assert data.vector_names() == ["a", "b"]


def test_absent_and_strange_items(data: Dataset) -> None:
    write_vectors(data.path, "image", rows(3), ["i1", "not an item", "i4"], encoder="hand")
    found = data.vectors("image")
    assert data.item_ids.decode(np.flatnonzero(found.mask)) == [i for i in data.item_ids.ids if i in ("i1", "i4")]
    assert not found.values[~found.mask].any()
    write_vectors(data.path, "other", rows(1), ["not an item"], encoder="hand")
    with pytest.raises(DataError, match="names none of the items"):
        data.vectors("other")


def test_two_encoders_never_share_a_name(data: Dataset) -> None:
    write_vectors(data.path, "text", rows(), IDS, encoder="a", revision="1")
    for encoder, revision, dim in (("b", "1", 3), ("a", "2", 3), ("a", "1", 4)):
        with pytest.raises(DataError, match=r"another encoder.*a \(1, 3 wide\)"):
            write_vectors(data.path, "text", rows(dim=dim), IDS, encoder=encoder, revision=revision)
    write_vectors(data.path, "text", rows() + 1, IDS, encoder="a", revision="1")
    info = write_vectors(data.path, "text", rows(dim=4), IDS, encoder="b", overwrite=True)
    assert data.vectors("text").values.shape == (7, 4) and read_info(data.path, "text") == info


@pytest.mark.parametrize(
    ("values", "ids", "sentence"),
    [
        (rows(6), IDS, "a row an id"),
        (rows()[0], IDS, "a row an id"),
        (rows(), [*IDS[:6], "i0"], "more than once"),
        (np.where(rows() == 5, np.nan, rows()), IDS, "not finite, first for the item i1"),
    ],
)
def test_refusals(data: Dataset, values: np.ndarray, ids: list[str], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        write_vectors(data.path, "text", values, ids, encoder="hand")
    assert data.vector_names() == []


def test_names_are_words(data: Dataset) -> None:
    with pytest.raises(SettingError, match="no name for vectors"):
        write_vectors(data.path, "../x", rows(), IDS, encoder="hand")
    with pytest.raises(DataError, match="content encode"):
        data.vectors("text")
    write_vectors(data.path, "text", rows(), IDS, encoder="hand")
    with pytest.raises(DataError, match='Did you mean "text"'):
        data.vectors("texts")


def test_damage_is_found(data: Dataset) -> None:
    folder = data.path / "vectors"
    write_vectors(data.path, "text", rows(), IDS, encoder="hand")
    good = (folder / "text.npy").read_bytes()
    (folder / "text.npy").write_bytes(good[:-4] + b"\0\0\0\0")
    with pytest.raises(ArtifactError, match=r"text\.npy does not have its recorded checksum"):
        data.verify()
    np.save(folder / "text.npy", rows(6))
    with pytest.raises(ArtifactError, match="does not hold 7 rows of 3"):
        data.vectors("text")
    (folder / "text.npy").write_bytes(b"no array")
    with pytest.raises(ArtifactError, match="missing or damaged"):
        data.vectors("text")
    (folder / "text.json").write_text('{"encoder": 1}')
    with pytest.raises(ArtifactError, match="does not say what made"):
        data.vectors("text")
