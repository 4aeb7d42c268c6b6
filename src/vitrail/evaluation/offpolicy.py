"""Off-policy estimates: what a policy would have earned, from the log of another. Cards ranking/bandits and base/off_policy; the estimators are
those of the literature: IPS and SNIPS (Horvitz and Thompson; Swaminathan and Joachims, NeurIPS 2015), doubly robust (Dudik, Langford and Li, ICML 2011),
RIPS (McInerney et al., KDD 2020), pseudo-inverse (Swaminathan et al., NeurIPS 2017).

Every estimate is the mean of a number a row (or a ratio of two such means), so that its normal interval, its bootstrap over users and its effective
sample size come from the same rows. Letters: n rows (impressions, or pages), L places of a page, A items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vitrail.config import Settings
from vitrail.errors import DataError, SettingError
from vitrail.evaluation.intervals import bootstrap_ci

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

NORMAL = 1.959963984540054
LEAST_ESS = 100.0
LEAST_SHARE = 0.01
"""Below either, the log does not tell what the policy earns."""
FAR = 3.0
"""Standard errors the mean weight may be from 1."""


class Estimate(Settings):
    """The value of a policy by one estimator."""

    estimator: str
    value: float
    se: float
    """standard error, over rows, or over users where they are known"""
    ci: tuple[float, float]
    """95 % normal interval"""
    bootstrap: tuple[float, float]
    """95 % percentile interval over users (or rows) drawn anew"""
    lower: float
    """one-sided 95 % bound: choose between policies by this one"""


class Diagnostics(Settings):
    """Whether the estimates can be trusted."""

    rows: int
    users: int | None
    """distinct users, where the log names them"""
    effective: float
    """(sum w)^2 / sum w^2: rows of the policy itself that would say as much"""
    weight_mean: float
    """1 in expectation, where propensities are right"""
    weight_mean_se: float
    weight_max: float
    outside: float
    """share of the policy's chance on items that the log never shows: nothing is known of it, and IPS counts it as 0"""
    verdict: Literal["ok", "not identifiable", "wrong propensities", "no support"]
    reason: str = ""


class OffPolicy(Settings):
    """Estimates side by side, and how far to trust them."""

    policy: str
    logged: float
    """mean reward of the log itself"""
    estimates: list[Estimate]
    clipping: dict[str, float] = {}
    """clip level -> clipped IPS: an estimate that moves with it rests on few rows"""
    diagnostics: Diagnostics

    def as_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return self.model_dump(mode="json")


def weights_of(target: npt.ArrayLike, propensity: npt.ArrayLike) -> Float:
    """target / propensity. Raises DataError where a propensity is not in (0, 1]."""
    p = np.asarray(propensity, dtype=np.float64)
    if not np.all((p > 0) & (p <= 1)):
        raise DataError("A logged propensity is not in (0, 1]: log the chance of the item at its place at the time it was shown.")
    return np.asarray(target, dtype=np.float64) / p


def mean_estimate(name: str, terms: Float, clusters: Int | None = None, *, draws: int = 1000, seed: int = 0) -> Estimate:
    """The mean of `terms` (n,), with its intervals; `clusters` (n,) names the user of each row."""
    return _estimate(name, terms, np.ones_like(terms), clusters, draws, seed)


def ratio_estimate(name: str, terms: Float, weights: Float, clusters: Int | None = None, *, draws: int = 1000, seed: int = 0) -> Estimate:
    """sum(terms) / sum(weights), as SNIPS has it; standard error by the delta method."""
    return _estimate(name, terms, weights, clusters, draws, seed)


