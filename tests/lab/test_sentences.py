import numpy as np
import pytest

from vitrail.evaluation.compare import Test as Outcome
from vitrail.evaluation.compare import comparison
from vitrail.evaluation.evaluator import Evaluation
from vitrail.evaluation.intervals import holm
from vitrail.evaluation.protocol import PROTOCOLS
from vitrail.lab.sentences import bare, effect, gain, p_text, sentence, sentences


def made(system, values):
    mean = float(np.mean(values))
    found = Evaluation(
        system=system, data="shop", fingerprint="f", part="test", protocol=PROTOCOLS["ratio"], users=len(values), metrics={"ndcg@10": mean}, seconds=1.0
    )
    found._values["ndcg@10"] = np.asarray(values, dtype=float)
    found._user_codes = np.arange(len(values))
    return found


@pytest.fixture
def three():
    rng = np.random.default_rng(0)
    base = rng.random(600)
    return [made("winner", base * 1.5), made("even", base), made("twin", base + rng.normal(0, 0.02, 600))]


def test_a_planted_winner_and_a_planted_tie(three):
    said = sentences(comparison(three))
    assert "winner beats even by 50.0 % NDCG@10 (p < .001, Holm)." in said
    tie = next(text for text in said if "cannot" in text)
    assert tie.startswith(("even and twin", "twin and even")) and "cannot be told apart in NDCG@10 (difference " in tie and ", 95 % interval -." in tie


def test_the_loser_may_be_named_first(three):
    against = comparison(three, baseline="winner")
    assert all(text.startswith("winner beats") for text in sentences(against))


def test_an_interval_without_zero_that_the_correction_undoes_says_so():
    test = Outcome(metric="ndcg@10", a="a", b="b", diff=0.01, ci=(0.001, 0.02), p=0.03, p_holm=0.09, n=100)
    assert sentence(test, {"a": 0.5, "b": 0.49}).endswith("(difference .0100, 95 % interval .0010 to .0200, p = .090 after Holm's correction).")


def test_effects(three):
    compared = comparison(three)
    test = next(t for t in compared.tests if {t.a, t.b} == {"winner", "even"})
    found = effect(test, three[0], three[1])
    d = three[0].values["ndcg@10"] - three[1].values["ndcg@10"]
    assert found.relative == pytest.approx(0.5) and found.cohens_d == pytest.approx(d.mean() / d.std(ddof=1))
    same = effect(test, three[1], three[1])
    assert same.cohens_d is None
    pairs = np.repeat(np.arange(300), 2)
    whole = effect(test, three[0], three[1], pairs)
    assert whole.cohens_d == pytest.approx(d.reshape(300, 2).mean(1).mean() / d.reshape(300, 2).mean(1).std(ddof=1))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06]) and holm([0.6, 0.5]) == [1.0, 1.0] and holm([]) == []


def test_numbers_without_a_zero_before_the_point():
    assert (bare(0.0123), bare(-0.0011), bare(-0.00001), bare(1.5), bare(0.05, 2)) == (".0123", "-.0011", ".0000", "1.5000", ".05")
    assert (p_text(0.0004), p_text(0.032), p_text(1.0)) == ("p < .001", "p = .032", "p = 1.000")
    assert (gain(0.1, 0.2), gain(3, 0.5), gain(0.1, 0.0)) == ("50.0 %", "600 %", ".1000")
