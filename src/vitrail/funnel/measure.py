"""What each stage of a funnel adds or loses on the test part, and what it costs in time. Q queries, K candidates, k places.

Each number is of lists of item codes as a stage left them, over the whole test part and under the split's own protocol; differences are paired over
queries. Both ways to ask a temporal split are measured: rolling, and static beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vitrail.config import Settings
from vitrail.data.batches import Sets
from vitrail.data.dataset import Dataset
from vitrail.data.split import Part
from vitrail.data.splits import Temporal, make_split
from vitrail.errors import DataError
from vitrail.evaluation import journal
from vitrail.evaluation import metrics as M
from vitrail.evaluation.evaluator import clusters_of, hits_of
from vitrail.evaluation.intervals import bootstrap_ci, paired_difference
from vitrail.evaluation.pages import alpha_ndcg, category_entropy
from vitrail.evaluation.protocol import Protocol, protocol_for
from vitrail.funnel.build import load_funnel
from vitrail.funnel.funnel import Funnel
from vitrail.funnel.rules import attribute_codes
from vitrail.funnel.sources import Ask, block_for
from vitrail.train.fit import recorded_split

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


class StageNumbers(Settings):
    """What a stage left."""

    stage: str
    candidates: float
    """items a query, on the mean"""
    ceiling: float | None = None
    """share of the targets among all its candidates: no stage behind it can find more"""
    metrics: dict[str, float]
    ci: dict[str, tuple[float, float]] = {}
    """95 % over users"""


class Step(Settings):
    """The difference a stage makes."""

    what: str
    metric: str
    diff: float
    ci: tuple[float, float]
    p: float
    n: int


class Asked(Settings):
    """One way to ask the test part."""

    protocol: str
    fingerprint: str
    queries: int
    left_out: dict[str, int] = {}
    stages: list[StageNumbers]
    steps: list[Step]
    best_source: str
    """the retriever with the best NDCG on its own"""


class FunnelEvaluation(Settings):
    """A funnel, stage by stage."""

    funnel: str
    data: str
    part: str = "test"
    k: int
    chosen: dict[str, Any] = {}
    """what was chosen on validation while it was built"""
    asked: dict[str, Asked]
    """rolling and static, or the split's name"""
    milliseconds: dict[str, dict[str, float]]
    """stage and total -> p50 and p99 of single requests on this machine"""
    late: float = 0.0
    """share of these requests that were answered without the ranker, for lack of time"""
    day_zero: dict[str, Any] = {}
    """how a person of whom nothing is known is answered"""
    warnings: list[str] = []

    def as_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return self.model_dump(mode="json")


def evaluate_funnel(
    path: str | Path | Funnel,
    *,
    data: str | Path | Dataset | None = None,
    k: int = 10,
    queries: int = 20_000,
    requests: int = 200,
    progress: Callable[[int], None] | None = None,
) -> FunnelEvaluation:
    """Measure a funnel on the test part of its split.

    `data`: where the data set is now, if it moved; `queries`: at most so many, drawn at random; `requests`: single ones that are timed.
    Raises DataError where the data are absent, have changed, or there is no test part.
    """
    funnel = path if isinstance(path, Funnel) else load_funnel(path, seed=0)
    dataset = data if isinstance(data, Dataset) else Dataset(data or funnel.info["data"]["path"])
    if dataset.fingerprint != funnel.info["data"]["fingerprint"]:
        raise DataError(f"{dataset.path} has changed since the funnel was built (its fingerprint differs): build it again, or name the old data with --data.")
    settings = recorded_split(funnel.info["split"])
    plain = Protocol.of(funnel.info["protocol"], where="the funnel's manifest")
    ways = [(settings.name, settings, plain)]
    if isinstance(settings, Temporal):
        # the shares were drawn when the systems were fitted; both ways ask what came from the same moment on
        both = (("rolling", True, "temporal_rolling"), ("static", False, "temporal"))
        ways = [(name, settings.but({"rolling": rolling}), protocol_for(text).model_copy(update={"positive": plain.positive})) for name, rolling, text in both]
    asked: dict[str, Asked] = {}
    users: Int64 = np.empty(0, dtype=np.int64)
    for name, way, protocol in ways:
        split = make_split(dataset, way, protocol)
        if split.test is None:
            raise DataError(f'The split "{settings.text}" has no test part: build the funnel with another split.')
        if funnel.ranking is not None and protocol.history_at_test == "everything before" and isinstance(settings, Temporal):
            # each query is asked when its event happens; by then a service has seen what happened to items since the fit
            funnel.ranking.observe(dataset.log(ties=settings.log_ties, seed=settings.seed), dataset.interactions)
        asked[name] = _measure(_asked_as(funnel, name), split.test, protocol, protocol.fingerprint(dataset.fingerprint, split.settings), k, queries, progress)
        users = np.unique(np.concatenate([users, split.test.histories.users.numpy()]))
    milliseconds, late = _times(funnel, users, k, requests)
    evaluation = FunnelEvaluation(
        funnel=funnel.name, data=dataset.info.name, k=k, chosen=dict(funnel.info.get("chosen", {})), asked=asked,
        milliseconds=milliseconds, late=late, day_zero=_day_zero(funnel, k),
        warnings=[f"Only {one.queries:,} {name} queries: read the intervals, not the third digit." for name, one in asked.items() if one.queries < 500],
    )  # fmt: skip
    note = journal.append(dataset.path, {"system": funnel.name, **evaluation.as_json(), "config": funnel.info["funnel"]})
    return evaluation.model_copy(update={"warnings": [*evaluation.warnings, note]}) if note else evaluation


