"""MMRec's folders: the split of `x_label`, features aligned by item number; what does not fit is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitrail.data.ingest import IngestSettings, ingest, inspect
from vitrail.errors import DataError

EVENTS = [(0, 0, 0), (0, 1, 0), (0, 2, 1), (1, 3, 0), (1, 0, 0), (1, 4, 2), (2, 4, 0), (2, 3, 0), (2, 1, 0)]
TEXT = np.arange(20, dtype=np.float32).reshape(5, 4) + 1


def folder(home: Path, rows: list[tuple] = EVENTS, **features: np.ndarray) -> Path:
    home.mkdir()
    lines = ["userID\titemID\trating\ttimestamp\tx_label", *(f"{u}\t{i}\t5.0\t{1_390_000_000 + n * 1000}\t{part}" for n, (u, i, part) in enumerate(rows))]
    (home / "toys.inter").write_text("\n".join(lines) + "\n")
    for name, values in features.items():
        np.save(home / f"{name}_feat.npy", values)
    return home


def test_a_folder_is_read_as_it_is(tmp_path: Path) -> None:
    image = np.ones((5, 3))
    image[2] = 0.0
    home = folder(tmp_path / "toys", text=TEXT, image=image.astype(np.float16))
    (home / "user_graph_dict.npy").write_bytes(b"?")
    data = ingest([home], out=tmp_path / "data").dataset
    assert data.info.predefined and data.info.roles["part"] == "x_label" and data.info.order == "timestamp"
    assert dict(data.interactions["part"].value_counts().iter_rows()) == {"train": 7, "valid": 1, "test": 1}
    assert data.vector_names() == ["image", "text"]
    found = data.vectors("text")
    numbers = data.item_ids.ids.cast(int).to_numpy()
    np.testing.assert_array_equal(found.values, TEXT[numbers])
    assert isinstance(found.values, np.memmap) and found.mask.all() and found.info.kind == "text" and found.info.encoder == "import"
    found = data.vectors("image")
    assert np.load(data.path / "vectors" / "image.npy").dtype == np.float16 and found.info.kind == "image"
    assert numbers[~found.mask].tolist() == [2], "a row of zeros is no content"
    data.verify()


def test_it_is_shown_before_it_is_done(tmp_path: Path) -> None:
    home = folder(tmp_path / "toys", text=TEXT)
    notes = " ".join(inspect([home]).notes)
    assert 'gives the vectors "text"' in notes and "not read" not in notes


def test_other_numbers_are_no_parts(tmp_path: Path) -> None:
    home = folder(tmp_path / "toys", [*EVENTS, (1, 2, 3)])
    data = ingest([home], out=tmp_path / "data").dataset
    assert not data.info.predefined and data.info.columns["interactions"]["x_label"] == "number"


def test_rows_follow_items_that_a_core_leaves(tmp_path: Path) -> None:
    home = folder(tmp_path / "toys", text=TEXT.astype(np.int32))
    data = ingest([home], out=tmp_path / "data", settings=IngestSettings(min_item_events=2)).dataset
    numbers = data.item_ids.ids.cast(int).to_numpy()
    assert len(numbers) == 4 and 2 not in numbers
    np.testing.assert_array_equal(data.vectors("text").values, TEXT[numbers])


@pytest.mark.parametrize(
    ("rows", "features", "sentence"),
    [
        (EVENTS, {"text": TEXT[:4]}, "has 4 rows, and the items of the events are numbered 0 to 4: there must be 5 rows"),
        (EVENTS, {"text": TEXT, "image": np.ones((6, 2))}, "image_feat.npy has 6 rows"),
        ([*EVENTS, (2, "B00X", 0)], {"text": TEXT}, 'the item "B00X" has none'),
        (EVENTS, {"text": np.ones(5)}, "features are numbers"),
        (EVENTS, {"text": np.array([["a"] * 2] * 5)}, "features are numbers"),
        (EVENTS, {"text": np.full((5, 2), np.nan)}, "not finite"),
    ],
    ids=["too few", "one of two", "an id that is no number", "flat", "words", "not finite"],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path: Path, rows: list, features: dict, sentence: str) -> None:
    home = folder(tmp_path / "toys", rows, **features)
    with pytest.raises(DataError, match=sentence):
        ingest([home], out=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_no_array_is_refused_also_at_a_look(tmp_path: Path) -> None:
    home = folder(tmp_path / "toys")
    (home / "text_feat.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match="is no array of numpy"):
        inspect([home])
