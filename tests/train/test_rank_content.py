"""Content vectors as fields of rankers: fitted, measured, saved, ranking a funnel."""

import numpy as np
import pytest
import torch

from vitrail.data.dataset import Dataset
from vitrail.data.vectors import write_vectors
from vitrail.errors import DataError, SettingError
from vitrail.funnel.recommender import load
from vitrail.testing_rank import asked, everything, impressions, settings_of
from vitrail.train.fit import evaluate_run, fit

BLIND = {"attributes": [], "past": False}
"""Without fields that tell the colour."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The checkerboard of impressions, with vectors that tell the colour of 12 of 16 items."""
    data = impressions(tmp_path_factory.mktemp("shop") / "data")
    ids = data.items["item"].to_list()
    colours = np.array([[1.0, 0.1] if colour == "white" else [0.1, 1.0] for colour in data.items["colour"]])
    rng = np.random.default_rng(0)
    write_vectors(data.path, "text", np.concatenate([5 * colours, rng.normal(size=(16, 2))], 1).astype(np.float32), ids, encoder="hand", overwrite=True)
    write_vectors(data.path, "image", colours.astype(np.float32)[:12], ids[:12], encoder="hand", overwrite=True)
    return Dataset(data.path)


def test_vectors_are_read_where_they_lie_and_travel_with_the_artifact(shop, tmp_path):
    from vitrail.data.impressions import rank_split
    from vitrail.systems import registry
    from vitrail.train.rank import prepare

    config = registry.find("dnn").Config(vectors=("text", "image"))
    made = prepare(shop, rank_split(shop.info, None), config, config.vectors)
    assert made.sizes.vectors == {"text": 4, "image": 2} and int(made.given.masks["image"].sum()) == 12
    found = fit("din", shop, out=tmp_path / "run", settings=settings_of("din", vectors=["text", "image"], epochs=2), quiet=True).recommender
    again = load(tmp_path / "run")
    histories, candidates = asked(found, ["u0", "u5"]), everything(found, 2)
    assert torch.equal(found.model.score(histories, candidates), again.model.score(histories, candidates))
    assert again.model.features.item_fields == 4 and again.info["vectors"].keys() == {"text", "image"}
    assert 0 <= evaluate_run(tmp_path / "run").metrics["auc"] <= 1


def test_what_content_tells_is_learned_of_items_never_shown(shop):
    """With nothing else to go by, the vectors tell the colour, and whoever liked it: also of the test's items."""
    settings = settings_of("dnn", **BLIND, vectors=["text"], epochs=60, hidden=[16])
    recommender = fit("dnn", shop, settings=settings, quiet=True).recommender
    model = recommender.model
    with torch.no_grad():
        model.features.of_items.weight.zero_()  # what was learned of single items is forgotten
    assert evaluate_run(recommender, data=shop).metrics["auc"] > 0.95


def test_vectors_that_are_not_there_are_a_sentence(shop, tmp_path):
    with pytest.raises(DataError, match="sound"):
        fit("fm", shop, settings=settings_of("fm", vectors=["sound"]), quiet=True)
    with pytest.raises(SettingError, match="counts the rows of codes"):
        fit("fm", shop, settings=settings_of("fm", tables="hash", rare=0.1), quiet=True)


def test_trees_split_on_cosines_to_the_history(shop):
    pytest.importorskip("lightgbm")
    recommender = fit("lightgbm", shop, settings=settings_of("lightgbm", **BLIND, vectors=["text"]), quiet=True).recommender
    assert evaluate_run(recommender, data=shop).metrics["auc"] > 0.95