def _asked_as(funnel: Funnel, way: str) -> Funnel:
    """The funnel with the mix that was chosen for this way of asking; as it is, where none was."""
    mixes = funnel.info.get("chosen", {}).get("mixes", {})
    if funnel.ranking is None or way not in mixes:
        return funnel
    other = copy(funnel)
    other.ranking = funnel.ranking.mixing(mixes[way])
    return other


def _sets(indptr: npt.NDArray[np.integer], items: npt.NDArray[np.integer]) -> Sets:
    return Sets(torch.full((len(indptr) - 1,), -1), torch.from_numpy(np.array(indptr)), torch.from_numpy(np.array(items, dtype=np.int64)))


def _moments(part: Part, rolling: bool) -> Int64 | None:
    """(Q,) when each query is asked: at its event, or, where all of a user's later events are the truth, at the first event of the part."""
    if part.target_times is None or not len(part):
        return None
    return part.target_times[part.target_indptr[:-1]] if rolling else np.full(len(part), part.target_times.min())


def _measure(
    funnel: Funnel, part: Part, protocol: Protocol, fingerprint: str, k: int, most: int, progress: Callable[[int], None] | None
) -> Asked:
    moments = _moments(part, protocol.history_at_test == "everything before")
    chosen = np.arange(len(part)) if len(part) <= most else np.sort(np.random.default_rng(0).choice(len(part), most, replace=False))
    lists: dict[str, list[Int64]] = {}
    block = block_for(len(funnel.item_ids))
    seen, where = _sets(part.mask_indptr, part.mask_items), np.split(chosen, range(block, len(chosen), block))
    allowed = funnel._allowed(None)
    for rows in where:
        chosen_rows = torch.from_numpy(rows)
        histories = part.histories.take(chosen_rows)
        ask = Ask(histories, allowed, seen.take(chosen_rows), None if moments is None else moments[rows])
        trace = funnel.run(ask, k, explores=False)
        for one in trace.found:
            lists.setdefault(f"retrieve {one.name}", []).append(one.codes)
        lists.setdefault("fuse", []).append(trace.fused.codes)
        if funnel.ranking is not None:
            lists.setdefault("rank", []).append(trace.ranked)
        if funnel.layout.slate is not None or funnel.layout.ruling is not None:
            lists.setdefault("arrange", []).append(trace.page)
        if funnel.policy is not None:
            lists.setdefault("explore", []).append(funnel.run(ask, k).page)
        if progress:
            progress(len(rows))
    indptr, targets = _targets(part, chosen)
    own = [f"retrieve {source.name}" for source in funnel.sources]
    numbers, values = [], {}
    for stage, blocks in lists.items():
        if stage.startswith("retrieve ") and stage not in own:
            continue  # the popular items stood in for some
        codes = _stacked(blocks)
        told, values[stage] = _numbers(funnel, stage, codes, indptr, targets, k, clusters_of(part.histories.users.numpy()[chosen]))
        numbers.append(told)
    metric = f"ndcg@{k}"
    best = max(own, key=lambda stage: float(values[stage][metric].mean()))
    clusters = clusters_of(part.histories.users.numpy()[chosen])

    def step(what: str, metric: str, a: str, b: str) -> Step:
        return Step(what=what, metric=metric, **paired_difference(values[a][metric], values[b][metric], clusters=clusters))

    order = [stage for stage in ("fuse", "rank", "arrange", "explore") if stage in values]
    steps = [step(f"fuse over the best source ({best.removeprefix('retrieve ')})", metric, "fuse", best)]
    for before, after in pairwise(order):
        steps.append(step(f"{after} over {before}", metric, after, before))
        if after in ("arrange", "explore"):
            steps.append(step(f"{after} over {before}", f"intra_list_diversity@{k}", after, before))
    steps.append(step(f"whole funnel over the best source ({best.removeprefix('retrieve ')})", metric, order[-1], best))
    return Asked(
        protocol=protocol.describe(), fingerprint=fingerprint, queries=len(chosen), left_out=dict(part.left_out), stages=numbers, steps=steps,
        best_source=best.removeprefix("retrieve "),
    )  # fmt: skip


