"""Items that come while a model serves, over HTTP: retrievable at once by text, picture or vectors, in every version that answers by content."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from vitrail.content.encode import encode
from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.schema import DatasetInfo
from vitrail.errors import SettingError
from vitrail.funnel.recommender import Recommender, load
from vitrail.funnel.through_index import index_of
from vitrail.serve.app import create_app
from vitrail.serve.newcomers import taking_in
from vitrail.serve.store.base import Store, open_store
from vitrail.testing import CONTENT, SIDE, checkerboard, quick
from vitrail.train.fit import fit

SETTINGS: dict[str, dict[str, Any]] = {"content-knn": {}, "freedom": {}, "bm3": {"cold": "content"}, "item-knn": {}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "store.sqlite")
    yield opened
    opened.close()


def white(seed: int = 0) -> dict[str, list[float]]:
    """Content of an item of the colour of i 1, as a request has it."""
    rng = np.random.default_rng(seed)
    return {name: [6.0, *rng.normal(size=width - 1).tolist()] for name, width in CONTENT.items()}


def black() -> dict[str, list[float]]:
    return {name: [-value for value in values] for name, values in white().items()}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def fitted(board: Dataset) -> Callable[[str], Recommender]:
    made: dict[str, Recommender] = {}

    def get(name: str) -> Recommender:
        if name not in made:
            made[name] = fit(name, board, split="none", settings={**quick(name), **SETTINGS[name]}, quiet=True).recommender
        return made[name]

    return get


def asked(client: TestClient, user: str, k: int = 3, **more: Any) -> list[str]:
    return [row["item"] for row in client.post("/recommend", json={"user": user, "k": k, **more}).json()["items"]]


def score(client: TestClient, user: str, item: str) -> float:
    rows = client.post("/recommend", json={"user": user, "k": 100}).json()["items"]
    return float(next(row["score"] for row in rows if row["item"] == item))


@pytest.mark.parametrize("name", ["content-knn", "freedom", "bm3"])
def test_vectors_make_an_item_retrievable_at_once(name: str, fitted: Callable[[str], Recommender], store: Store) -> None:
    with TestClient(create_app(fitted(name), store=store)) as client:
        told = client.post("/items", json={"items": [{"item": "new", "colour": "white"}], "vectors": {"new": white(), "bare": white(1)}}).json()
        assert (told["changed"], told["unknown_to_model"]) == (2, 0)
        assert {"new", "bare"} <= set(asked(client, "u1")) and not {"new", "bare"} & set(asked(client, "u0", 1))
        assert client.get("/items/new").json() == {"item": "new", "colour": "white"}
        assert "new" in asked(client, "u1", filter='colour == "white"'), "a filter sees its attributes"
        assert "new" in [row["item"] for row in client.get("/similar?item=bare&k=13").json()["items"]]
        client.post("/events", json={"user": "stranger", "item": "new"})
        assert client.get("/recommend?user=stranger").json()["fallback"] is None, "it is history too"
        client.delete("/items/new")
        assert "new" not in asked(client, "u1", 50)
        before = score(client, "u1", "bare"), score(client, "u0", "bare")
        client.post("/items", json={"vectors": {"bare": black()}})
        after = score(client, "u1", "bare"), score(client, "u0", "bare")
        assert after[0] < before[0] and after[1] > before[1], "another content, another place"


def test_it_is_there_in_other_processes_and_versions(fitted: Callable[[str], Recommender], store: Store, tmp_path: Path) -> None:
    for name in ("freedom", "item-knn"):
        fitted(name).save(tmp_path / "models" / name)
    flags: dict[str, Any] = {"store": store, "models": tmp_path / "models", "load": load}
    with TestClient(create_app(fitted("content-knn"), **flags)) as client:
        client.post("/items", json={"vectors": {"new": white()}})
        client.post("/models", json={"action": "load", "name": "freedom"})
        client.post("/models", json={"action": "load", "name": "item-knn"})
        shown = {row["name"]: row["items"] for row in client.get("/models").json()["versions"]}
        assert shown == {"model": SIDE + 1, "freedom": SIDE + 1, "item-knn": SIDE}
        client.post("/models", json={"action": "switch", "name": "freedom"})
        assert "new" in asked(client, "u1")
    with TestClient(create_app(fitted("content-knn"), store=store)) as client:
        assert "new" in asked(client, "u1"), "a restart has it from the store"


def test_what_cannot_be_taken_in_waits(fitted: Callable[[str], Recommender], store: Store) -> None:
    with TestClient(create_app(fitted("item-knn"), store=store)) as client:
        assert client.post("/items", json={"items": [{"item": "new", "colour": "white"}]}).json()["unknown_to_model"] == 1
        assert "takes no vectors" in client.post("/items", json={"vectors": {"new": white()}}).json()["error"]
    with TestClient(create_app(fitted("content-knn"), store=store)) as client:
        assert client.post("/items", json={"items": [{"item": "other"}]}).json()["unknown_to_model"] == 1, "nothing is known of its content"
        for vectors, words in (
            ({"text": [1.0]}, f"1 numbers, and {CONTENT['text']} are wanted"),
            ({"sound": [1.0]}, '"sound"'),
            ({"text": [None]}, "vectors.a.text.0"),
        ):
            answer = client.post("/items", json={"vectors": {"a": vectors}})
            assert answer.status_code == 422 and words in answer.json()["error"]
        assert [change.item for change in store.item_changes()] == ["new", "other"], "what is refused is not kept"


def test_through_an_index(fitted: Callable[[str], Recommender], store: Store) -> None:
    through = fitted("freedom").with_index(index_of(fitted("freedom"), kind="exact"))
    plain, far = fitted("freedom"), TestClient(create_app(through, store=store))
    with far, TestClient(create_app(plain, store=store)) as near:
        far.post("/items", json={"vectors": {"new": white()}})
        near.app.state.live.look()  # type: ignore[attr-defined]
        assert "new" in asked(far, "u1") and asked(far, "u1", 9) == asked(near, "u1", 9)
        before = score(far, "u1", "new")
        far.post("/items", json={"vectors": {"new": black()}})
        assert score(far, "u1", "new") < before


def test_a_model_that_refuses_goes_on(fitted: Callable[[str], Recommender], monkeypatch: pytest.MonkeyPatch) -> None:
    from vitrail.serve.models import version_of

    version = version_of("m", fitted("content-knn"))
    assert taking_in(version, {"i 0": {"text": white()["text"]}}) is version, "what it was trained on stays as it is"

    def refuse(*_: Any) -> None:
        raise SettingError("No.")

    monkeypatch.setattr(Recommender, "with_items", refuse)
    assert taking_in(version, {"new": {"text": white()["text"]}}) is version


@pytest.fixture
def shop(tmp_path: Path) -> Recommender:
    """A system over encoded titles and pictures: red dresses and blue boots."""
    from PIL import Image

    folder = tmp_path / "data"
    rows = [(f"u{u}", f"i{i}") for u in range(8) for i in range(8) if i % 2 == u % 2 and i != u]
    events = pl.DataFrame(rows, schema=["user", "item"], orient="row").with_columns(timestamp=pl.int_range(len(rows)).cast(pl.Datetime("us", "UTC")))
    titles = [("blue leather boots" if i % 2 else "red summer dress") + f" model{i}" for i in range(8)]
    items = pl.DataFrame({"item": [f"i{i}" for i in range(8)], "title": titles, "picture": [f"{i}.png" for i in range(8)]})
    info = DatasetInfo(name="shop", order="timestamp", columns={"items": {"title": "text", "picture": "image"}})
    data = write_dataset(folder, info, events, items, overwrite=True)
    data.image_root.mkdir(exist_ok=True)
    for i in range(8):
        Image.new("RGB", (32, 32), (20, 20, 200) if i % 2 else (200, 20, 20)).save(data.image_root / f"{i}.png")
    encode(data, text="tfidf", image="colour-texture")
    return fit("content-knn", Dataset(folder), split="none", quiet=True).recommender


def test_a_text_or_a_picture_is_encoded_as_the_others_were(shop: Recommender, store: Store) -> None:
    from PIL import Image

    drawn = io.BytesIO()
    Image.new("RGB", (32, 32), (20, 20, 200)).save(drawn, "PNG")
    picture = base64.b64encode(drawn.getvalue()).decode()
    with TestClient(create_app(shop, store=store)) as client:
        body = {"items": [{"item": "words", "title": "blue leather boots"}], "pictures": {"seen": picture}}
        assert client.post("/items", json=body).json()["unknown_to_model"] == 0
        assert {"words", "seen"} <= set(asked(client, "u1", 3)) and not {"words", "seen"} & set(asked(client, "u0", 1))
        assert client.post("/search", json={"text": "boots", "k": 2}).status_code == 200
        # another title is another content; a price alone would not be
        client.post("/items", json={"items": [{"item": "words", "title": "red summer dress"}]})
        assert "words" in asked(client, "u0", 2)
        broken = client.post("/items", json={"pictures": {"x": base64.b64encode(b"no picture").decode()}})
        assert broken.status_code == 422 and "cannot be read" in broken.json()["error"]
        assert client.post("/items", json={"pictures": {"x": "%%"}}).status_code == 422