def _estimate(name: str, terms: Float, weights: Float, clusters: Int | None, draws: int, seed: int) -> Estimate:
    total, size = _by_cluster(terms, clusters), _by_cluster(weights, clusters)
    if not len(total):
        raise DataError("The log has no rows: nothing can be estimated from it.")
    if size.sum() <= 0:
        raise DataError("No row of the log could have been shown by the policy: every weight is 0.")
    value = float(total.sum() / size.sum())
    off = total - value * size
    # the plain mean has the sample deviation (n - 1), a ratio the delta method, as the card gives them
    plain = bool((weights == 1).all()) and clusters is None
    se = float(np.sqrt((off**2).sum()) / size.sum() * (np.sqrt(len(off) / max(len(off) - 1, 1)) if plain else 1.0))
    low, high = _bootstrap(total, size, draws, seed)
    return Estimate(estimator=name, value=value, se=se, ci=(value - NORMAL * se, value + NORMAL * se), bootstrap=(low, high), lower=value - 1.645 * se)


def _by_cluster(values: Float, clusters: Int | None) -> Float:
    if clusters is None:
        return values
    _, owner = np.unique(clusters, return_inverse=True)
    return np.bincount(owner, weights=values).astype(np.float64)


def _bootstrap(total: Float, size: Float, draws: int, seed: int) -> tuple[float, float]:
    """Percentile interval of a ratio of sums; rows of equal numbers are drawn together, as evaluation.intervals does it for means."""
    if bool((size == 1).all()):
        return bootstrap_ci(total, draws=draws, seed=seed)
    rng = np.random.default_rng(seed)
    pairs, counts = np.unique(np.stack([total, size], axis=1), axis=0, return_counts=True)
    n, found = len(total), []
    block = max(1, 4_000_000 // len(pairs))
    for start in range(0, draws, block):
        sums = rng.multinomial(n, counts / n, size=min(block, draws - start)) @ pairs
        found.append(sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], np.nan))
    low, high = np.nanquantile(np.concatenate(found), [0.025, 0.975])
    return float(low), float(high)


# single items


def ips(rewards: Float, weights: Float, clusters: Int | None = None, clip: float = np.inf) -> Estimate:
    """mean(min(w, clip) r): unbiased without clipping, biased down with it where rewards are positive."""
    return mean_estimate("ips" if np.isinf(clip) else "clipped ips", np.minimum(weights, clip) * rewards, clusters)


def snips(rewards: Float, weights: Float, clusters: Int | None = None) -> Estimate:
    """sum(w r) / sum(w): the value of a constant reward is that constant."""
    return ratio_estimate("snips", weights * rewards, weights, clusters)


def controlled(rewards: Float, weights: Float, clusters: Int | None = None) -> Estimate:
    """mean(w r) - beta (mean(w) - 1), beta = cov(w r, w) / var(w): what the weights are off by is taken out."""
    product = weights * rewards
    spread = weights.var(ddof=1) if len(weights) > 1 else 0.0
    beta = float(np.cov(product, weights)[0, 1] / spread) if spread > 0 else 0.0
    return mean_estimate("control variate", product - beta * (weights - 1.0), clusters)


def direct(expected: Float, clusters: Int | None = None) -> Estimate:
    """mean over rows of sum_a pi(a | x) q(x, a), given as `expected` (n,): as good as the model of rewards q."""
    return mean_estimate("direct method", expected, clusters)


def doubly_robust(rewards: Float, weights: Float, expected: Float, predicted: Float, clusters: Int | None = None, *, normalised: bool = False) -> Estimate:
    """DM + mean(w (r - q(x, a))): right where either the propensities or q are. `predicted` (n,) is q of the item shown, `expected` as in `direct`.

    `normalised` divides the correction by mean(w).
    """
    scale = weights.mean() if normalised else 1.0
    return mean_estimate("self-normalised doubly robust" if normalised else "doubly robust", expected + weights * (rewards - predicted) / scale, clusters)


# pages: weights and rewards (n, L), 0 reward and weight 1 at places a page lacks


def sips(rewards: Float, weights: Float, clusters: Int | None = None) -> Estimate:
    """mean(product of w over the page x sum of r): assumes nothing; `weights` conditional on the places above."""
    return mean_estimate("sips", weights.prod(1) * rewards.sum(1), clusters)


def iips(rewards: Float, weights: Float, clusters: Int | None = None) -> Estimate:
    """mean(sum of w_l r_l): a place's reward depends on its own item; `weights` of the marginal chances of places."""
    return mean_estimate("iips", (weights * rewards).sum(1), clusters)


