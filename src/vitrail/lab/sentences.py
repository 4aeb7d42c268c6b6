"""Numbers as sentences: one plain answer to each question of a comparison."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vitrail.config import Settings
from vitrail.evaluation.compare import Comparison, Test
from vitrail.evaluation.evaluator import Evaluation
from vitrail.evaluation.intervals import _per_user
from vitrail.evaluation.plots import label

SURE = 0.05


class Effect(Settings):
    """How large a difference is, beside how sure."""

    metric: str
    a: str
    b: str
    relative: float | None
    """(a - b) / b; none where b is 0"""
    cohens_d: float | None
    """mean over standard deviation of the users' differences; none where they do not differ"""


def effect(test: Test, a: Evaluation, b: Evaluation, clusters: npt.NDArray[np.integer] | None = None) -> Effect:
    """The size of the difference a - b. Where users ask several queries (`clusters`), a user's mean is one value."""
    difference = a.values[test.metric] - b.values[test.metric]
    sums, sizes = _per_user(np.asarray(difference, dtype=np.float64), clusters)
    each = sums / sizes
    spread = float(each.std(ddof=1)) if len(each) > 1 else 0.0
    base = b.metrics[test.metric]
    return Effect(
        metric=test.metric, a=test.a, b=test.b, relative=test.diff / base if base > 0 else None, cohens_d=float(each.mean()) / spread if spread > 0 else None
    )


def sentence(test: Test, means: Mapping[str, float]) -> str:
    """One plain sentence on a pair. `means`: system -> mean of the metric."""
    name = label(test.metric)
    if test.p_holm < SURE:
        a, b, diff = (test.a, test.b, test.diff) if test.diff > 0 else (test.b, test.a, -test.diff)
        return f"{a} beats {b} by {gain(diff, means[b])} {name} ({p_text(test.p_holm)}, Holm)."
    low, high = test.ci
    p = "" if low <= 0 <= high else f", {p_text(test.p_holm)} after Holm's correction"
    return f"{test.a} and {test.b} cannot be told apart in {name} (difference {bare(test.diff)}, 95 % interval {bare(low)} to {bare(high)}{p})."


def sentences(compared: Comparison) -> list[str]:
    """One sentence a test, in the order of the tests."""
    means = {row.system: row.metrics[compared.metric] for row in compared.rows}
    return [sentence(test, means) for test in compared.tests]


def gain(diff: float, base: float) -> str:
    """`12.3 %` of `base`, or the plain difference where there is no base."""
    if base <= 0:
        return bare(diff)
    share = 100 * diff / base
    return f"{share:.1f} %" if share < 100 else f"{share:,.0f} %"


def p_text(p: float) -> str:
    """`p < .001`, `p = .032`."""
    return "p < .001" if p < 0.001 else f"p = {bare(p, 3)}"


def bare(value: float, digits: int = 4) -> str:
    """`.0123` for 0.0123: no zero before the point."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
