import json

import numpy as np
import pytest

from vitrail.errors import SettingError
from vitrail.evaluation.compare import comparison, names_of
from vitrail.evaluation.evaluator import Evaluation
from vitrail.evaluation.protocol import PROTOCOLS


def made(system, values, **more):
    given = {"data": "shop", "fingerprint": "f", "part": "test", "protocol": PROTOCOLS["ratio"], "seconds": 1.0, **more}
    mean = float(np.mean(values))
    found = Evaluation(system=system, users=len(values), metrics={"ndcg@10": mean, "gini@10": 0.5}, ci={"ndcg@10": (mean - 0.01, mean + 0.01)}, **given)
    found._values["ndcg@10"] = np.asarray(values, dtype=float)
    found._user_codes = np.arange(len(values))
    return found


@pytest.fixture
def three():
    rng = np.random.default_rng(0)
    base = (rng.random(800) < 0.2).astype(float)
    return [made("weak", base * (rng.random(800) < 0.7)), made("even", base), made("twin", rng.permutation(base))]


def test_best_first_with_tests_of_every_pair(three):
    found = comparison(three)
    assert found.rows[-1].system == "weak" and len(found.tests) == 3
    weak = next(test for test in found.tests if {test.a, test.b} == {"even", "weak"})
    assert weak.diff == pytest.approx(three[1].metrics["ndcg@10"] - three[0].metrics["ndcg@10"]) and weak.p_holm < 0.01 and weak.ci[0] > 0
    twin = next(test for test in found.tests if {test.a, test.b} == {"even", "twin"})
    assert twin.p_holm > 0.05 and all(test.p_holm >= test.p for test in found.tests)
    assert set(json.loads(json.dumps(found.as_json()))["tests"][0]) == {"metric", "a", "b", "diff", "ci", "p", "p_holm", "n"}


def test_against_a_baseline(three):
    assert {(test.a, test.b) for test in comparison(three, baseline="weak").tests} == {("even", "weak"), ("twin", "weak")}
    with pytest.raises(SettingError, match='Did you mean "weak"'):
        comparison(three, baseline="waek")


def test_what_cannot_stand_in_one_table_is_refused(three):
    values = three[0].values["ndcg@10"]
    cases = {
        "fingerprints": {"fingerprint": "g"},
        "parts": {"part": "valid"},
        "protocols": {"protocol": PROTOCOLS["mmrec"]},
    }
    for word, change in cases.items():
        with pytest.raises(SettingError, match=word):
            comparison([three[0], made("other", values, **change)])
    other = made("other", values)
    other._user_codes = np.arange(800)[::-1]
    with pytest.raises(SettingError, match="different queries"):
        comparison([three[0], other])
    with pytest.raises(SettingError, match="nothing to compare"):
        comparison([])
    with pytest.raises(SettingError, match="Did you mean"):
        comparison(three, metric="ndcg@11")


def test_without_single_values_there_is_a_table_but_no_test(three):
    read = [Evaluation.of(e.as_json()) for e in three]
    found = comparison(read)
    assert len(found.rows) == 3 and not found.tests and "evaluate again" in found.warnings[0]
    assert not comparison(three, metric="gini@10").tests


def test_names_are_told_apart(three):
    assert names_of([three[0], three[0], three[1], three[0]]) == ["weak", "weak (2)", "even", "weak (3)"]
