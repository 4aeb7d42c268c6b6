"""Slates: the battery every one passes, the hand values of the card, and the fast forms against plain ones."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrail.errors import SettingError
from vitrail.systems import registry
from vitrail.systems.slate import Candidates, Slate, find_slate, scaled, slates

CARD = np.array([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]])
"""S of the card's checks, and vectors of which it is the product."""
F = np.linalg.cholesky(CARD)


def make(name, **settings):
    cls = find_slate(name)
    return cls(cls.Config.of(settings))


def candidates(b, n, d, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(b, n, d))
    return Candidates(-np.sort(-rng.normal(size=(b, n)), axis=1), vectors / np.linalg.norm(vectors, axis=2, keepdims=True))


def greedy_by_determinants(scores, vectors, k, theta):
    """The plain reference: of every item left, the one that makes log det of the kernel largest."""
    q = np.exp(theta / (2 * (1 - theta)) * scores)
    L = q[:, None] * (vectors @ vectors.T) * q[None, :]
    page = []
    for _ in range(k):
        left = [i for i in range(len(scores)) if i not in page]
        page.append(max(left, key=lambda i: np.linalg.slogdet(L[np.ix_([*page, i], [*page, i])])[1]))
    return page


# the battery


@pytest.mark.parametrize("name", slates())
class TestBattery:
    def test_a_page_is_a_choice_without_repeats(self, name):
        page = make(name).arrange(candidates(5, 30, 8), 10)
        assert page.shape == (5, 10) and page.min() >= 0 and page.max() < 30
        assert all(len(set(row)) == 10 for row in page.tolist())

    def test_more_places_than_candidates(self, name):
        page = make(name).arrange(candidates(2, 3, 4), 6)
        assert [sorted(row[:3]) for row in page.tolist()] == [[0, 1, 2]] * 2 and (page[:, 3:] == -1).all()

    def test_no_candidates_and_no_requests(self, name):
        assert (make(name).arrange(candidates(2, 0, 4), 3) == -1).all()
        assert make(name).arrange(candidates(0, 5, 4), 3).shape == (0, 3)

    def test_absent_candidates_are_never_shown(self, name):
        asked = candidates(2, 6, 4)
        asked.scores[0, 2:] = -np.inf
        asked.scores[1] = -np.inf
        page = make(name).arrange(asked, 4)
        assert sorted(page[0, :2].tolist()) == [0, 1] and (page[0, 2:] == -1).all() and (page[1] == -1).all()

    def test_duplicates_and_equal_scores(self, name):
        same = Candidates(np.zeros((1, 5)), np.tile([1.0, 0.0], (1, 5, 1)))
        assert make(name).arrange(same, 5).tolist() == [[0, 1, 2, 3, 4]]

    def test_items_of_which_nothing_is_known(self, name):
        blank = Candidates(np.array([[3.0, 2.0, 1.0]]), np.zeros((1, 3, 2)))
        assert make(name).arrange(blank, 3).tolist() == [[0, 1, 2]]

    def test_alone_and_in_a_batch(self, name):
        asked = candidates(7, 20, 5)
        together = make(name).arrange(asked, 6)
        alone = [make(name).arrange(Candidates(asked.scores[i : i + 1], asked.vectors[i : i + 1]), 6)[0] for i in range(7)]
        np.testing.assert_array_equal(together, alone)

    def test_scores_on_another_scale_give_the_same_page(self, name):
        asked = candidates(3, 20, 5)
        np.testing.assert_array_equal(make(name).arrange(asked, 6), make(name).arrange(Candidates(asked.scores * 1000 + 7, asked.vectors), 6))

    def test_nothing_of_the_candidates_is_changed(self, name):
        asked = candidates(2, 10, 4)
        before = asked.scores.copy(), asked.vectors.copy()
        make(name).arrange(asked, 5)
        assert (asked.scores == before[0]).all() and (asked.vectors == before[1]).all()

    def test_it_is_listed_and_explained(self, name):
        card, config = registry.part(name)
        assert card.stage == "arrange" and card.summary and config.model_fields
        assert name in {c.name for c in registry.cards()}


def test_names_and_shapes_are_checked():
    with pytest.raises(SettingError, match='Did you mean "mmr"'):
        find_slate("mrr")
    with pytest.raises(SettingError, match="no system"):
        registry.part("no such part")
    with pytest.raises(SettingError, match="Candidates need"):
        Candidates(np.zeros((2, 3)), np.zeros((2, 4, 1)))
    with pytest.raises(SettingError, match="theta"):
        make("dpp", theta=1.0)


# the card


def test_greedy_on_the_card_s_kernel():
    """det{0,1} = .171475, {0,2} = .25, {1,2} = .225625; greedy takes 0, then 2."""
    q = np.array([1, 0.95, 0.5])
    L = q[:, None] * CARD * q
    for pair, det in (((0, 1), 0.171475), ((0, 2), 0.25), ((1, 2), 0.225625)):
        assert np.linalg.det(L[np.ix_(pair, pair)]) == pytest.approx(det)
    asked = Candidates(np.log(q)[None] * 2, F[None])  # theta = .5: alpha = .5, so that q = exp(r / 2)
    assert make("dpp", theta=0.5, scale="raw").arrange(asked, 2).tolist() == [[0, 2]]


def test_mmr_on_the_card_s_similarities():
    asked = Candidates(np.array([[1, 0.95, 0.5]]), F[None])
    assert make("mmr", weight=0.5, scale="raw").arrange(asked, 2).tolist() == [[0, 2]]  # .25 against .025
    assert make("mmr", weight=1.0).arrange(asked, 3).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("theta", [0.1, 0.5, 0.9])
