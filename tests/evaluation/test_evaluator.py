import json

import numpy as np
import polars as pl
import pytest
import torch

from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.data.split import Part
from vitrail.data.vocabulary import hash_ids
from vitrail.errors import DataError, ResourceError, SettingError, VitrailError
from vitrail.evaluation.evaluator import Evaluation, diversity_vectors, evaluate_part, hits_of, rank_part
from vitrail.evaluation.protocol import PROTOCOLS
from vitrail.evaluation.ranking import tie_ranks

Q, N = 60, 50
IDS = [f"i{n}" for n in range(N)]
PLAIN = {"protocol": PROTOCOLS["leave_one_out"], "intervals": False, "slices": False}


def ragged(lists):
    return np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64), np.array([i for x in lists for i in x], dtype=np.int64)


def part_of(histories, targets, masks=None, candidates=None, users=None):
    h, t = ragged(histories), ragged(targets)
    m = h if masks is None else ragged(masks)
    sets = Sets(torch.arange(len(histories)) if users is None else torch.tensor(users), torch.from_numpy(h[0]), torch.from_numpy(h[1]))
    return Part("test", sets, *m, *t, candidates)


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    lists = [rng.permutation(N)[:9] for _ in range(Q)]
    part = part_of([x[:6] for x in lists], [x[6 : 7 + n % 3] for n, x in enumerate(lists)])
    return part, rng.integers(0, 4, (Q, N)).astype(np.float32)


def table(scores):
    tensor = torch.from_numpy(scores)
    return lambda sets: tensor[sets.users]


def run(part, score, **more):
    given = {**PLAIN, "item_hashes": hash_ids(IDS), "train_counts": np.arange(N), **more}
    return evaluate_part(part, score, **given)


def oracle(part):
    scores = np.zeros((len(part), N), dtype=np.float32)
    scores[np.repeat(np.arange(len(part)), np.diff(part.target_indptr)), part.target_items] = 1
    return table(scores)


def test_an_oracle_scores_one(world):
    found = run(world[0], oracle(world[0]), metrics=["recall@5", "ndcg@3", "ndcg_ngcf@3", "hit_rate@1", "mrr@5", "map@5"])
    assert found.metrics == pytest.approx(dict.fromkeys(found.metrics, 1.0))


def test_a_constant_scorer_is_chance():
    rng = np.random.default_rng(0)
    part = part_of([[0]] * 40, [[int(t)] for t in rng.integers(0, N, 40)], masks=[[]] * 40)
    rates = np.array([run(part, table(np.zeros((40, N), np.float32)), metrics=["hit_rate@10"], tie_seed=s).metrics["hit_rate@10"] for s in range(200)])
    assert abs(rates.mean() - 10 / N) < 3 * rates.std(ddof=1) / np.sqrt(200)


def test_scale_and_shift_change_nothing(world):
    part, scores = world
    base = run(part, table(scores)).metrics
    assert run(part, table(scores * 2)).metrics == base == run(part, table(scores + 5)).metrics


def test_numbering_of_items_changes_nothing(world):
    part, scores = world
    order = np.random.default_rng(1).permutation(N)
    new = np.argsort(order)  # old code -> new code
    histories = Sets(part.histories.users, part.histories.indptr, torch.from_numpy(new[part.histories.items.numpy()]))
    moved = Part("test", histories, part.mask_indptr, new[part.mask_items], part.target_indptr, new[part.target_items])
    counts = np.arange(N) // 3
    vectors = np.eye(N, dtype=np.float32)
    vectors[:, 0] += 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    a = run(part, table(scores), train_counts=counts, slices=True, intervals=True, diversity_vectors=vectors)
    b = run(
        moved, table(scores[:, order]), train_counts=counts[order], item_hashes=hash_ids([IDS[n] for n in order]), slices=True, intervals=True,
        diversity_vectors=vectors[order],
    )  # fmt: skip
    assert b.metrics == pytest.approx(a.metrics, abs=1e-12) and b.slices == a.slices
    assert a.ci["ndcg@10"] == b.ci["ndcg@10"]


def test_block_size_changes_nothing_and_the_masked_are_never_listed(world):
    part, scores = world
    ranks = tie_ranks(hash_ids(IDS))
    whole = rank_part(part, table(scores), k=N, tie_ranks=ranks)[0]
    done = []
    assert (rank_part(part, table(scores), k=N, tie_ranks=ranks, batch=7, progress=done.append)[0] == whole).all()
    assert sum(done) == Q
    assert not hits_of(whole, part.mask_indptr, part.mask_items, N).any()
    assert ((whole >= 0).sum(1) == N - 6).all()


def test_scores_of_the_system_are_left_as_they_were(world):
    part, scores = world
    held = torch.from_numpy(scores.copy())
    run(part, lambda sets: held if len(sets) == Q else held[sets.users])
    assert np.array_equal(held.numpy(), scores)
    row = torch.rand(N)
    before = row.clone()
    run(part, lambda sets: row.expand(len(sets), N), batch=1)
    assert torch.equal(row, before)