def rips(rewards: Float, weights: Float, clusters: Int | None = None) -> Estimate:
    """mean(sum of (product of w down to l) r_l): a place's reward depends on what stands above; conditional `weights`."""
    return mean_estimate("rips", (np.cumprod(weights, axis=1) * rewards).sum(1), clusters)


def pseudo_inverse(rewards: Float, weights: Float, clusters: Int | None = None) -> Estimate:
    """mean((1 + sum(w_l - 1)) x reward of the page): the reward adds over places, places were drawn independently; only its total is needed."""
    return mean_estimate("pseudo-inverse", (1.0 + (weights - 1.0).sum(1)) * rewards.sum(1), clusters)


# the model of rewards


def click_rates(items: Int, positions: Int, clicked: Float, n_items: int, folds: Int, *, strength: float = 100.0) -> tuple[Float, Float]:
    """Click chances q learned on the other folds, so that no row tells its own: (F, P, A) tables and (n,) q of the item shown.

    The rate of an item at a position is drawn towards the rate of the position times what the item is to the mean, worth `strength` impressions.
    """
    n_folds, n_positions = int(folds.max(initial=0)) + 1, int(positions.max(initial=0)) + 1
    tables = np.empty((n_folds, n_positions, n_items))
    for fold in range(n_folds):
        rest = folds != fold if n_folds > 1 else np.ones(len(folds), dtype=bool)
        cell = positions[rest] * n_items + items[rest]
        shown = np.bincount(cell, minlength=n_positions * n_items).reshape(n_positions, n_items)
        hits = np.bincount(cell, weights=clicked[rest], minlength=n_positions * n_items).reshape(n_positions, n_items)
        mean = hits.sum() / max(shown.sum(), 1)
        at = (hits.sum(1) + strength * mean) / (shown.sum(1) + strength)
        of = (hits.sum(0) + strength * mean) / (shown.sum(0) + strength)
        prior = np.minimum(at[:, None] * of[None, :] / max(mean, 1e-12), 1.0)
        tables[fold] = (hits + strength * prior) / (shown + strength)
    return tables, tables[folds, positions, items]


def user_folds(clusters: Int | None, rows: int, n: int = 2, seed: int = 0) -> Int:
    """(rows,) fold of each row, users whole."""
    owner = np.arange(rows) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    return np.random.default_rng(seed).permutation(int(owner.max(initial=-1)) + 1)[owner] % n


# all together


