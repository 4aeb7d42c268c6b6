"""The map of items: near where a system holds them alike, coloured by category, one page that needs nothing else."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from vitrail.cli import app
from vitrail.data.dataset import Dataset, write_dataset
from vitrail.errors import ResourceError, SettingError
from vitrail.funnel.recommender import Recommender, load
from vitrail.serve.page import item_map as module
from vitrail.serve.page.item_map import item_map, plane, vectors_of, write_map
from vitrail.testing import SIDE, checkerboard, quick
from vitrail.train.fit import fit


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    from PIL import Image

    made = checkerboard(tmp_path_factory.mktemp("board"))
    items = made.items.with_columns(
        title=pl.concat_str(pl.lit("</script><b>"), "item"), picture=pl.concat_str("item", pl.lit(".png")), colours=pl.concat_list("colour", pl.lit("x"))
    )
    kinds = {"colour": "category", "title": "text", "picture": "image", "colours": "categories"}
    events = pl.read_parquet(made.path / "interactions.parquet")
    vectors = {name: made.vectors(name) for name in ("text", "image")}
    data = write_dataset(made.path, made.info.but({"columns": {"items": kinds}}), events, items, overwrite=True)
    for name, found in vectors.items():
        from vitrail.data.vectors import write_vectors

        write_vectors(data.path, name, np.asarray(found.values)[found.mask], items["item"].filter(pl.Series(found.mask)), encoder="random")
    data.image_root.mkdir(exist_ok=True)
    Image.new("RGB", (200, 200), "red").save(data.image_root / "i 1.png")
    return data


@pytest.fixture(scope="module")
def knn(board: Dataset) -> Recommender:
    return fit("content-knn", board, split="none", quiet=True).recommender


def test_alike_items_are_near(knn: Recommender) -> None:
    made = item_map(knn, method="pca", category="colour")
    assert made["category"] == "colour" and made["categories"] == ["black", "white"] and len(made["points"]) == SIDE
    assert made["what"].startswith("content") and made["how"] == "two principal components"
    of = {name: np.mean([point["x"] for point in made["points"] if point["category"] == name]) for name in ("black", "white")}
    assert abs(of["black"] - of["white"]) > 0.5, "the two colours lie apart"
    assert max(abs(value) for point in made["points"] for value in (point["x"], point["y"])) == pytest.approx(1, abs=1e-3)
    assert item_map(knn, method="pca") == item_map(knn, method="pca") and len(item_map(knn, most=5, method="pca")["points"]) == 5
    with pytest.raises(SettingError, match="colour"):
        item_map(knn, category="color")


def test_by_what_items_are_alike(board: Dataset, knn: Recommender) -> None:
    for name, words in (("bpr-mf", "vectors of the system"), ("item-knn", "similarity of the system")):
        recommender = fit(name, board, split="none", settings=quick(name, epochs=1), quiet=True).recommender
        assert vectors_of(recommender)[1] == words
    popular = fit("popular", board, split="none", quiet=True).recommender
    if not popular.model.can.similar:
        with pytest.raises(SettingError, match="no place on a map"):
            vectors_of(popular)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_items_have_places_too(count: int) -> None:
    places, how = plane(torch.randn(count, 4), "auto")
    assert places.shape == (count, 2) and np.isfinite(places).all() and how == "two principal components"


def test_t_sne(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("sklearn") is not None:
        vectors = torch.cat([torch.randn(15, 6) + 8, torch.randn(15, 6) - 8])
        places, how = plane(vectors, "auto")
        assert how == "t-SNE" and places.shape == (30, 2)
        assert np.linalg.norm(places[:15].mean(0) - places[15:].mean(0)) > np.linalg.norm(places[:15] - places[:15].mean(0), axis=1).mean()
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    assert plane(torch.randn(20, 4), "auto")[1] == "two principal components"
    with pytest.raises(ResourceError, match="pip install scikit-learn"):
        plane(torch.randn(20, 4), "tsne")


def test_the_page_needs_nothing_else(knn: Recommender, tmp_path: Path) -> None:
    write_map(knn, tmp_path / "map.html", method="pca")
    text = (tmp_path / "map.html").read_text()
    assert not re.search(r"(src|href)=\"http", text) and "default-src 'none'" in text
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert held is not None
    data = json.loads(held.group(1))
    assert len(data["map"]["points"]) == SIDE and list(data["pictures"]) == ["i 1"], "what has a picture has it in the page"
    assert "</script><b>i 1" in {point["title"] for point in data["map"]["points"]}, "what the data say is text, never markup"
    assert item_map(knn, method="pca", category="colours")["points"][0]["category"] in ("black", "white"), "of several the first"


def test_the_verb(knn: Recommender, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    knn.save(tmp_path / "model")
    app(["map", str(tmp_path / "model"), "--out", str(tmp_path / "m.html"), "--method", "pca"], standalone_mode=False)
    assert "24 items by content" in capsys.readouterr().out and (tmp_path / "m.html").stat().st_size > 5000
    app(["map", str(tmp_path / "model"), "--json", "--method", "pca"], standalone_mode=False)
    assert len(json.loads(capsys.readouterr().out)["points"]) == SIDE
    assert app(["map", str(tmp_path / "model")], standalone_mode=False) and "--out F.html" in capsys.readouterr().err
    assert load(tmp_path / "model").name == "content-knn"
