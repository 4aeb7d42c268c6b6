"""The driver: what is read, what is new, what is missing, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from vitrail.content import cache as cache_module
from vitrail.content import encode as module
from vitrail.content.cache import Cache, digest
from vitrail.content.encode import choose_columns, compose, encode, picture_files
from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.schema import DatasetInfo
from vitrail.errors import DataError, SettingError

pytest.importorskip("skimage")
TITLES = ["red lipstick", "blue scarf", "red scarf", None, "blue lipstick", "  ", "red lipstick"]
COLOURS = [(220, 20, 30), (20, 30, 220), None, (220, 20, 30), None, (1, 1, 1), None]


def shop(path: Path, titles: list[str | None] = TITLES) -> Dataset:
    """Seven items, two without a title, two with the same, three without a picture and one whose picture is broken."""
    pictures = path.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    names = [f"i{n}" for n in range(len(titles))]
    for name, colour in zip(names, COLOURS, strict=False):
        if colour is not None:
            Image.new("RGB", (20, 20), colour).save(pictures / f"{name}.png")
    (pictures / "i5.png").write_bytes(b"broken")
    items = pl.DataFrame({
        "item": names, "title": titles, "tags": [["new", "sale"], None, *[["old"]] * (len(titles) - 2)],
        "picture": [f"{name}.png" if n != 4 else None for n, name in enumerate(names)], "price": [1.5] * len(titles),
    })  # fmt: skip
    info = DatasetInfo(
        name="shop", order="position", image_root=str(pictures),
        columns={"items": {"title": "text", "tags": "categories", "picture": "image", "price": "number"}},
    )  # fmt: skip
    events = pl.DataFrame({"user": ["u"] * len(names), "item": names, "position": range(len(names))})
    return write_dataset(path, info, events, items, overwrite=True)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return shop(tmp_path / "d")


def by_id(dataset: Dataset, name: str) -> dict[str, Any]:
    found = dataset.vectors(name)
    return {item: found.values[n] if found.mask[n] else None for n, item in enumerate(dataset.item_ids.ids)}


def test_texts_are_columns_in_order(data: Dataset) -> None:
    texts = dict(zip(data.items["item"], compose(data.items, ["tags", "title"]), strict=True))
    assert texts["i0"] == "new, sale red lipstick" and texts["i3"] == "old" and texts["i1"] == "blue scarf"
    assert choose_columns(data, None) == (["title"], ["picture"])
    assert choose_columns(data, ["price", "picture", "title"]) == (["price", "title"], ["picture"])
    files = dict(zip(data.items["item"], picture_files(data, ["picture"]), strict=True))
    assert files["i0"] is not None and files["i2"] is None and files["i4"] is None


def test_missing_is_a_mask_and_equal_contents_are_encoded_once(data: Dataset) -> None:
    text, image = encode(data, text="tfidf", image="colour-texture")
    assert (text["name"], text["items"], text["without"], text["encoded"]) == ("text", 5, 2, 4)
    assert (image["items"], image["without"], image["unreadable"]) == (3, 3, 1)
    titles, pictures = by_id(data, "text"), by_id(data, "image")
    assert titles["i3"] is None and titles["i5"] is None and np.array_equal(titles["i0"], titles["i6"])
    assert {item for item, value in pictures.items() if value is not None} == {"i0", "i1", "i3"}
    assert json.loads((data.path / "vectors" / "text.json").read_text())["columns"] == ["title"]


def test_only_what_changed_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    first = encode(shop(tmp_path / "d"), image="colour-texture", cache=kept)[0]
    assert first["encoded"] == 3 and first["items_per_second"] > 0  # two of the pictures are the same file, byte for byte
    again = encode(shop(tmp_path / "d"), image="colour-texture", cache=kept)[0]
    assert again["encoded"] == 0 and again["items_per_second"] is None and again["items"] == first["items"]
    Image.new("RGB", (20, 20), (9, 200, 9)).save(tmp_path / "pictures" / "i1.png")
    assert encode(tmp_path / "d", image="colour-texture", cache=kept)[0]["encoded"] == 1


def test_a_killed_job_goes_on(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "CHUNK", 2)
    original, calls = module.load_image("colour-texture").encode, []

    class Failing(type(module.load_image("colour-texture"))):  # type: ignore[misc]
        def encode(self, images: Any) -> Any:
            calls.append(len(images))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return original(images)

    with monkeypatch.context() as patch:
        patch.setattr(module, "load_image", lambda *_, **__: Failing())
        with pytest.raises(KeyboardInterrupt):
            encode(data, image="colour-texture")
    assert data.vector_names() == []
    assert encode(data, image="colour-texture")[0]["encoded"] == 1


def test_two_encoders_under_one_name_are_refused_before_the_work(data: Dataset) -> None:
    encode(data, text="tfidf", name="words")
    with pytest.raises(DataError, match=r'"words" are there from another encoder.*colour-texture'):
        encode(data, image="colour-texture", name="words")
    assert encode(data, image="colour-texture", name="words", overwrite=True)[0]["kind"] == "image"


def test_a_fitted_encoder_follows_its_catalogue(tmp_path: Path) -> None:
    encode(shop(tmp_path / "d"), text="tfidf")
    before = shop(tmp_path / "e", ["green hat", *TITLES[1:]])
    encode(before, text="tfidf")
    assert encode(before, text="tfidf", columns=["title", "tags"])[0]["encoded"] > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"columns": ["titel"]}, 'Did you mean "title"'),
        ({"text": "tfidf", "image": "colour-texture", "name": "x"}, "cannot hold both"),
        ({"text": "tfidf", "columns": ["picture"]}, "no texts of items"),
        ({"image": "colour-texture", "columns": ["title"]}, "no pictures of items"),
        ({"text": "tfidf", "name": "a/b"}, "no name for vectors"),
        ({"text": "tfidf", "length": 0}, "length"),
    ],
)
def test_refusals(data: Dataset, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises((DataError, SettingError), match=sentence):
        encode(data, **options)


def test_nothing_to_read(tmp_path: Path) -> None:
    events = pl.DataFrame({"user": ["u"], "item": ["i"], "position": [0]})
    bare = write_dataset(tmp_path / "bare", DatasetInfo(name="bare", order="position"), events)
    with pytest.raises(DataError, match="no texts and no pictures"):
        encode(bare)


class TestCache:
    def test_pieces_are_put_together_and_damage_is_forgotten(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache_module, "CHUNK", 2)
        monkeypatch.setattr(cache_module, "PARTS", 3)
        contents = [f"text {n}" for n in range(9)]
        keys = [digest(text) for text in contents]

        def lengths(part: list[str]) -> np.ndarray:
            return np.array([[len(text), float(text[5:])] for text in part], dtype=np.float32)

        told: list[int] = []
        store = Cache(tmp_path, 2)
        assert store.fill(keys, contents, lengths, step=1, advance=told.append) == 9 and sum(told) == 9
        assert len(list(tmp_path.glob("*.safetensors"))) == 1, "many pieces became one"
        again = Cache(tmp_path, 2)
        assert again.fill(keys, contents, lambda part: 1 / 0, step=1, advance=told.append) == 0
        assert again.take(keys)[:, 1].tolist() == list(range(9)) and keys[0] in again
        assert Cache(tmp_path, 3).places == {}, "another width is another encoder's"
        (tmp_path / "all.safetensors").write_bytes(b"damaged")
        assert Cache(tmp_path, 2).places == {}

    def test_two_processes_at_work(self, tmp_path: Path) -> None:
        def ones(part: list[str]) -> np.ndarray:
            return np.ones((len(part), 1), dtype=np.float32)

        a, b = Cache(tmp_path, 1), Cache(tmp_path, 1)
        for store, names in ((a, ["x", "y"]), (b, ["z", "y"])):
            store.fill([digest(n) for n in names], names, ones, step=5, advance=lambda _: None)
        both = Cache(tmp_path, 1)
        assert len(both.places) == 3 and both.take([digest(n) for n in "xyz"]).tolist() == [[1.0]] * 3