def test_fast_greedy_is_greedy_by_determinants(theta):
    asked = candidates(6, 30, 8, seed=3)
    page = make("dpp", theta=theta, scale="raw").arrange(asked, 8)
    for row in range(6):
        assert page[row].tolist() == greedy_by_determinants(asked.scores[row], asked.vectors[row], 8, theta)


def test_half_cosine_is_greedy_on_that_kernel():
    asked = candidates(1, 12, 4, seed=5)
    S = (1 + asked.vectors[0] @ asked.vectors[0].T) / 2
    halves = np.linalg.cholesky(S + 1e-12 * np.eye(12))
    expected = greedy_by_determinants(asked.scores[0], halves, 4, 0.5)
    assert make("dpp", theta=0.5, scale="raw", similarity="half").arrange(asked, 4).tolist() == [expected]


def test_a_window_as_wide_as_the_page_changes_nothing_and_a_narrow_one_forgets():
    asked = candidates(4, 25, 12, seed=1)
    np.testing.assert_array_equal(make("dpp", window=10).arrange(asked, 10), make("dpp").arrange(asked, 10))
    for row, page in enumerate(make("dpp", theta=0.4, scale="raw", window=2).arrange(asked, 6).tolist()):
        for place in range(1, 6):
            window = page[max(0, place - 2) : place]
            q = np.exp(asked.scores[row] * (1 / 3))
            L = q[:, None] * (asked.vectors[row] @ asked.vectors[row].T) * q
            left = [i for i in range(25) if i not in page[:place]]
            assert page[place] == max(left, key=lambda i, L=L, w=window: np.linalg.slogdet(L[np.ix_([*w, i], [*w, i])])[1])


def test_where_the_rank_is_used_up_relevance_goes_on():
    """Two categories as one-hot vectors: after one of each, the rest follows by score."""
    scores = np.array([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    vectors = np.eye(2)[[0, 0, 0, 1, 1, 0]][None]
    assert make("dpp").arrange(Candidates(scores, vectors), 6).tolist() == [[0, 3, 1, 2, 4, 5]]


def test_orthonormal_items_and_no_quality_have_determinant_one():
    asked = Candidates(np.linspace(1, 0, 6)[None], np.eye(6)[None])
    assert sorted(make("dpp", theta=0.0).arrange(asked, 6)[0].tolist()) == list(range(6))


@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 1000))
def test_mmr_is_its_definition(n, k, seed):
    rng = np.random.default_rng(seed)
    scores, vectors = rng.normal(size=n), rng.normal(size=(n, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    page = [int(scores.argmax())]
    while len(page) < min(k, n):
        left = [i for i in range(n) if i not in page]
        page.append(max(left, key=lambda i: 0.6 * scores[i] - 0.4 * max(float(vectors[i] @ vectors[j]) for j in page)))
    found = make("mmr", weight=0.6, scale="raw").arrange(Candidates(scores[None], vectors[None]), k)[0]
    assert [p for p in found.tolist() if p >= 0] == page


def test_scales():
    scores = np.array([[4.0, 2.0, 2.0, -np.inf], [1.0, 1.0, 1.0, 1.0]])
    assert scaled(scores, "minmax").tolist() == [[1.0, 0.0, 0.0, -np.inf], [0.0] * 4]
    assert scaled(scores, "rank")[0].tolist() == [1.0, 0.75, 0.5, -np.inf]
    standard = scaled(scores, "standard")
    assert standard[0, :3].mean() == pytest.approx(0) and standard[0, :3].std() == pytest.approx(1) and (standard[1] == 0).all()
    assert (scaled(scores, "raw") == scores).all()


def test_diversity_is_bought_with_relevance():
    """Along weight and theta, pages grow less diverse and more relevant."""
    drawn = candidates(20, 40, 12, seed=2)
    vectors = drawn.vectors + np.where(np.arange(40) < 20, 1.0, 0.0)[:, None] * np.eye(12)[0]  # the best are alike
    asked = Candidates(drawn.scores, vectors / np.linalg.norm(vectors, axis=2, keepdims=True))

    def page_of(name, **settings):
        page = make(name, **settings).arrange(asked, 8)
        vectors = np.take_along_axis(asked.vectors, page[:, :, None], axis=1)
        alike = np.mean([[float(v[i] @ v[j]) for i, j in itertools.combinations(range(8), 2)] for v in vectors])
        return alike, np.take_along_axis(asked.scores, page, axis=1).mean()

    for name, key, low, high in (("mmr", "weight", 0.2, 0.95), ("dpp", "theta", 0.1, 0.95)):
        diverse, relevant = page_of(name, **{key: low}), page_of(name, **{key: high})
        assert diverse[0] < relevant[0] and diverse[1] < relevant[1]


def test_a_dial_of_diversity_from_relevance_to_difference():
    shown = candidates(1, 12, 4)
    by_relevance = np.argsort(-shown.scores, axis=1, kind="stable")[:, :5]
    for name in ("mmr", "dpp"):
        own = make(name)
        assert (own.with_diversity(own.diversity).arrange(shown, 5) == own.arrange(shown, 5)).all()
        assert own.with_diversity(0.4).diversity == pytest.approx(0.4) and own.with_diversity(1.0).diversity == 1.0
    assert (make("mmr").with_diversity(0.0).arrange(shown, 5) == by_relevance).all()
    assert (make("dpp").with_diversity(0.0).arrange(shown, 5) == by_relevance).all()

    class Fixed(Slate):
        card = make("mmr").card

    assert Fixed().diversity is None
    with pytest.raises(SettingError, match="no setting for diversity"):
        Fixed().with_diversity(0.5)
