"""Items that come after training: answered by their content at once, old answers unchanged, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vitrail.errors import DataError, SettingError
from vitrail.funnel.recommender import Recommender, load
from vitrail.testing import CONTENT, SIDE, checkerboard, quick
from vitrail.train.fit import fit

SETTINGS = {"content-knn": {}, "freedom": {}, "bm3": {"cold": "content"}}


def white(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Content of n items of the colour of i 1."""
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(size=(n, width)).astype(np.float32) for name, width in CONTENT.items()}
    for values in made.values():
        values[:, 0] += 6.0
    return made


def fitted(name: str, folder: Path, **more: object) -> Recommender:
    return fit(name, checkerboard(folder / "d"), split="none", settings={**quick(name), **SETTINGS.get(name, {}), **more}, quiet=True).recommender


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_new_item_is_found_by_its_content(name: str, tmp_path: Path) -> None:
    old = fitted(name, tmp_path)
    grown = old.with_items(pl.DataFrame({"item": ["new 1", "new 2"], "colour": ["white", "white"], "unheard": [1, 2]}), white(2))
    asked = {"users": ["u1", "u3", "u5"], "k": 3}
    assert {"new 1", "new 2"} <= set(grown.recommend(**asked)["item"]), "all of the own colour but one are seen: the new ones come next"
    assert grown.recommend(users=["u0"], k=1)["item"][0] not in ("new 1", "new 2")
    near = set(grown.similar(["new 1"], k=SIDE // 2)["item"])
    assert sum(int(item.split()[1]) % 2 for item in near if item.startswith("i")) >= 0.8 * (len(near) - 1)
    assert grown.recommend(users=["u1"], k=5, filter='colour == "white"').height >= 3
    assert old.items.height == SIDE and "new 1" not in set(old.recommend(**asked)["item"])
    grown.save(tmp_path / "saved")
    assert load(tmp_path / "saved").recommend(**asked).equals(grown.recommend(**asked))


def test_old_rows_keep_their_neighbours(tmp_path: Path) -> None:
    old = fitted("freedom", tmp_path)
    before = old.model.graph.neighbours(0)[0].clone()  # type: ignore[union-attr,operator]
    grown = old.with_items(pl.DataFrame({"item": ["a", "b", "c"]}), {"text": white(3)["text"]})
    after = grown.model.graph.neighbours(0)[0]  # type: ignore[union-attr,operator]
    assert after[:SIDE].equal(before) and after[SIDE:, 0].tolist() == [SIDE, SIDE + 1, SIDE + 2] and (after[SIDE:, 1:] < SIDE).all()
    assert not grown.given.masks["image"][SIDE:].any(), "what was not given is missing, not zero"


def test_an_item_without_content_is_added_and_found_by_nothing(tmp_path: Path) -> None:
    values = white(2)
    values["text"][1], values["image"][1] = np.nan, 0.0
    grown = fitted("content-knn", tmp_path).with_items(pl.DataFrame({"item": ["a", "b"]}), values)
    assert grown.given.masks["text"][SIDE:].tolist() == [True, False] and not grown.given.vectors["text"].isnan().any()
    assert set(grown.recommend(histories=[["b"]], k=3)["fallback"]) == {"popular"}


def test_refusals(tmp_path: Path) -> None:
    knn, fresh = fitted("content-knn", tmp_path), pl.DataFrame({"item": ["a"]})
    for items, vectors, sentence in (
        (pl.DataFrame({"item": ["i 0"]}), white(1), "not in the catalogue yet"),
        (pl.DataFrame({"item": ["a", "a"]}), white(2), "each once"),
        (pl.DataFrame({"name": ["a"]}), white(1), "column `item`"),
        (fresh, white(2), "is wanted"),
    ):
        with pytest.raises(DataError, match=sentence):
            knn.with_items(items, vectors)
    with pytest.raises(SettingError, match='reads no vectors "sound"'):
        knn.with_items(fresh, {"sound": np.ones((1, 3))})
    with pytest.raises(SettingError, match="from training alone"):
        fitted("bm3", tmp_path, cold="none").with_items(fresh, white(1))