def _targets(part: Part, rows: Int64) -> tuple[Int64, Int64]:
    lengths = np.diff(part.target_indptr)[rows]
    out = np.concatenate([[0], np.cumsum(lengths)])
    return out, part.target_items[np.repeat(part.target_indptr[rows] - out[:-1], lengths) + np.arange(out[-1])]


def _stacked(blocks: Sequence[Int64]) -> Int64:
    width = max(max((block.shape[1] for block in blocks), default=0), 1)
    return np.concatenate([np.pad(block, ((0, 0), (0, width - block.shape[1])), constant_values=-1) for block in blocks])


def _numbers(
    funnel: Funnel, stage: str, codes: Int64, indptr: Int64, targets: Int64, k: int, clusters: Int64 | None
) -> tuple[StageNumbers, dict[str, Float64]]:
    hits, size = hits_of(codes, indptr, targets, len(funnel.item_ids)), np.diff(indptr)
    page = np.pad(codes[:, :k], ((0, 0), (0, max(k - codes.shape[1], 0))), constant_values=-1)
    top = np.pad(hits[:, :k], ((0, 0), (0, max(k - codes.shape[1], 0))))
    values: dict[str, Float64] = {f"ndcg@{k}": M.ndcg(top, size), f"recall@{k}": M.recall(top, size)}
    values[f"intra_list_diversity@{k}"] = M.intra_list_diversity(page, funnel.layout.vectors)
    kinds = _kinds(funnel)
    if kinds is not None:
        values[f"category_entropy@{k}"] = category_entropy(page, kinds)
        values[f"alpha_ndcg@{k}"] = alpha_ndcg(page, top, indptr, targets, kinds)
    means = {name: float(np.nanmean(value)) for name, value in values.items() if np.isfinite(value).any()}
    means[f"coverage@{k}"] = M.coverage(page, len(funnel.item_ids))
    accuracy = (f"ndcg@{k}", f"recall@{k}")
    ceiling = float(M.recall(hits, size).mean()) if codes.shape[1] > k else None
    told = StageNumbers(
        stage=stage, candidates=float((codes >= 0).sum(1).mean()), ceiling=ceiling, metrics=means,
        ci={name: bootstrap_ci(values[name], clusters=clusters) for name in accuracy},
    )  # fmt: skip
    return told, values


def _kinds(funnel: Funnel) -> npt.NDArray[np.float32] | None:
    """(N, C) categories of items, where the catalogue has some and they are not too many for a page to be judged by."""
    columns: dict[str, str] = funnel.info.get("columns") or {}
    name = next((c for kind in ("categories", "category") for c, found in columns.items() if found == kind and c in funnel.items.columns), None)
    if name is None:
        return None
    codes = attribute_codes(funnel.items, name)
    if (most := int(codes.max(initial=-1)) + 1) > 512 or not most:
        return None
    kinds = np.zeros((len(codes), most + 1), dtype=np.float32)
    kinds[np.arange(len(codes))[:, None], codes] = 1.0  # -1, no value, falls into the last column
    return kinds[:, :most]


def _times(funnel: Funnel, users: Int64, k: int, requests: int) -> tuple[dict[str, dict[str, float]], float]:
    """p50 and p99 of single answers, a few first ones left out; and the share of them that came without the ranker."""
    names = [name for name in funnel.user_ids.decode(users) if name is not None]
    chosen = [names[place % len(names)] for place in range(requests + 10)]
    told: dict[str, list[float]] = {}
    late = 0
    for number, name in enumerate(chosen):
        answer = funnel.answer(name, None, k)
        if number >= 10:
            milliseconds = answer["milliseconds"]
            late += answer["degraded"] is not None
            for stage, value in {**milliseconds, "total": sum(milliseconds.values())}.items():
                told.setdefault(stage, []).append(value)
    times = {stage: {"p50": round(float(np.median(found)), 3), "p99": round(float(np.quantile(found, 0.99)), 3)} for stage, found in told.items()}
    return times, late / requests


def _day_zero(funnel: Funnel, k: int) -> dict[str, Any]:
    """Whence the page of a person without a past comes."""
    answer = funnel.answer(None, [], k)
    sources = sorted({source["name"] for row in answer["items"] for source in row["sources"]})
    return {"items": len(answer["items"]), "sources": sources, "fallback": answer["fallback"]}
