"""Views that hide features: what tells of what, worked by hand, and views that share nothing."""

import math

import numpy as np
import pytest
import torch

from vitrail.blocks.masking import correlations, hidden, mutual_information


def test_mutual_information():
    two = np.array([0, 1, 0, 1])
    assert mutual_information(two, two) == pytest.approx(math.log(2))
    assert mutual_information(two, 1 - two) == pytest.approx(math.log(2)), "what a value is called tells nothing"
    assert mutual_information(two, np.array([0, 0, 1, 1])) == pytest.approx(0)
    assert mutual_information(two, np.zeros(4, dtype=int)) == pytest.approx(0)
    # 1/2 log(1/2 / (3/4 1/2)) + 1/4 log(1/4 / (3/4 1/2)) + 1/4 log(1/4 / (1/4 1/2))
    by_hand = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3) + 0.25 * math.log(2)
    assert mutual_information(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])) == pytest.approx(by_hand)
    assert mutual_information(np.empty(0, dtype=int), np.empty(0, dtype=int)) == 0.0


def test_a_seed_is_hidden_with_what_tells_most_of_it():
    a, b, c = np.array([0, 0, 1, 1] * 2), np.array([0, 1] * 4), np.array([0] * 4 + [1] * 4)
    correlation = correlations([a, b, a, c])  # 0 and 2 are one feature
    torch.manual_seed(0)
    views = hidden(200, correlation, "correlated")
    assert views.shape == (200, 4) and (views.sum(1) == 3).all(), "the seed and two more of four"
    seed_of_pair = views[:, 0] | views[:, 2]
    assert (views[:, 0] & views[:, 2])[seed_of_pair].float().mean() > 0.5
    three = hidden(200, correlation[:3, :3], "correlated")
    assert (three.sum(1) == 2).all()
    assert (three[three[:, 0] | three[:, 2]][:, [0, 2]].sum(1) == 2).float().mean() > 0.6, "0 hides 2 and 2 hides 0; 1 hides either"


def test_a_random_half():
    views = hidden(300, torch.zeros(5, 5), "random")
    assert (views.sum(1) == 3).all() and views.float().mean(0).min() > 0.4


@pytest.mark.parametrize("count", [1, 2])
def test_few_features(count):
    views = hidden(10, torch.eye(count), "correlated")
    assert (views.sum(1) == 1).all(), "with two, one is left to be told apart by"
