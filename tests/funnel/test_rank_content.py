"""A funnel that ranks by content: vectors go with the candidates its ranker is trained on, and with its artifact."""

import shutil

import numpy as np
import pytest

from vitrail.data.dataset import Dataset
from vitrail.data.vectors import write_vectors
from vitrail.funnel.build import load_funnel, run_funnel
from vitrail.funnel.file import FunnelFile

SETTINGS = {
    "dnn": {"vectors": ["text"], "dim": 4, "epochs": 1, "hidden": [8], "metric": "auc"},
    "lightgbm": {"vectors": ["text"], "rounds": 3, "least": 5, "metric": "auc"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_ranker_of_a_funnel_reads_content(name, shop, keys, tmp_path):
    if name == "lightgbm":
        pytest.importorskip("lightgbm")
    data = Dataset(shutil.copytree(shop.path, tmp_path / "shop"))
    rng = np.random.default_rng(0)
    ids = data.items["item"].to_list()[:-5]
    write_vectors(data.path, "text", rng.normal(size=(len(ids), 6)).astype(np.float32), ids, encoder="hand")
    told = keys | {"data": str(data.path), "rank": {"system": name, "settings": SETTINGS[name], "requests": 150, "mix": 0.0}}
    funnel = run_funnel(FunnelFile.of(told), tmp_path / "out")
    shutil.rmtree(data.path)  # what answers needs no data set
    again = load_funnel(tmp_path / "out")
    model = again.ranking.model
    assert model.card.name == name and model.sizes.vectors == {"text": 6}
    user = funnel.user_ids.ids[0]
    pages = [one.run(one.ask([user], None), 5, explores=False).page.tolist() for one in (funnel, again)]
    assert pages[0] == pages[1] and len(set(pages[0][0])) == 5
