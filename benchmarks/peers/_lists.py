"""Lists of top items as every adapter writes them, and the arrays of the split as every adapter reads them. Runs in the peers' environments: numpy only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]


def read_split(job: dict[str, Any]) -> Arrays:
    """The arrays that handover.py wrote, by name; see there. Codes are places in Vitrail's vocabulary."""
    with np.load(Path(job["split"]) / "split.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def span(indptr: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, slice]:
    """(row of each entry counted from `start`, the entries) of the rows [start, stop) of a CSR structure."""
    return np.repeat(np.arange(stop - start), np.diff(indptr[start : stop + 1])), slice(int(indptr[start]), int(indptr[stop]))


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """scores (B, N) -> the k best codes of each row (B, k), best first."""
    chosen = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.take_along_axis(-scores, chosen, 1).argsort(1, kind="stable")
    return np.take_along_axis(chosen, order, 1)


def first_allowed(codes: np.ndarray, mask_indptr: np.ndarray, mask_items: np.ndarray, n_items: int, k: int) -> np.ndarray:
    """Lists (Q, M) that are longer than asked -> the first k of each that its query's mask does not hold, -1 where a list is short."""
    rows = np.repeat(np.arange(len(codes)), np.diff(mask_indptr))
    banned = np.sort(rows * n_items + mask_items)
    keys = np.arange(len(codes))[:, None] * n_items + codes
    place = np.searchsorted(banned, keys).clip(max=max(len(banned) - 1, 0))
    allowed = (codes >= 0) & ((banned[place] != keys) if len(banned) else True)
    order = np.argsort(~allowed, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(allowed, order, 1), np.take_along_axis(codes, order, 1), -1)


def write_lists(path: str, codes: np.ndarray) -> None:
    """Codes (Q, k) of each test query, in the order of the split's queries."""
    np.save(path, np.ascontiguousarray(codes, dtype=np.int32))


def ndcg(codes: np.ndarray, target_indptr: np.ndarray, target_items: np.ndarray, n_items: int) -> float:
    """Mean NDCG of lists (Q, k): only for a peer's own early stopping; what is reported comes from Vitrail's evaluator."""
    counts = np.diff(target_indptr)
    truth = np.sort(np.repeat(np.arange(len(codes)), counts) * n_items + target_items)
    keys = np.arange(len(codes))[:, None] * n_items + codes
    hits = (truth[np.searchsorted(truth, keys).clip(max=len(truth) - 1)] == keys) & (codes >= 0)
    gains = 1 / np.log2(np.arange(2, codes.shape[1] + 2))
    ideal = np.concatenate([[0], np.cumsum(gains)])[np.minimum(counts, codes.shape[1])]
    return float(((hits * gains).sum(1) / ideal).mean())