def test_only_candidates_are_ranked(world):
    part, scores = world
    cold = np.zeros(N, dtype=bool)
    cold[:7] = True
    part = Part("test", part.histories, part.mask_indptr, part.mask_items, part.target_indptr, part.target_items, cold)
    codes, _ = rank_part(part, table(scores), k=10, tie_ranks=tie_ranks(hash_ids(IDS)))
    assert codes.max() < 7 and (codes[:, 7:] == -1).all()
    assert run(part, table(scores), metrics=["coverage@10"]).metrics["coverage@10"] == 1.0


def test_an_empty_place_is_no_hit():
    codes = np.array([[0, 1], [-1, -1]])
    assert not hits_of(codes, np.array([0, 1, 2]), np.array([4, 3]), 5).any()


def test_hits_equal_a_loop(world):
    part, scores = world
    codes = rank_part(part, table(scores), k=8, tie_ranks=tie_ranks(hash_ids(IDS)))[0]
    truth = [set(part.target_items[a:b]) for a, b in zip(part.target_indptr, part.target_indptr[1:], strict=False)]
    assert hits_of(codes, part.target_indptr, part.target_items, N).tolist() == [[c in t for c in row] for row, t in zip(codes, truth, strict=True)]


def test_k_beyond_the_catalogue(world):
    assert run(world[0], table(world[1]), metrics=["recall@500"]).metrics["recall@500"] == 1.0


def test_protocol_definitions_are_obeyed():
    part = part_of([[0]], [[1, 2, 3, 4]], masks=[[]])
    scores = np.zeros((1, N), dtype=np.float32)
    scores[0, 2], scores[0, 9] = 2, 3
    ngcf = PROTOCOLS["leave_one_out"].but({"ndcg": "ngcf", "recall_denominator": "min(k,targets)"})
    a = run(part, table(scores), metrics=["ndcg@2", "recall@2"]).metrics
    b = run(part, table(scores), metrics=["ndcg@2", "recall@2", "ndcg_ngcf@2"], protocol=ngcf).metrics
    assert a["recall@2"] == 0.25 and b["recall@2"] == 0.5
    assert b["ndcg@2"] == b["ndcg_ngcf@2"] == pytest.approx(0.63093, abs=1e-5) and a["ndcg@2"] < b["ndcg@2"]


def test_bad_scores_are_refused(world):
    part, scores = world
    scores[17, 3] = np.nan
    with pytest.raises(VitrailError, match="NaN"):
        run(part, table(scores))
    with pytest.raises(VitrailError, match="shape"):
        run(part, lambda sets: torch.zeros(len(sets), N + 1))


def test_bad_requests_are_refused(world):
    part, scores = world
    with pytest.raises(SettingError, match="Did you mean"):
        run(part, table(scores), metrics=["recal@10"])
    with pytest.raises(DataError, match="attributes"):
        run(part, table(scores), metrics=["intra_list_diversity@10"])
    with pytest.raises(DataError, match="no queries"):
        run(part_of([], []), table(scores))


def test_the_record_is_plain_json_and_reads_back(world):
    part, scores = world
    found = run(part, table(scores), intervals=True, slices=True, system="popular", data="shop", fingerprint="f")
    record = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert {"system", "data", "fingerprint", "part", "protocol", "users", "metrics", "ci", "slices", "seconds"} <= set(record)
    assert record["users"] == Q and record["protocol"]["mask"] == "train+valid" and record["part"] == "test"
    assert "values" not in record and "_values" not in record
    assert Evaluation.of(record).metrics == found.metrics
    assert found.values["ndcg@10"].mean() == pytest.approx(found.metrics["ndcg@10"])
    assert found.user_codes.tolist() == list(range(Q))
    low, high = found.ci["recall@10"]
    assert low <= found.metrics["recall@10"] <= high
    assert "60 test queries" in found.warnings[0]


def test_vectors_for_diversity_from_categories_or_from_the_log():
    train = Log(np.array([0, 2, 4]), np.array([0, 1, 2, 3], dtype=np.int32), 4)
    items = pl.DataFrame({"item": ["a", "b", "c", "d"], "tags": [["x", "y"], ["x"], None, []], "kind": ["p", "p", None, "q"]})
    tags = diversity_vectors(train, items, {"tags": "categories", "kind": "category"})
    assert tags @ tags.T == pytest.approx(np.array([[1, 0.5**0.5, 0, 0], [0.5**0.5, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]), abs=1e-6)
    kinds = diversity_vectors(train, items, {"kind": "category"})
    assert (kinds @ kinds.T)[0].tolist() == [1, 1, 0, 0]
    had = diversity_vectors(train, items, {})
    assert (had @ had.T).round(6).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    wide = diversity_vectors(Log(np.arange(501), np.arange(500, dtype=np.int32), 500), items, {})
    assert wide.shape == (500, 64) and np.abs(wide @ wide.T - np.eye(500)).mean() < 0.15


def test_lists_that_cannot_fit_are_refused(world, monkeypatch):
    part, scores = world[0], world[1]
    monkeypatch.setattr("vitrail.evaluation.evaluator.free_memory", lambda: 1)
    with pytest.raises(ResourceError, match=r"Measuring the test part needs about .* of memory"):
        run(part, table(scores))
