"""The one evaluator: blocks of queries, the whole catalogue, exact top-k, metrics a query at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from pydantic import PrivateAttr
from scipy import sparse
from torch import Tensor

from vitrail.config import Settings
from vitrail.data.batches import Sets
from vitrail.data.log import Log, distinct
from vitrail.data.split import Part
from vitrail.errors import DataError, VitrailError
from vitrail.evaluation import metrics as M
from vitrail.evaluation import ranking
from vitrail.evaluation.intervals import bootstrap_ci
from vitrail.evaluation.protocol import Protocol
from vitrail.evaluation.slices import Slice, default_slices
from vitrail.resources import afford_memory, free_memory

Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Score = Callable[[Sets], Tensor]
"""B histories (CPU) -> (B, N) float32 scores on any device; -inf removes an item, NaN is an error."""

BLOCK_BYTES = 32 * 2**20
"""Scores held at once on a processor: larger blocks leave its cache and are slower."""
FEW_QUERIES = 500


class Evaluation(Settings):
    """What was measured, and under which protocol."""

    system: str
    data: str
    fingerprint: str
    """of data, split and protocol"""
    part: str
    """valid or test"""
    protocol: Protocol
    users: int
    """queries in the headline"""
    left_out: dict[str, int] = {}
    """reason -> queries that are not in the headline"""
    metrics: dict[str, float]
    ci: dict[str, tuple[float, float]] = {}
    """95 % interval over users, of the metrics that are means over users"""
    slices: dict[str, dict[str, float]] = {}
    """slice -> users and metrics"""
    seconds: float
    users_per_second: float = 0.0
    warnings: list[str] = []
    tie_seed: int = 0
    _values: dict[str, npt.NDArray[np.float64]] = PrivateAttr(default_factory=dict)
    _user_codes: Int = PrivateAttr(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def values(self) -> dict[str, npt.NDArray[np.float64]]:
        """metric -> (Q,) value of each query; empty where the evaluation was read from a file."""
        return self._values

    @property
    def user_codes(self) -> Int:
        """(Q,) user code of each query."""
        return self._user_codes

    def as_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return self.model_dump(mode="json")


def rank_part(
    part: Part, score: Score, *, k: int, tie_ranks: Tensor, batch: int | None = None, progress: Callable[[int], None] | None = None
) -> tuple[Int, npt.NDArray[np.float32]]:
    """The k best candidates of each query: codes (Q, k) and values (Q, k), -1 and -inf where a list is short.

    `tie_ranks` (N,) from `ranking.tie_ranks`; `batch` queries at a time (none: 32 MiB of scores, 512 on an accelerator); `progress` is called with the
    number of queries done since its last call. Raises VitrailError for scores that are NaN or of the wrong shape.
    """
    n_items = len(tie_ranks)
    size = batch or max(1, BLOCK_BYTES // (4 * max(n_items, 1)))
    codes = np.full((len(part), k), -1, dtype=np.int64)
    values = np.full((len(part), k), -np.inf, dtype=np.float32)
    banned = None if part.candidates is None else torch.from_numpy(~part.candidates)
    start = 0
    while start < len(part):
        stop = min(start + size, len(part))
        with torch.inference_mode():
            scores = score(part.histories.slice(start, stop))
            if scores.shape != (stop - start, n_items):
                raise VitrailError(f"The system gave scores of shape {tuple(scores.shape)} for {stop - start} queries over {n_items} items.")
            tie_ranks = tie_ranks.to(scores.device)
            if banned is not None:
                banned = banned.to(scores.device)
                scores = scores.masked_fill(banned, ranking.REMOVED)
            scores = scores.float().contiguous()
            bounds = part.mask_indptr[start : stop + 1]
            hidden = torch.from_numpy(part.mask_items[bounds[0] : bounds[-1]].astype(np.int64))
            masked = ranking.mask_(scores, torch.from_numpy(bounds - bounds[0]), hidden)
            try:
                ranking.refuse_nan(masked[1])  # those that are not masked are seen by top_k
                best, worth = ranking.top_k(scores, k, tie_ranks)
            finally:
                ranking.unmask_(scores, masked)  # the tensor may belong to the system
        codes[start:stop], values[start:stop] = best.cpu().numpy(), worth.cpu().numpy()
        if progress:
            progress(stop - start)
        start = stop
        if batch is None and start == size and scores.is_cuda:
            size *= 32  # an accelerator is only busy with larger blocks
    return codes, values


def hits_of(codes: Int, target_indptr: Int, target_items: Int, n_items: int) -> Bool:
    """(Q, K) whether each listed item is a target of its query."""
    queries = np.arange(len(codes))
    truth = np.sort(np.repeat(queries, np.diff(target_indptr)) * n_items + target_items)
    asked = queries[:, None] * n_items + codes
    if not len(truth):
        return np.zeros(codes.shape, dtype=bool)
    place = np.minimum(np.searchsorted(truth, asked), len(truth) - 1)
    return (truth[place] == asked) & (codes >= 0)


def evaluate_part(
    part: Part,
    score: Score,
    *,
    protocol: Protocol,
    item_hashes: npt.NDArray[np.uint64],
    train_counts: Int,
    metrics: Sequence[str] | None = None,
    diversity_vectors: npt.NDArray[np.float32] | None = None,
    tie_seed: int = 0,
    intervals: bool = True,
    slices: bool | Sequence[Slice] = True,
    system: str = "",
    data: str = "",
    fingerprint: str = "",
    batch: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Rank every query of `part` over the whole catalogue and measure.

    `item_hashes` (N,) of the outside ids (Vocabulary.hashes), `train_counts` (N,) train events, `metrics` names like `ndcg@10`
    (none: `metrics.DEFAULT_METRICS`), `diversity_vectors` (N, D) for intra_list_diversity, which is left out of the default without them;
    `slices` true for `default_slices`. Raises SettingError for an unknown metric, DataError for an empty part, VitrailError for NaN scores.
    """
    wanted = [M.parse_metric(name) for name in (M.DEFAULT_METRICS if metrics is None else metrics)]
    if diversity_vectors is None:
        if metrics is not None and any(metric.name == "intra_list_diversity" for metric in wanted):
            raise DataError("intra_list_diversity needs item attributes, and this data set has none: leave the metric out.")
        wanted = [metric for metric in wanted if metric.name != "intra_list_diversity"]
    if not len(part):
        raise DataError(f"The {part.name} part has no queries: choose another split, or more data.")
    started = time.perf_counter()
    n_items = len(item_hashes)
    width = max((metric.k for metric in wanted), default=1)
    need = 4 * BLOCK_BYTES + len(part) * (40 * width + 16 * len(wanted))
    afford_memory(need, free_memory(), f"Measuring the {part.name} part", "ask for metrics of shorter lists, or use a smaller share")
    codes, _ = rank_part(part, score, k=min(width, n_items), tie_ranks=ranking.tie_ranks(item_hashes, tie_seed), batch=batch, progress=progress)
    codes = np.pad(codes, ((0, 0), (0, width - codes.shape[1])), constant_values=-1)
    hits = hits_of(codes, part.target_indptr, part.target_items, n_items)
    lengths = part.histories.lengths.numpy()
    values: dict[str, npt.NDArray[np.float64]] = {}
    means: dict[str, float] = {}
    for metric in wanted:
        found: npt.NDArray[np.float64] | float
        if M.METRICS[metric.name].kind == "accuracy":
            found = _measure(metric, hits, np.diff(part.target_indptr), protocol)
        else:
            found = _measure_lists(metric, codes[:, : metric.k], part, train_counts, diversity_vectors)
        if isinstance(found, np.ndarray):
            values[str(metric)] = found
            found = float(np.nanmean(found)) if not np.isnan(found).all() else float("nan")
        if np.isfinite(found):
            means[str(metric)] = found
    users = part.histories.users.numpy().astype(np.int64)
    clusters = clusters_of(users)
    ci = {name: bootstrap_ci(values[name], clusters=clusters) for name in means if name in values} if intervals else {}
    asked = default_slices(train_counts, lengths) if slices is True else list(slices or ())
    cut = {piece.name: row for piece in asked if (row := _slice_row(piece, wanted, hits, codes, part, protocol))}
    seconds = time.perf_counter() - started
    evaluation = Evaluation(
        system=system, data=data, fingerprint=fingerprint, part=part.name, protocol=protocol, users=len(part), left_out=dict(part.left_out),
        metrics=means, ci=ci, slices=cut, seconds=round(seconds, 4), users_per_second=round(len(part) / max(seconds, 1e-9), 1),
        warnings=_warnings(part), tie_seed=tie_seed,
    )  # fmt: skip
    evaluation._values.update(values)
    evaluation._user_codes = users
    return evaluation


