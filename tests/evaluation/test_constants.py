"""The evaluator's constants on real data: they hold to the last digit given, or every other number is in doubt."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from vitrail.data.ingest import IngestSettings, ingest
from vitrail.evaluation.evaluator import evaluate_part
from vitrail.train.fit import cut, evaluate_run, fit

DATA = Path(os.environ.get("VITRAIL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
BEAUTY = DATA / "amazon-beauty-2014" / "sequences.txt"
pytestmark = [pytest.mark.data, pytest.mark.skipif(not BEAUTY.exists(), reason="no real data: set VITRAIL_DATA")]


@pytest.fixture(scope="module")
def beauty(tmp_path_factory):
    return ingest([BEAUTY], out=tmp_path_factory.mktemp("data") / "beauty", settings=IngestSettings(ordered=True, name="beauty")).dataset


def test_popularity_on_beauty_whatever_the_tie_seed(beauty):
    popular = fit("popular", beauty, split="leave-last-out", quiet=True).recommender
    for seed in range(5):
        evaluation = evaluate_run(popular, data=beauty, metrics=["recall@10", "ndcg@10"], tie_seed=seed)
        assert evaluation.users == 22_363
        assert evaluation.metrics["recall@10"] == pytest.approx(0.0115, abs=1e-4)
        assert evaluation.metrics["ndcg@10"] == pytest.approx(0.0055, abs=1e-4)


def test_an_oracle_scores_one(beauty):
    split, _, protocol = cut(beauty, "leave-last-out", refit=False)
    targets = torch.from_numpy(split.test.target_items)
    row = {int(user): int(item) for user, item in zip(split.test.histories.users, targets, strict=True)}

    def oracle(histories):
        scores = torch.zeros(len(histories), len(beauty.items))
        scores[torch.arange(len(histories)), torch.tensor([row[int(u)] for u in histories.users])] = 1.0
        return scores

    known = {"item_hashes": beauty.item_ids.hashes, "train_counts": split.train.item_counts}
    evaluation = evaluate_part(split.test, oracle, protocol=protocol, metrics=["recall@1", "ndcg@10", "mrr@10", "map@10"], intervals=False, **known)
    assert set(evaluation.metrics.values()) == {1.0}


def test_the_ceiling_of_id_systems_on_beauty(beauty):
    """138 test targets never occur in training: the ceiling of any id system is 99.4 %."""
    split, _, _ = cut(beauty, "leave-last-out", refit=False)
    assert int(split.cold_items[split.test.target_items].sum()) == 138
    assert np.diff(split.test.target_indptr).tolist() == [1] * 22_363
