import numpy as np
import pytest
import torch

from vitrail.data.batches import Sets
from vitrail.data.split import Part
from vitrail.data.vocabulary import hash_ids
from vitrail.evaluation.evaluator import evaluate_part
from vitrail.evaluation.protocol import PROTOCOLS
from vitrail.evaluation.slices import default_slices, popularity_groups, rank_slices


def test_groups_follow_the_events():
    assert popularity_groups(np.array([50, 20, 10, 9, 8, 3, 0])).tolist() == [0, 1, 1, 2, 2, 2, 2]
    assert popularity_groups(np.array([5, 5, 5, 5])).tolist() == [0, 0, 0, 0]  # equal counts are never parted
    assert popularity_groups(np.zeros(3, dtype=int)).tolist() == [2, 2, 2]
    assert popularity_groups(np.zeros(0, dtype=int)).tolist() == []


def test_history_buckets_part_the_queries():
    lengths = np.array([0, 1, 5, 6, 20, 21, 100, 101, 4000])
    pieces = [piece for piece in default_slices(np.array([1]), lengths) if piece.queries is not None]
    assert [piece.name for piece in pieces] == ["history:0", "history:1-5", "history:6-20", "history:21-100", "history:>100"]
    assert [int(piece.queries.sum()) for piece in pieces] == [1, 2, 2, 2, 2]


def test_only_the_targets_of_the_slice_count():
    counts = np.array([60, 30, 10, 0])  # head, mid, tail, cold
    sets = Sets(torch.arange(2), torch.tensor([0, 1, 2]), torch.tensor([0, 0]))
    none = np.zeros(3, dtype=np.int64)
    part = Part("test", sets, none, none[:0], np.array([0, 3, 4]), np.array([0, 1, 3, 1]))
    scores = torch.tensor([[9.0, 1.0, 8.0, 7.0], [9.0, 8.0, 1.0, 0.0]])
    found = evaluate_part(
        part, lambda s: scores[s.users], protocol=PROTOCOLS["leave_one_out"], item_hashes=hash_ids(list("abcd")), train_counts=counts,
        metrics=["recall@2", "ndcg@3"], intervals=False,
    ).slices  # fmt: skip
    assert found["popularity:head"] == pytest.approx({"users": 1, "recall@2": 1.0, "ndcg@3": 1.0})
    assert found["popularity:mid"] == pytest.approx({"users": 2, "recall@2": 0.5, "ndcg@3": 0.630930 / 2}, abs=1e-6)
    assert found["items:cold"] == found["popularity:tail"] == pytest.approx({"users": 1, "recall@2": 0.0, "ndcg@3": 0.5})
    assert found["history:1-5"]["users"] == 2 and "history:0" not in found


def test_slices_of_rows():
    """Users without a row in training, and items by their successes there: 0 has half of all, 1 the rest of 80 %, 2 the tail, 3 none."""
    users, items = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 3])
    found = rank_slices(users, items, np.array([0, 0, 2]), np.repeat([0, 1, 2], [5, 3, 2]), 4)
    assert found["users:new"].tolist() == [False, False, True, False] and found["users:known"].tolist() == [True, True, False, True]
    groups = {name.partition(":")[2]: np.flatnonzero(kept).tolist() for name, kept in found.items() if not name.startswith("users")}
    assert groups == {"head": [0], "mid": [1], "tail": [2], "cold": [3]}
