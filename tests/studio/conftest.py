"""A small simulated shop with two systems, a funnel over them and a comparison, made once for the tests of the studio."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitrail.data.dataset import Dataset
from vitrail.data.simulate import SimulatorSettings, simulate
from vitrail.funnel.build import run_funnel
from vitrail.funnel.file import FunnelFile
from vitrail.train.fit import fit


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds shop/ and runs/: item-knn, sasrec, the funnel `window`, the comparison `comparison`."""
    root = tmp_path_factory.mktemp("studio")
    simulate(root / "shop", settings=SimulatorSettings(users=150, items=90, events=150 * 20, seed=0))
    dataset = Dataset(root / "shop")
    systems = {"item-knn": {}, "sasrec": {"dim": 8, "layers": 1, "epochs": 2, "length": 20}}
    for name, settings in systems.items():
        fit(name, dataset, out=root / "runs" / name, seed=0, settings=settings, quiet=True)
    retrieve = [{"run": str(root / "runs" / name), "k": 40} for name in systems]
    stages = {"arrange": {"system": "mmr", "settings": {"weight": 0.8}}, "explore": {"policy": "epsilon-greedy", "settings": {"epsilon": 0.0}}}
    run_funnel(FunnelFile.of({"funnel": "shop", "data": str(root / "shop"), "retrieve": retrieve, **stages}), root / "runs" / "window")
    (root / "runs" / "comparison").mkdir()
    (root / "runs" / "comparison" / "result.json").write_text(json.dumps(RESULT))
    return root


RESULT = {
    "data": "shop", "part": "test", "users": 40, "metric": "ndcg@10",
    "systems": [
        {"system": name, "seeds": [0], "mean": {"ndcg@10": mean, "recall@10": mean / 2}, "sd": {},
         "ci": {"ndcg@10": [mean - 0.02, mean + 0.02], "recall@10": [mean / 2 - 0.01, mean / 2 + 0.01]}}
        for name, mean in (("item-knn", 0.21), ("sasrec", 0.17))
    ],
    "tests": [{"metric": "ndcg@10", "a": "item-knn", "b": "sasrec", "diff": 0.04, "ci": [0.01, 0.07], "p": 0.01, "p_holm": 0.01, "n": 40}],
    "sentences": ["item-knn beats sasrec by 24 % NDCG@10 (p = .010, Holm)."],
    "warnings": [],
}  # fmt: skip
