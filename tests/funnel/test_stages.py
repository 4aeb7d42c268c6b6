"""The stages behind retrieval, with rankers that are fakes: order, lateness, mixing, pages, exploration."""

import threading

import numpy as np
import pytest
import torch

from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.errors import VitrailError
from vitrail.funnel.clock import Clock
from vitrail.funnel.fuse import Found, fuse
from vitrail.funnel.rules import Rules, Ruling
from vitrail.funnel.stages import Layout, Ranking, explore, mixed, signals
from vitrail.systems.policy import find_policy
from vitrail.systems.slate import find_slate

NOBODY = Sets(torch.tensor([-1, -1]), torch.tensor([0, 0, 0]), torch.empty(0, dtype=torch.int64))


class FakeRanker:
    """Likes the items with the highest codes; remembers what it was told."""

    def __init__(self, gate=None, nan=False):
        self.gate, self.nan, self.told = gate, nan, []

    def eval(self):
        return self

    def score(self, histories, candidates, now=None, context=None):
        self.told.append((now, context))
        if self.gate is not None:
            self.gate.wait(10)
        return candidates.float() / 100 if not self.nan else torch.full(candidates.shape, torch.nan)


@pytest.fixture
def fused():
    return fuse([Found("a", np.array([[1, 2, 3], [5, -1, -1]]), np.array([[9.0, 8, 7], [6, 0, 0]]))], [1.0], 10, np.arange(10))


def test_a_ranker_is_told_what_retrieval_said(fused):
    model = FakeRanker()
    ranking = Ranking(model)
    scores = ranking.scores(NOBODY, fused, np.array([7, 8]))
    now, context = model.told[0]
    assert now.tolist() == [7, 8] and set(context) == {"retrieval score", "retrieval sources", "rank a", "score a"}
    np.testing.assert_array_equal(context["rank a"].to_numpy(), [1.0, 2.0, 3.0, 1.0, np.nan, np.nan])
    assert context["score a"].to_list()[:3] == [9.0, 8.0, 7.0]
    assert scores[0].tolist() == pytest.approx([0.01, 0.02, 0.03]) and np.isneginf(scores[1, 1:]).all()
    order = ranking.order(fused, scores)
    assert np.take_along_axis(fused.codes, order, axis=1).tolist() == [[3, 2, 1], [5, -1, -1]]


def test_a_ranker_that_counts_is_told_what_happened():
    log = Log(np.array([0, 1]), np.zeros(1, dtype=np.int32), 1, np.array([5]))
    model = FakeRanker()
    Ranking(model).observe(log)  # it does not count
    model.observe = model.told.append
    Ranking(model).observe(log)
    Ranking(model).observe(Log(log.indptr, log.items, 1))  # no clock, nothing to count
    assert model.told == [log]


def test_nan_is_refused(fused):
    with pytest.raises(VitrailError, match="NaN"):
        Ranking(FakeRanker(nan=True)).scores(NOBODY, fused, None)


def test_any_system_can_rank(fused):
    class Plain:
        def eval(self):
            return self

        def answerable(self, histories):
            return torch.tensor([True, False])

        def scores(self, histories):
            return -torch.arange(10).float().expand(2, -1)

    scores = Ranking(Plain()).scores(NOBODY, fused, None)
    assert scores[0].tolist() == [-1, -2, -3] and scores[1, 0] == pytest.approx(fused.scores[1, 0])


def test_a_late_ranker_is_left_out_and_not_asked_again_while_it_is_busy(fused):
    gate = threading.Event()
    model = FakeRanker(gate)
    ranking = Ranking(model)
    assert ranking.in_time(NOBODY, fused, None, 5.0) is None
    assert ranking.in_time(NOBODY, fused, None, 5.0) is None
    gate.set()
    ranking._busy.result()
    assert len(model.told) == 1
    assert ranking.in_time(NOBODY, fused, None, 10_000.0) is not None and len(model.told) == 2
    assert ranking.in_time(NOBODY, fused, None, None) is not None


