"""Policies: what is shown, and that the chances that are logged are the chances there are."""

import itertools

import numpy as np
import pytest

from vitrail.errors import SettingError
from vitrail.systems.policy import Choice, Policy, find_policy, policies
from vitrail.systems.slates.epsilon_greedy import marginals
from vitrail.systems.slates.thompson import in_slate


def make(name, **settings):
    cls = find_policy(name)
    return cls(cls.Config.of(settings))


def choice(b, n):
    return Choice(np.tile(np.linspace(1, 0.1, n), (b, 1)))


@pytest.mark.parametrize("name", policies())
class TestBattery:
    def test_pages_and_chances(self, name):
        action = make(name).act(choice(50, 12), 5, np.random.default_rng(0))
        assert action.places.shape == (50, 5) and all(len(set(row)) == 5 for row in action.places.tolist())
        for chances in (action.marginal, action.conditional):
            assert chances is None or ((chances > 0) & (chances <= 1)).all()

    def test_more_places_than_candidates_and_none_at_all(self, name):
        scores = np.array([[0.9, 0.5, -np.inf], [-np.inf] * 3])
        action = make(name).act(Choice(scores), 4, np.random.default_rng(0))
        assert sorted(action.places[0, :2].tolist()) == [0, 1] and (action.places[0, 2:] == -1).all() and (action.places[1] == -1).all()
        assert np.isnan(action.marginal[1]).all() and np.isfinite(action.marginal[0, :2]).all()

    def test_the_same_seed_is_the_same_page(self, name):
        first, second = (make(name).act(choice(9, 8), 4, np.random.default_rng(5)) for _ in range(2))
        assert (first.places == second.places).all() and (first.marginal == second.marginal).all()

    def test_candidates_must_stand_in_front(self, name):
        with pytest.raises(SettingError, match="front"):
            make(name).act(Choice(np.array([[-np.inf, 1.0]])), 1, np.random.default_rng(0))


def test_unknown_policy():
    with pytest.raises(SettingError, match='Did you mean "thompson"'):
        find_policy("thomson")


def enumerated(n, k, epsilon):
    """Chance of every page, by walking through all of them."""
    chances = {}
    for page in itertools.permutations(range(n), k):
        chance, left = 1.0, list(range(n))
        for item in page:
            chance *= (1 - epsilon) * (item == min(left)) + epsilon / len(left)
            left.remove(item)
        chances[page] = chance
    return chances


@pytest.mark.parametrize(("n", "k", "epsilon"), [(5, 3, 0.3), (4, 4, 0.5), (6, 2, 1.0), (5, 5, 0.05), (3, 3, 0.0), (1, 1, 0.4), (6, 4, 0.7)])
def test_marginals_are_those_of_all_pages(n, k, epsilon):
    table = marginals(n, k, epsilon)
    expected = np.zeros((k, n))
    for page, chance in enumerated(n, k, epsilon).items():
        for place, item in enumerate(page):
            expected[place, item] += chance
    np.testing.assert_allclose(table[:, np.minimum(np.arange(n), k)], expected, atol=1e-12)


def test_marginals_of_more_places_than_candidates():
    table = marginals(2, 4, 0.5)
    np.testing.assert_allclose(table[:2, :2].sum(1), 1.0)
    assert (table[2:] == 0).all()


def test_epsilon_greedy_shows_what_it_says():
    """Frequencies of 40,000 pages against the logged chances, marginal and conditional."""
    action = make("epsilon-greedy", epsilon=0.4).act(choice(40_000, 5), 3, np.random.default_rng(1))
    table = marginals(5, 3, 0.4)
    for place in range(3):
        seen = np.bincount(action.places[:, place], minlength=5) / 40_000
        np.testing.assert_allclose(seen, table[place, np.minimum(np.arange(5), 3)], atol=0.01)
    exact = enumerated(5, 3, 0.4)
    for page, product in zip(action.places[:200].tolist(), action.conditional[:200].prod(1), strict=True):
        assert product == pytest.approx(exact[tuple(page)])
    greedy = make("epsilon-greedy", epsilon=0.0).act(choice(2, 5), 3, np.random.default_rng(1))
    assert greedy.places.tolist() == [[0, 1, 2]] * 2 and (greedy.marginal == 1).all()


