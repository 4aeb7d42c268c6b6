"""Every approximate kind against the exact index: filters at every selectivity, changes, disk, threads, torch beside faiss."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.index.ann import KINDS, AnnIndex, Plan, lists_for, recall, recalls
from vitrail.index.base import Filter, Index
from vitrail.index.exact import ExactIndex
from vitrail.index.store import open_index

N, D = 1500, 16


def ids_of(n):
    return [f"i{number}" for number in range(n)]


@pytest.fixture(scope="module")
def pairs(cloud, thorough):
    X = cloud(N, D)
    return {(kind, metric): (X, thorough(kind, ids_of(N), X, metric=metric), ExactIndex(ids_of(N), X, metric=metric))
            for kind in KINDS for metric in (("ip", "cosine") if kind == "ivf" else ("cosine",))}  # fmt: skip


@given(st.sampled_from([1.0, 0.5, 0.1, 0.01, 0.001, 0.0]), st.integers(0, 2**31), st.integers(1, 20), st.sampled_from(["random", "far"]))
@settings(max_examples=15, deadline=None)
def test_filters_at_every_selectivity(pairs, cloud, share, seed, k, form):
    rng = np.random.default_rng(seed)
    Q = cloud(40, D, seed)
    for (kind, metric), (X, index, exact) in pairs.items():
        mask = rng.random(N) < share
        if form == "far":  # what passes is far from the query: the hardest filter for whoever filters on the way
            mask = np.argsort(np.argsort(X @ Q[0])) < share * N
        allowed = {name for name, keep in zip(ids_of(N), mask, strict=True) if keep}
        hits, truth = index.search(Q, k, Filter(mask=mask)), exact.search(Q, k, Filter(mask=mask))
        assert [len(row) for row in hits.lists()] == [min(k, len(allowed))] * 40
        assert all(set(row) <= allowed and len(set(row)) == len(row) for row in hits.lists())
        assert (hits.scores[:, 1:] <= hits.scores[:, :-1]).all()
        assert recall(hits.scores, truth.scores) >= 0.85, (kind, metric)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_vectors(pairs, kind):
    X, index, _ = pairs[kind, "cosine"]
    hits = index.search(X[:10], 5)
    for row, (names, scores) in enumerate(zip(hits.ids.tolist(), hits.scores, strict=True)):
        np.testing.assert_allclose(scores, index.vectors(names) @ index.vectors([f"i{row}"])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_of_changes_save_and_load(kind, cloud, thorough, tmp_path):
    X, rng = cloud(300, D), np.random.default_rng(3)
    index, exact = thorough(kind, ids_of(300), X), ExactIndex(ids_of(300), X)

    def same(found):
        for ask in (None, Filter(mask=rng.random(len(exact)) < 0.3)):
            hits, truth = found.search(X[:20], 10, ask), exact.search(X[:20], 10, ask)
            assert recall(hits.scores, truth.scores) >= 0.95
            assert {name for row in hits.lists() for name in row} <= set(exact.ids)

    for turn in range(4):
        new, some = cloud(30, D, turn), [str(name) for name in rng.choice(exact.ids, 40, replace=False)]
        for each in (index, exact):
            each.add([f"n{turn}-{number}" for number in range(30)], new)
            each.replace(some[:20], new[:20])
            each.remove(some[20:])
            each.add([], np.empty((0, D)))
        same(index)
        index.save(tmp_path / "index", overwrite=True)
        opened = open_index(tmp_path / "index")
        assert type(opened) is AnnIndex and opened.stats() == index.stats() and opened.ids == index.ids
        a, b = index.search(X[:9], 7), opened.search(X[:9], 7)
        assert (a.ids == b.ids).all() and (a.scores == b.scores).all()
        same(opened)
        index = opened  # what was mapped is changed in the next turn, the file is not
    assert index.stats()["dead"] <= 0.2 * index.rows.n


def test_what_is_mapped_changes_in_memory_alone(cloud, thorough, tmp_path):
    X = cloud(200, D)
    thorough("hnsw", ids_of(200), X).save(tmp_path / "index")
    opened = open_index(tmp_path / "index")
    opened.add(["new"], 9 * X[:1])
    opened.remove(["i0"])
    assert opened.search(X[0], 1).lists() == [["new"]]
    again = open_index(tmp_path / "index")
    assert len(again) == 200 and again.ids == ids_of(200)


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "ivf-sq8"])
def test_threads_find_what_one_finds_while_items_come_and_go(kind, cloud, thorough):
    X = cloud(600, D)
    index = thorough(kind, ids_of(600), X)
    asked = [None, Filter(mask=np.arange(600) % 3 == 0), Filter(ids=ids_of(50)), None]
    serial = [index.search(X[:40], 5, ask).ids for ask in asked]
    found, wrong = [None] * 4, []

    def ask(place):
        for _ in range(5):
            found[place] = index.search(X[:40], 5, asked[place]).ids

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((a == b).all() for a, b in zip(serial, found, strict=True))

    def follow():
        try:
            for _ in range(30):
                lists = index.search(X[:10], 5, Filter(where=None, ids=[*ids_of(600), "come"])).lists()
                assert all(len(row) == 5 for row in lists)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=follow) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(15):
        index.add(["come"], X[turn : turn + 1])
        index.remove(["come"])
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_filter_it_does_badly_under_is_answered_exactly(cloud):
    X = cloud(4000, D)
    index, exact = AnnIndex(ids_of(4000), X, kind="ivf", plan=Plan(effort=1, target=1.0)), ExactIndex(ids_of(4000), X)
    mask = np.argsort(np.argsort(X @ X[0])) < 1200  # the query's own lists hold nothing that passes
    for _ in range(2):
        assert index.search(X[:60], 10, Filter(mask=mask)).lists()[:16] == exact.search(X[:60], 10, Filter(mask=mask)).lists()[:16]
    assert index.search(X[:60], 10, Filter(mask=mask)).lists() == exact.search(X[:60], 10, Filter(mask=mask)).lists()


def test_the_measured_cost_decides_between_the_ways(cloud):
    X = cloud(400, D)
    index = AnnIndex(ids_of(400), X, kind="ivf", plan=Plan(seconds=1e-3, gather=0.0, dot=1e-5))
    few, many = index._keep(Filter(ids=ids_of(30))), index._keep(Filter(ids=ids_of(390)))
    assert index._scan_is_cheaper(few, 10, 1) and not index._scan_is_cheaper(many, 10, 1)


def test_short_lists_and_long_ones(cloud):
    X = cloud(400, D)
    index = AnnIndex(ids_of(400), X, kind="ivf")  # one list is looked into: too few answers are filled up
    assert [len(row) for row in index.search(X[:5], 200).lists()] == [200] * 5
    assert [len(row) for row in index.search(X[:5], 500).lists()] == [400] * 5
    small = AnnIndex(["a", "b"], X[:2], kind="hnsw")
    assert len(small.search(X[:1], 9).lists()[0]) == 2


def test_equal_scores_are_ordered_by_the_hash_of_the_id(cloud):
    X = np.repeat(cloud(3, D), 4, axis=0)
    for kind in ("ivf", "hnsw", "ivf-sq8"):
        index = AnnIndex(ids_of(12), X, kind=kind, plan=Plan(effort=8, refine=4 if kind == "ivf-sq8" else 0))
        assert index.search(X[:3], 12).lists() == ExactIndex(ids_of(12), X).search(X[:3], 12).lists()


def test_recall_counts_equals_as_found_and_nothing_as_all():
    truth = np.array([[3.0, 2.0], [1.0, -np.inf], [-np.inf, -np.inf]], dtype=np.float32)
    found = np.array([[3.0, 1.0], [1.0, 0.5], [-np.inf, -np.inf]], dtype=np.float32)
    assert recalls(found, truth).tolist() == [0.5, 1.0, 1.0]
    assert recall(found[:0], truth[:0]) == 1.0


def test_lists_grow_with_the_root_and_it_is_an_index(pairs):
    assert [lists_for(n) for n in (0, 1, 100, 100_000, 1_000_000)] == [1, 2, 16, 512, 1024]
    assert all(isinstance(index, Index) for _, index, _ in pairs.values())


@pytest.mark.parametrize("first", ["faiss", "torch"])
def test_torch_and_faiss_work_in_one_process_whichever_comes_first(first):
    second = {"faiss": "torch", "torch": "faiss"}[first]
    code = f"""
import {first}
import {second}
import numpy as np
from vitrail.index.ann import AnnIndex
torch.set_num_threads(2)
X = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
index = AnnIndex([str(n) for n in range(3000)], X, kind="ivf")
for _ in range(3):
    product = torch.from_numpy(X) @ torch.from_numpy(X[:400]).T
    index.search(X[:400], 5)
    product.topk(5, dim=0)
print("whole")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "whole", done.stderr
