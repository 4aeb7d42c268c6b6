"""The blocked exact search equals a sort, whatever the blocks, ties and rows that are closed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.vocabulary import hash_ids
from vitrail.errors import VitrailError
from vitrail.evaluation.ranking import tie_ranks, top_k
from vitrail.index import scan as module
from vitrail.index.rows import Rows
from vitrail.index.scan import best, scan


@given(st.integers(0, 2**31), st.sampled_from([2, 3, 40, 10**6]), st.sampled_from([1, 3, 10]), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
@settings(max_examples=30, deadline=None)
def test_the_best_by_groups_are_those_of_top_k(seed, levels, k, removed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5000))
    scores = (rng.integers(0, levels, (7, n)) - levels // 2).astype(np.float32) / 8
    scores[rng.random(scores.shape) < removed] = -np.inf
    ranks = tie_ranks(hash_ids([f"i{number}" for number in range(n)]))
    found, expected = best(torch.from_numpy(scores), k, lambda: ranks), top_k(torch.from_numpy(scores), k, ranks)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_nan_is_refused_on_wide_rows_too():
    scores = torch.zeros(2, 4000)
    scores[1, 2345] = torch.nan
    with pytest.raises(VitrailError, match="NaN"):
        best(scores, 3, lambda: torch.arange(4000))


@given(st.integers(0, 2**31), st.sampled_from(["all", "rows", "closed"]), st.booleans())
@settings(max_examples=20, deadline=None)
def test_blocks_change_nothing(seed, way, whole):
    rng = np.random.default_rng(seed)
    n, count, k = int(rng.integers(1, 900)), int(rng.integers(0, 20)), int(rng.integers(1, 15))
    X = rng.integers(-2, 3, (n, 4)).astype(np.float32)  # whole numbers: many ties, and sums without rounding
    Q = rng.integers(-2, 3, (count, 4)).astype(np.float32)
    held = Rows([f"i{number}" for number in range(n)])
    mask = rng.random(n) < 0.5 if way != "all" else np.ones(n, dtype=bool)
    before = module.SCORES, module.QUERIES, module.COLUMNS
    try:
        if not whole:
            module.SCORES, module.QUERIES, module.COLUMNS = 64, 7, 50
        rows = np.flatnonzero(mask) if way == "rows" else None
        closed = np.flatnonzero(~mask) if way == "closed" else None
        found, values = scan(X, Q, k, held.keys, lambda: held.ranks, rows, closed)
    finally:
        module.SCORES, module.QUERIES, module.COLUMNS = before
    scores = np.where(mask, Q @ X.T, -np.inf).astype(np.float32)
    expected = top_k(torch.from_numpy(scores), k, held.ranks)
    assert (found == expected[0].numpy()).all() and (values == expected[1].numpy()).all()