def diagnose(weights: Float, clusters: Int | None, outside: float) -> Diagnostics:
    """Effective sample size, the mean weight against 1, support."""
    n = len(weights)
    effective = float(weights.sum() ** 2 / max((weights**2).sum(), 1e-300))
    mean, se = float(weights.mean()), float(weights.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    verdict: Literal["ok", "not identifiable", "wrong propensities", "no support"] = "ok"
    reason = ""
    if outside > 0.05:
        verdict, reason = "no support", f"{outside:.0%} of the policy's chance lies on items that the log never shows"
    elif effective < max(LEAST_ESS, LEAST_SHARE * n):
        verdict = "not identifiable"
        reason = f"the log is worth {effective:.0f} rows of this policy: rank nothing by it, and log with more exploration"
    elif abs(mean - 1.0) > FAR * se + 1e-9:
        verdict = "wrong propensities"
        reason = f"the weights have the mean {mean:.3f} +- {se:.3f} and should have 1: the logged chances are not those of the logger"
    users = None if clusters is None else len(np.unique(clusters))
    return Diagnostics(
        rows=n, users=users, effective=effective, weight_mean=mean, weight_mean_se=se, weight_max=float(weights.max(initial=0.0)), outside=outside,
        verdict=verdict, reason=reason,
    )  # fmt: skip


def evaluate_policy(
    items: Int,
    positions: Int,
    clicked: npt.ArrayLike,
    propensity: npt.ArrayLike,
    target: npt.NDArray[np.floating] | Callable[[], npt.NDArray[np.floating]],
    *,
    policy: str = "policy",
    clusters: Int | None = None,
    clip: float = 10.0,
    folds: int = 2,
    seed: int = 0,
) -> OffPolicy:
    """The click rate of a policy from single impressions, by every estimator.

    `items` (n,) codes in [0, A), `positions` (n,) from 0, `clicked` (n,), `propensity` (n,) of the item at its place; `target` (A,), (P, A) by
    position, or (n, A): the chance with which the policy shows each item there. Raises DataError for an empty log or a bad propensity,
    SettingError for a target that is no distribution.
    """
    rewards, table = np.asarray(clicked, dtype=np.float64), np.asarray(target() if callable(target) else target, dtype=np.float64)
    if not len(rewards):
        raise DataError("The log has no impressions: nothing can be estimated from it.")
    n_items = table.shape[-1]
    if (table < 0).any() or not np.allclose(table.sum(-1), 1.0, atol=1e-4):
        raise SettingError("The chances of a policy must be 0 or more and add up to 1 over the items of a place.")
    per_row = table if table.ndim == 2 and len(table) == len(items) and len(items) > positions.max(initial=0) + 1 else None
    by_position = None if per_row is not None else np.broadcast_to(table, (int(positions.max(initial=0)) + 1, n_items)) if table.ndim == 1 else table
    if by_position is not None and len(by_position) <= positions.max(initial=0):
        raise SettingError(f"The policy tells chances for {len(by_position)} positions, and the log has {int(positions.max()) + 1}.")
    chance = per_row[np.arange(len(items)), items] if per_row is not None else by_position[positions, items]  # type: ignore[index]
    weights = weights_of(chance, propensity)
    fold = user_folds(clusters, len(rewards), folds, seed)
    tables, predicted = click_rates(items, positions, rewards, n_items, fold)
    if per_row is not None:
        expected = (per_row * tables[fold, positions]).sum(1)
    else:
        assert by_position is not None
        expected = np.einsum("fpa,pa->fp", tables, by_position[: tables.shape[1]])[fold, positions]
    shown = np.zeros((int(positions.max(initial=0)) + 1, n_items), dtype=bool)
    shown[positions, items] = True
    lost = (per_row * ~shown[positions]).sum(1).mean() if per_row is not None else (by_position * ~shown).sum(1)[positions].mean()  # type: ignore[operator]
    estimates = [
        ips(rewards, weights, clusters),
        ips(rewards, weights, clusters, clip),
        snips(rewards, weights, clusters),
        controlled(rewards, weights, clusters),
        direct(expected, clusters),
        doubly_robust(rewards, weights, expected, predicted, clusters),
        doubly_robust(rewards, weights, expected, predicted, clusters, normalised=True),
    ]
    levels = [level for level in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0) if level < weights.max(initial=0.0)]
    return OffPolicy(
        policy=policy,
        logged=float(rewards.mean()),
        estimates=estimates,
        clipping={f"{level:g}": float((np.minimum(weights, level) * rewards).mean()) for level in levels},
        diagnostics=diagnose(weights, clusters, float(lost)),
    )


def evaluate_pages(
    rewards: Float, conditional: Float, marginal: Float | None = None, *, policy: str = "policy", clusters: Int | None = None
) -> OffPolicy:
    """The reward of a policy of whole pages: `conditional` and `marginal` (n, L) are the policy's chances over the log's, of each kind.

    Without `marginal` IIPS and the pseudo-inverse are left out. Raises DataError for an empty log.
    """
    if not len(rewards):
        raise DataError("The log has no pages: nothing can be estimated from it.")
    product = conditional.prod(1)
    estimates = [sips(rewards, conditional, clusters), rips(rewards, conditional, clusters)]
    estimates.append(ratio_estimate("self-normalised sips", product * rewards.sum(1), product, clusters))
    if marginal is not None:
        estimates += [iips(rewards, marginal, clusters), pseudo_inverse(rewards, marginal, clusters)]
    return OffPolicy(policy=policy, logged=float(rewards.sum(1).mean()), estimates=estimates, diagnostics=diagnose(product, clusters, 0.0))


