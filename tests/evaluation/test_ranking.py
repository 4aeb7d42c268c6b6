import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.vocabulary import hash_ids
from vitrail.errors import VitrailError
from vitrail.evaluation import ranking
from vitrail.evaluation.ranking import mask_, tie_ranks, top_k, unmask_

INF = float("inf")


def reference(scores: np.ndarray, k: int, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes = np.full((len(scores), k), -1)
    values = np.full((len(scores), k), -np.inf, dtype=np.float32)
    for row, line in enumerate(scores):
        order = np.lexsort([ranks, -line])
        order = order[line[order] > -np.inf][:k]
        codes[row, : len(order)], values[row, : len(order)] = order, line[order]
    return codes, values


@pytest.mark.parametrize("levels", [1, 2, 3, 7, 50, 10**6])
@pytest.mark.parametrize("removed", [0.0, 0.3, 0.98, 1.0])
@pytest.mark.parametrize("k", [1, 5, 30, 64, 200])
def test_equals_the_sort_with_ties_masks_and_long_lists(levels, removed, k):
    rng = np.random.default_rng(levels + k)
    scores = (rng.integers(0, levels, (40, 64)) - levels // 2).astype(np.float32) / 8
    scores[rng.random(scores.shape) < removed] = -np.inf
    scores[:3, :9] = np.inf
    scores[5:7][scores[5:7] == 0] = -0.0
    ranks = tie_ranks(hash_ids([f"i{n}" for n in range(64)]), seed=3)
    codes, values = top_k(torch.from_numpy(scores), k, ranks)
    expected, worth = reference(scores, k, ranks.numpy())
    assert (codes.numpy() == expected).all()
    assert (values.numpy() == worth).all()
    assert codes.dtype == torch.int64 and codes.shape == (40, k)


@given(st.integers(0, 2**31), st.sampled_from([2, 3, 40, 10**6]), st.sampled_from([1, 3, 10]), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
@settings(max_examples=30, deadline=None)
def test_wide_rows_go_by_groups_and_equal_the_sort(seed, levels, k, removed):
    rng = np.random.default_rng(seed)
    n = ranking.MANY + int(rng.integers(0, 1000))
    scores = (rng.integers(0, levels, (7, n)) - levels // 2).astype(np.float32) / 8
    scores[rng.random(scores.shape) < removed] = -np.inf
    ranks = tie_ranks(hash_ids([f"i{number}" for number in range(n)]))
    codes, values = top_k(torch.from_numpy(scores), k, lambda: ranks)
    expected, worth = reference(scores, k, ranks.numpy())
    assert (codes.numpy() == expected).all() and (values.numpy() == worth).all()


def test_nan_is_refused_and_infinity_is_not():
    ranks = torch.arange(4)
    wide = torch.zeros(2, ranking.MANY)
    wide[1, 2345] = torch.nan
    with pytest.raises(VitrailError, match="NaN"):
        top_k(wide, 3, torch.arange(ranking.MANY))
    with pytest.raises(VitrailError, match="NaN"):
        top_k(torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, float("nan"), -INF, 9.0]]), 2, ranks)
    assert top_k(torch.tensor([[0.0, INF, 2.0, 3.0]]), 2, ranks)[0].tolist() == [[1, 3]]


def test_no_rows_no_items_one_item():
    assert top_k(torch.zeros(0, 5), 3, torch.arange(5))[0].shape == (0, 3)
    assert top_k(torch.zeros(1, 1), 3, torch.arange(1))[0].tolist() == [[0, -1, -1]]
    assert top_k(torch.zeros(2, 0), 3, torch.arange(0))[0].tolist() == [[-1] * 3] * 2


def test_a_permuted_item_order_gives_the_same_items():
    rng = np.random.default_rng(0)
    ids = np.array([f"item {n}" for n in range(300)])
    scores = rng.integers(0, 5, (20, 300)).astype(np.float32)
    order = rng.permutation(300)
    a = top_k(torch.from_numpy(scores), 10, tie_ranks(hash_ids(ids.tolist()), 1))[0].numpy()
    b = top_k(torch.from_numpy(scores[:, order]), 10, tie_ranks(hash_ids(ids[order].tolist()), 1))[0].numpy()
    assert (ids[a] == ids[order][b]).all()


def test_tie_ranks_are_a_permutation_that_the_seed_redraws():
    hashes = hash_ids([str(n) for n in range(1000)])
    a, b = tie_ranks(hashes, 0), tie_ranks(hashes, 1)
    assert sorted(a.tolist()) == list(range(1000))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


def test_mask_removes_and_unmask_restores():
    scores = torch.arange(12.0).reshape(3, 4).clone()
    before = scores.clone()
    indptr, items = torch.tensor([2, 4, 4, 7]), torch.tensor([9, 9, 0, 3, 1, 1, 2])  # a window of a longer list
    undo = mask_(scores, indptr, items)
    assert (scores == -INF).nonzero().tolist() == [[0, 0], [0, 3], [2, 1], [2, 2]]
    unmask_(scores, undo)
    assert torch.equal(scores, before)