def _warnings(part: Part) -> list[str]:
    if len(part) >= FEW_QUERIES:
        return []
    return [f"Only {len(part):,} {part.name} queries (fewer than {FEW_QUERIES}): read the intervals, not the third digit."]


def clusters_of(users: Int) -> Int | None:
    """User of each query where a user asks several, else none; an unknown user (-1) is a user of its own each time."""
    own = np.where(users >= 0, users, -1 - np.arange(len(users)))
    return own if len(distinct(own)) < len(own) else None


def _measure(metric: M.Metric, hits: Bool, targets: Int, protocol: Protocol) -> npt.NDArray[np.float64]:
    hits = hits[:, : metric.k]
    if metric.name == "recall":
        return M.recall(hits, targets, protocol.recall_denominator)
    name = "ndcg_ngcf" if metric.name == "ndcg" and protocol.ndcg == "ngcf" else metric.name
    return M.METRICS[name].function(hits, targets)


def _measure_lists(
    metric: M.Metric, codes: Int, part: Part, train_counts: Int, vectors: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float64] | float:
    n_candidates = len(train_counts) if part.candidates is None else int(part.candidates.sum())
    if metric.name == "novelty":
        return M.novelty(codes, train_counts)
    if metric.name == "popularity_lift":
        means = [M.mean_counts(train_counts, some.indptr.numpy(), some.items.numpy()) for _, some in part.history_blocks()]
        return M.lift_over(codes, train_counts, np.concatenate(means))
    if metric.name == "intra_list_diversity" and vectors is not None:
        return M.intra_list_diversity(codes, vectors)
    return M.coverage(codes, n_candidates) if metric.name == "coverage" else M.gini(codes, n_candidates)


