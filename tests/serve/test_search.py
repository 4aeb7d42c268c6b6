"""Search over the content vectors of a model's data, with encoders that stand in for real ones."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from vitrail.data.vocabulary import Vocabulary
from vitrail.errors import DataError
from vitrail.serve import search
from vitrail.serve.search import ContentSearch

ITEMS = pl.DataFrame({"item": ["a", "b", "c"], "price": [1.0, 2.0, 3.0]})


class Encoder:
    name, revision = "words", "1"

    def encode_query(self, texts: list[str]) -> Any:
        return np.array([[2.0, 0.0] if "red" in text else [0.0, 3.0] if "blue" in text else [0.0, 0.0] for text in texts], dtype=np.float32)

    def encode(self, pictures: list[bytes]) -> Any:
        return np.array([[1.0, 1.0] if picture == b"picture" else [0.0, 0.0] for picture in pictures], dtype=np.float32)


class Data:
    """A data set with vectors of text and pictures; item "c" has none."""

    items = ITEMS
    item_ids = Vocabulary(ITEMS["item"])
    names = ("text", "image")
    revision = "1"

    def __init__(self, path: Any) -> None: ...

    def vector_names(self) -> tuple[str, ...]:
        return self.names

    def vectors(self, name: str) -> Any:
        info = SimpleNamespace(encoder="words", revision=self.revision, settings={}, columns=["title"], kind=name, dim=2)
        return SimpleNamespace(values=np.array([[1, 0], [3, 4], [0, 0]], dtype=np.float32), mask=np.array([True, True, False]), info=info)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    parts: dict[str, dict[str, Any]] = {
        "vitrail.content": {},
        "vitrail.content.base": {"unit": lambda values: values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)},
        "vitrail.content.encode": {"compose": lambda items, columns: [], "text_encoder": lambda *_: Encoder()},
        "vitrail.content.image": {"load_image": lambda *_, **__: Encoder()},
        "vitrail.content.text": {"TextSettings": SimpleNamespace(of=lambda *_, **__: None)},
    }
    for name, values in parts.items():
        module = ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(search, "Dataset", Data)
    return SimpleNamespace(info={"data": {"path": str(tmp_path)}}, items=ITEMS, item_ids=Data.item_ids)


def test_text_and_picture_find_the_nearest(asked: Any) -> None:
    content = ContentSearch(asked)
    found = content.search("red lipstick", None, 5)
    assert found is not None
    assert found.select("item", "rank").rows() == [("a", 1), ("b", 2)]
    assert found["score"].to_list() == pytest.approx([1.0, 0.6])
    found = content.search(None, b"picture", 1)
    assert found is not None
    assert found["item"].to_list() == ["b"]
    found = content.search("red", None, 5, filter="price > 1.5")
    assert found is not None
    assert found["item"].to_list() == ["b"]


def test_questions_that_say_nothing_are_one_sentence(asked: Any) -> None:
    content = ContentSearch(asked)
    for question, words in (({"text": "green"}, "says nothing"), ({"picture": b"?"}, "cannot be read")):
        with pytest.raises(DataError, match=words):
            content.search(question.get("text"), question.get("picture"), 3)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="loosen"):
        content.search("red", None, 3, filter="price > 2.5")


def test_vectors_of_another_version_are_refused(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Data, "revision", "2")
    with pytest.raises(DataError, match="another version"):
        ContentSearch(asked).search("red", None, 3)


def test_without_content_there_is_nothing_to_search(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Data, "names", ())
        assert ContentSearch(asked).search("red", None, 3) is None
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "vitrail.content.encode", None)
        assert ContentSearch(asked).search("red", None, 3) is None
    asked.info["data"]["path"] += "/gone"
    assert ContentSearch(asked).search("red", None, 3) is None
    asked.info.clear()
    assert ContentSearch(asked).search(None, b"picture", 3) is None
