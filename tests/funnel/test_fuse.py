"""Fusion: the sum over sources worked by hand, a plain reference, and what each candidate keeps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.errors import SettingError
from vitrail.funnel.fuse import Found, Fusion, fuse

TIES = np.arange(50)


def found(name, codes, scores=None):
    codes = np.asarray(codes, dtype=np.int64)
    scores = np.where(codes >= 0, np.arange(codes.shape[1], 0, -1.0), -np.inf) if scores is None else np.asarray(scores, dtype=np.float32)
    return Found(name, codes, scores)


def test_reciprocal_ranks_by_hand():
    one, two = found("a", [[4, 7, 1]]), found("b", [[7, 9, -1]])
    fused = fuse([one, two], [1.0, 2.0], 50, TIES)
    assert fused.names == ("a", "b") and fused.codes.tolist() == [[7, 9, 4, 1]]
    np.testing.assert_allclose(fused.scores[0], [1 / 62 + 2 / 61, 2 / 62, 1 / 61, 1 / 63])
    assert fused.ranks[0].tolist() == [[2, 1], [0, 2], [1, 0], [3, 0]]
    assert fused.values[0, 0].tolist() == [2.0, 3.0] and np.isnan(fused.values[0, 1, 0]) and fused.values[0, 1, 1] == 2.0


def test_ties_rows_and_the_cut():
    fused = fuse([found("a", [[3, 1], [-1, -1]]), found("b", [[1, 3], [5, -1]])], [1, 1], 50, TIES, Fusion(k=1))
    assert fused.codes.tolist() == [[1], [5]]  # equal sums: the lower tie rank
    nothing = fuse([found("a", [[-1], [-1]])], [1], 50, TIES)
    assert nothing.codes.shape == (2, 0)
    assert fuse([found("a", np.empty((0, 3)))], [1], 50, TIES).codes.shape == (0, 0)


def test_a_source_of_no_weight_adds_candidates_at_the_end():
    fused = fuse([found("a", [[3, 1]]), found("b", [[9, 3]])], [1, 0], 50, TIES)
    assert fused.codes.tolist() == [[3, 1, 9]] and fused.scores[0, 2] == 0.0


@pytest.mark.parametrize("scale", ["minmax", "standard"])
def test_scores_do_not_depend_on_the_scale_of_a_source(scale):
    how = Fusion(method="scores", scale=scale)
    a, b = found("a", [[1, 2, 3]], [[3.0, 2.0, 1.0]]), found("b", [[3, 4, -1]], [[9.0, 5.0, -np.inf]])
    large = found("b", [[3, 4, -1]], [[9e6, 5e6, -np.inf]])
    first, second = (fuse([a, other], [1, 1], 50, TIES, how) for other in (b, large))
    np.testing.assert_allclose(first.scores, second.scores)
    assert first.codes[0, 0] == {"minmax": 3, "standard": 1}[scale] and (first.scores > 0).all()
    same = fuse([found("a", [[1, 2]], [[5.0, 5.0]])], [1], 50, TIES, how)
    assert same.scores.tolist() == [[1.0, 1.0]]


def test_no_source_and_missing_weights():
    with pytest.raises(SettingError, match="0 sources"):
        fuse([], [], 50, TIES)
    with pytest.raises(SettingError, match="1 sources and 2 weights"):
        fuse([found("a", [[1]])], [1, 2], 50, TIES)


lists = st.lists(st.integers(0, 12), unique=True, max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(lists, min_size=3, max_size=3), min_size=1, max_size=4), st.integers(1, 12))
def test_a_batch_is_the_plain_sum(rows, k):
    """Against a dictionary a request."""
    weights = [1.0, 0.5, 2.0]
    sources = []
    for place in range(3):
        width = max(len(row[place]) for row in rows)
        sources.append(found(str(place), np.array([row[place] + [-1] * (width - len(row[place])) for row in rows]).reshape(len(rows), width)))
    fused = fuse(sources, weights, 13, TIES, Fusion(k=k))
    for b, row in enumerate(rows):
        total = {}
        for weight, items in zip(weights, row, strict=True):
            for rank, item in enumerate(items, start=1):
                total[item] = total.get(item, 0.0) + weight / (60 + rank)
        expected = sorted(total, key=lambda item, total=total: (-round(total[item], 12), item))[:k]
        got = [code for code in fused.codes[b].tolist() if code >= 0]
        assert len(got) == len(expected) and [round(total[c], 9) for c in got] == [round(total[c], 9) for c in expected]
        for place, code in enumerate(got):
            assert [int(r) for r in fused.ranks[b, place]] == [items.index(code) + 1 if code in items else 0 for items in row]


def test_reordered_moves_everything_along():
    fused = fuse([found("a", [[4, 7, 1]])], [1], 50, TIES).reordered(np.array([[2, 0]]))
    assert fused.codes.tolist() == [[1, 4]] and fused.ranks[0, :, 0].tolist() == [3, 1]