def _slice_row(piece: Slice, wanted: Sequence[M.Metric], hits: Bool, codes: Int, part: Part, protocol: Protocol) -> dict[str, float] | None:
    """users and the accuracy metrics of a slice; none where nobody is in it."""
    targets = np.diff(part.target_indptr)
    if piece.items is not None:
        counted = np.concatenate([[0], np.cumsum(piece.items[part.target_items])])
        targets = counted[part.target_indptr[1:]] - counted[part.target_indptr[:-1]]
        hits = hits & piece.items[np.maximum(codes, 0)]
    inside = targets > 0 if piece.queries is None else (targets > 0) & piece.queries
    if not inside.any():
        return None
    row = {"users": float(inside.sum())}
    for metric in wanted:
        if M.METRICS[metric.name].kind == "accuracy":
            row[str(metric)] = float(_measure(metric, hits[inside], targets[inside], protocol).mean())
    return row


def diversity_vectors(train: Log, items: pl.DataFrame, columns: Mapping[str, str], *, width: int = 64, seed: int = 0) -> npt.NDArray[np.float32]:
    """(N, D) float32 vectors of length 1 (or zero) by which two items are alike.

    From the first `categories` or else `category` attribute in `columns` (attribute -> kind), one dimension a category; without one,
    from who had the item in `train`. More than 4 `width` dimensions are projected on `width` random ones. `items` (N rows) in code order.
    """
    name = next((c for kind in ("categories", "category") for c, k in columns.items() if k == kind and c in items.columns), None)
    if name is None:
        have = train.matrix().T.tocsr()
    else:
        table = items.select(pl.col(name).alias("tag")).with_row_index("item")
        table = (table.explode("tag") if isinstance(table.schema["tag"], pl.List) else table).drop_nulls().unique(maintain_order=True)
        tags, place = np.unique(table["tag"].cast(pl.String).to_numpy(), return_inverse=True)
        have = sparse.csr_array((np.ones(len(place)), (table["item"].to_numpy(), place)), shape=(len(items), len(tags)))
    if have.shape[1] <= 4 * width:
        vectors = have.toarray().astype(np.float32)
    else:
        vectors = np.asarray(have @ np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), size=(have.shape[1], width))).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
