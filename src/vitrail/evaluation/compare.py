"""Systems side by side: one table, one protocol, paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from vitrail.config import Settings
from vitrail.errors import SettingError, unknown
from vitrail.evaluation.evaluator import Evaluation, clusters_of
from vitrail.evaluation.intervals import holm, paired_difference


class Row(Settings):
    """One system."""

    system: str
    metrics: dict[str, float]
    ci: dict[str, tuple[float, float]]


class Test(Settings):
    """A paired test of a - b over the same queries."""

    metric: str
    a: str
    b: str
    diff: float
    ci: tuple[float, float]
    p: float
    p_holm: float
    n: int


class Comparison(Settings):
    """Rows best first, and the tests between them."""

    data: str
    fingerprint: str
    part: str
    protocol: str
    users: int
    metric: str
    rows: list[Row]
    tests: list[Test]
    warnings: list[str] = []

    def as_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return self.model_dump(mode="json")


def comparison(evaluations: Sequence[Evaluation], metric: str = "ndcg@10", baseline: str | None = None) -> Comparison:
    """Order systems by `metric` and test the pairs (with `baseline`, a system's name: every other against it). P-values are corrected by Holm's rule.

    Raises SettingError where evaluations differ in data, split, protocol, part or queries, and where a metric or baseline is not among them.
    """
    _refuse_mixed(evaluations)
    for evaluation in evaluations:
        if metric not in evaluation.metrics:
            raise unknown("metric", metric, evaluation.metrics)
    named = sorted(zip(names_of(evaluations), evaluations, strict=True), key=lambda pair: -pair[1].metrics[metric])
    by_name = dict(named)
    if baseline is not None and baseline not in by_name:
        raise unknown("system in this comparison", baseline, by_name)
    pairs = list(combinations(by_name, 2)) if baseline is None else [(name, baseline) for name in by_name if name != baseline]
    testable = all(metric in evaluation.values for evaluation in evaluations)
    found = []
    if testable:
        clusters = clusters_of(evaluations[0].user_codes)
        found = [(a, b, paired_difference(by_name[a].values[metric], by_name[b].values[metric], clusters=clusters)) for a, b in pairs]
    corrected = holm([test["p"] for _, _, test in found])
    first = evaluations[0]
    warnings = list(dict.fromkeys(sentence for evaluation in evaluations for sentence in evaluation.warnings))
    if pairs and not testable:
        warnings.append(f"No paired test of {metric}: it is no mean over queries, or the values of single queries were not kept; evaluate again in one run.")
    return Comparison(
        data=first.data, fingerprint=first.fingerprint, part=first.part, protocol=first.protocol.describe(), users=first.users, metric=metric,
        rows=[Row(system=name, metrics=e.metrics, ci=e.ci) for name, e in named],
        tests=[Test(metric=metric, a=a, b=b, p_holm=p, **test) for (a, b, test), p in zip(found, corrected, strict=True)],
        warnings=warnings,
    )  # fmt: skip


def names_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """A name for each: its system, numbered where two have the same."""
    names: list[str] = []
    for evaluation in evaluations:
        name, n = evaluation.system or "system", 2
        while name in names:
            name, n = f"{evaluation.system or 'system'} ({n})", n + 1
        names.append(name)
    return names


def _refuse_mixed(evaluations: Sequence[Evaluation]) -> None:
    if not evaluations:
        raise SettingError("There is nothing to compare: give at least one evaluation.")
    first = evaluations[0]
    for other in evaluations[1:]:
        what = f'"{first.system}" and "{other.system}"'
        if other.part != first.part:
            raise SettingError(f"{what} were evaluated on different parts ({first.part} and {other.part}): evaluate both on the same one.")
        if other.protocol != first.protocol:
            ours, theirs = first.protocol.describe(), other.protocol.describe()
            raise SettingError(f"{what} were evaluated under different protocols ({ours}; {theirs}): use one for both.")
        if other.fingerprint != first.fingerprint:
            raise SettingError(
                f"{what} were evaluated on different data or splits (fingerprints {first.fingerprint} and {other.fingerprint}): "
                "their numbers do not belong in one table; evaluate both on the same data set and split."
            )
        if len(first.user_codes) and len(other.user_codes) and not np.array_equal(first.user_codes, other.user_codes):
            raise SettingError(f"{what} were asked different queries: evaluate both in one run.")
