"""The blocked exact search equals a sort, whatever the blocks, ties and rows that are closed."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.evaluation.ranking import top_k
from vitrail.index import scan as module
from vitrail.index.rows import Rows
from vitrail.index.scan import scan


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