def test_mixing_orders():
    order = np.array([[2, 1, 0]])
    assert mixed(order, 1.0).tolist() == [[0, 1, 2]] and mixed(order, 0.01).tolist() == [[2, 1, 0]]
    fused = fuse([Found("a", np.array([[4, 5, 6]]), np.array([[3.0, 2, 1]]))], [1.0], 10, np.arange(10))
    assert Ranking(FakeRanker(), mix=1.0).order(fused, np.array([[0.1, 0.2, 0.3]])).tolist() == [[0, 1, 2]]


def test_no_candidates_at_all():
    empty = fuse([Found("a", np.full((2, 1), -1), np.zeros((2, 1)))], [1.0], 10, np.arange(10))
    assert Ranking(FakeRanker()).scores(NOBODY, empty, None).shape == (2, 0)
    assert {name: len(column) for name, column in signals(empty).items()} == {"retrieval score": 0, "retrieval sources": 0, "rank a": 0, "score a": 0}
    page, pinned = Layout(None, None, np.zeros((10, 2), dtype=np.float32)).rule(empty.codes, 3, np.array([-1, -1]), None)
    assert (page == -1).all() and not pinned.any()


def test_a_slate_leads_and_the_rest_follows():
    cls = find_slate("mmr")
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 2]]
    layout = Layout(cls(cls.Config.of({"weight": 0.3})), None, vectors)
    codes, scores = np.array([[0, 1, 2, 3, 4], [4, 3, -1, -1, -1]]), np.array([[5.0, 4, 3, 2, 1], [2, 1, -np.inf, -np.inf, -np.inf]])
    arranged = layout.arrange(codes, scores, 3)
    assert arranged.tolist() == [[0, 3, 4, 1, 2], [4, 3, -1, -1, -1]]


def test_exploration_keeps_pins_and_says_its_chances():
    import polars as pl

    items = pl.DataFrame({"item": [f"i{n}" for n in range(8)], "kind": ["a"] * 8})
    ruling = Ruling(Rules.of({"pin": [{"item": "i7", "position": 2}]}), items, pl.DataFrame({"user": ["u"]}))
    codes, scores = np.tile(np.arange(6), (500, 1)), np.tile(np.linspace(1, 0.5, 6), (500, 1))
    page, pinned = Layout(None, ruling, np.zeros((8, 1), dtype=np.float32)).rule(codes, 3, np.full(500, -1), None)
    assert page[0].tolist() == [0, 7, 1] and pinned[0].tolist() == [False, True, False]
    cls = find_policy("epsilon-greedy")
    shown, chance = explore(cls(cls.Config.of({"epsilon": 0.5})), page, pinned, codes, scores, 6, np.zeros(8), np.random.default_rng(0))
    assert (shown[:, 1] == 7).all() and (chance[:, 1] == 1.0).all()
    assert all(len(set(row)) == 3 for row in shown.tolist())
    first = shown[:, 0] == 0
    assert first.mean() == pytest.approx(0.5 + 0.5 / 6, abs=0.07) and chance[first, 0] == pytest.approx(0.5 + 0.5 / 6)
    assert chance[~first, 0] == pytest.approx(0.5 / 6)


def test_exploration_of_short_and_fully_pinned_pages():
    cls = find_policy("thompson")
    policy = cls(cls.Config.of({"draws": 10}))
    page, pinned = np.array([[3, -1], [4, 5]]), np.array([[False, False], [True, True]])
    shown, chance = explore(policy, page, pinned, np.array([[3, -1], [1, 2]]), np.array([[0.5, -np.inf], [0.2, 0.1]]), 5, np.zeros(8), np.random.default_rng(0))
    assert shown[0].tolist() == [3, -1] and np.isnan(chance[0, 1]) and shown[1].tolist() == [4, 5] and chance[1].tolist() == [1.0, 1.0]


def test_the_clock_adds_up():
    clock = Clock()
    clock.lap("a")
    clock.lap("b")
    clock.lap("a")
    assert set(clock.rounded()) == {"a", "b"} and clock.total == pytest.approx(sum(clock.ms.values()))
