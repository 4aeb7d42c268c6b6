import numpy as np
import pytest

from vitrail.errors import SettingError
from vitrail.evaluation import metrics as M


def one(ranks, k):
    hits = np.zeros((1, k), dtype=bool)
    hits[0, [r - 1 for r in ranks]] = True
    return hits


def test_worked_example():
    hits, three = one([1, 4], 5), np.array([3])
    assert M.recall(hits, three)[0] == pytest.approx(2 / 3)
    assert M.precision(hits, three)[0] == pytest.approx(0.4)
    assert M.ndcg(hits, three)[0] == pytest.approx(1.43068 / 2.13093, abs=5e-6)
    assert M.ndcg(hits, three)[0] == pytest.approx(0.67139, abs=5e-6)
    assert M.ndcg_ngcf(hits, three)[0] == pytest.approx(0.87722, abs=5e-6)
    assert M.average_precision(hits, three)[0] == pytest.approx(0.5)
    assert M.mrr(hits, three)[0] == 1.0 and M.hit_rate(hits, three)[0] == 1.0


@pytest.mark.parametrize(("rank", "gain"), [(1, 1.0), (2, 0.630930), (3, 0.5)])
def test_one_target(rank, gain):
    hits, target = one([rank], 10), np.array([1])
    assert M.ndcg(hits, target)[0] == pytest.approx(gain, abs=5e-7)
    assert M.mrr(hits, target)[0] == pytest.approx(1 / rank)
    assert M.recall(hits, target)[0] == 1.0


def test_no_hit_is_zero_everywhere():
    hits, targets = np.zeros((2, 4), dtype=bool), np.array([1, 9])
    for name, entry in M.METRICS.items():
        if entry.kind == "accuracy":
            assert entry.function(hits, targets).tolist() == [0.0, 0.0], name


def test_more_targets_than_places():
    hits, targets = np.ones((1, 5), dtype=bool), np.array([20])
    assert M.recall(hits, targets)[0] == 0.25
    assert M.recall(hits, targets, "min(k,targets)")[0] == 1.0
    assert M.ndcg(hits, targets)[0] == pytest.approx(1.0) == M.average_precision(hits, targets)[0]


def test_ngcf_variant_is_never_below_and_can_look_further():
    rng = np.random.default_rng(0)
    hits, targets = rng.random((200, 20)) < 0.2, np.full(200, 30)
    assert (M.ndcg_ngcf(hits, targets) >= M.ndcg(hits, targets) - 1e-12).all()
    assert (M.ndcg_ngcf(hits, targets, 10) <= M.ndcg_ngcf(hits[:, :10], targets) + 1e-12).all()


def test_equals_loops_on_random_lists():
    rng = np.random.default_rng(1)
    hits = rng.random((100, 7)) < 0.3
    targets = hits.sum(1) + rng.integers(1, 4, 100)
    for row, t, found in zip(hits, targets, M.average_precision(hits, targets), strict=True):
        precisions = [row[: r + 1].mean() for r in range(7) if row[r]]
        assert found == pytest.approx(sum(precisions) / min(t, 7))
    for row, t, found in zip(hits, targets, M.ndcg(hits, targets), strict=True):
        gain = sum(1 / np.log2(r + 2) for r in range(7) if row[r])
        assert found == pytest.approx(gain / sum(1 / np.log2(r + 2) for r in range(min(t, 7))))


def test_coverage_and_gini():
    assert M.coverage(np.array([[0, 1], [1, -1]]), 4) == 0.5
    assert M.gini(np.array([[0, 1], [2, 3]]), 4) == pytest.approx(0.0)
    assert M.gini(np.array([[2, -1], [2, -1]]), 4) == pytest.approx(0.75)
    assert M.gini(np.array([[0, 1], [0, 2]]), 4) == pytest.approx(np.abs(np.subtract.outer(x := np.array([2, 1, 1, 0]), x)).sum() / (2 * 4 * 4))
    assert M.gini(np.full((2, 3), -1), 4) == 0.0


def test_novelty_in_bits():
    counts = np.array([4, 2, 2, 0, 0, 0, 0, 0])
    assert M.novelty(np.array([[0, 1], [3, -1], [-1, -1]]), counts) == pytest.approx([1.5, 3.0, np.nan], nan_ok=True)


def test_intra_list_diversity():
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=np.float32)
    found = M.intra_list_diversity(np.array([[0, 1, 2], [0, 1, -1], [0, 2, -1], [0, -1, -1], [0, 3, -1]]), vectors)
    assert found == pytest.approx([2 / 3, 0.0, 1.0, np.nan, 1.0], nan_ok=True)


def test_popularity_lift():
    counts = np.array([10, 5, 1])
    indptr, items = np.array([0, 2, 3, 3]), np.array([1, 1, 2])
    codes = np.array([[0, 0], [1, -1], [0, 0]])  # the third query has no history
    assert M.popularity_lift(codes, counts, indptr, items) == pytest.approx((10 + 5) / (5 + 1) - 1)
    assert np.isnan(M.popularity_lift(codes[2:], counts, np.array([0, 0]), items[:0]))


def test_names():
    assert M.parse_metric(" ndcg@10") == ("ndcg", 10)
    with pytest.raises(SettingError, match='Did you mean "ndcg"'):
        M.parse_metric("ndgc@10")
    for bad in ("ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@x", "ndcg@1.5", "ndcg@²"):
        with pytest.raises(SettingError, match=r"write ndcg@10"):
            M.parse_metric(bad)
    assert {M.parse_metric(name).name for name in M.DEFAULT_METRICS} == set(M.METRICS)