# Thompson


def test_in_slate_by_the_card():
    """Draws [.1,.9,.5,.3], [.8,.9,.1,0], [.1,.2,.3,.9]: item 1 of draw 1, its repeat in draw 2 skipped, 3 of draw 3, then the second of draw 1."""
    draws = np.array([[0.1, 0.9, 0.5, 0.3], [0.8, 0.9, 0.1, 0.0], [0.1, 0.2, 0.3, 0.9]])
    assert in_slate(draws[None], 3).tolist() == [[1, 3, 2]]
    assert in_slate(np.array([[[0.2, 0.1]]]), 1).tolist() == [[0]]


def test_no_doubt_is_greedy():
    for in_slate_ in (True, False):
        action = make("thompson", spread=0.0, in_slate=in_slate_, draws=20).act(choice(3, 6), 4, np.random.default_rng(0))
        assert action.places.tolist() == [[0, 1, 2, 3]] * 3 and (action.marginal == 1.0).all() and action.conditional is None


def test_beta_propensity_is_the_chance_of_winning():
    """Two items with Beta(3, 2) and Beta(2, 3): P(first > second) by the closed sum over integer parameters."""
    from scipy.special import beta as B

    a, b, c, d = 3, 2, 2, 3  # P(X > Y) = sum_{i<a} B(c + i, b + d) / ((b + i) B(1 + i, b) B(c, d))
    expected = sum(B(c + i, b + d) / ((b + i) * B(1 + i, b) * B(c, d)) for i in range(a))
    scores = np.array([[0.5, 0.4]])
    wins = Choice(scores, shown=np.array([[3.0, 3.0]]), clicked=np.array([[2.0, 1.0]]))
    policy = make("thompson", posterior="beta", prior=2.0, mean=0.5, draws=20_000)
    action = policy.act(wins, 1, np.random.default_rng(0))
    chance = action.marginal[0, 0] if action.places[0, 0] == 0 else 1 - action.marginal[0, 0]
    assert chance == pytest.approx(expected, abs=0.015)


def test_beta_takes_chances():
    with pytest.raises(SettingError, match="chances"):
        make("thompson", posterior="beta").act(Choice(np.array([[3.0, 1.0]])), 1, np.random.default_rng(0))
    action = make("thompson", posterior="beta", draws=50).act(Choice(np.array([[0.9, 0.1, -np.inf]])), 2, np.random.default_rng(0))
    assert sorted(action.places[0].tolist()) == [0, 1]


def test_what_was_seen_often_is_doubted_less():
    often = Choice(np.array([[1.0, 0.9]]), shown=np.array([[1e6, 1e6]]))
    never = Choice(np.array([[1.0, 0.9]]))
    policy = make("thompson", spread=2.0, draws=2000, in_slate=False)
    sure, unsure = (policy.act(asked, 1, np.random.default_rng(3)) for asked in (often, never))
    assert sure.places[0, 0] == 0 and sure.marginal[0, 0] > 0.99 and unsure.marginal[0, 0] < 0.8


def test_a_dial_of_exploration():
    assert make("epsilon-greedy").with_exploration(0.3).exploration == 0.3
    assert make("thompson", posterior="normal").with_exploration(0.0).exploration == 0.0
    beta = make("thompson", posterior="beta")
    assert beta.exploration is None
    with pytest.raises(SettingError, match="no dial of exploration"):
        beta.with_exploration(0.5)

    class Fixed(Policy):
        card = beta.card

    assert Fixed().exploration is None
