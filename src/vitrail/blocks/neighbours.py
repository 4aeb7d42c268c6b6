"""Sparse item-item similarity and its top-k, in blocks: no dense (N, N) matrix."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import sparse

Weighting = Literal["cosine", "tfidf", "bm25"]


def weigh(X: sparse.csr_array, weighting: Weighting, k1: float = 1.2, b: float = 0.75) -> sparse.csr_array:
    """X (U, N) counts -> item columns weighted: an item is a document, a user a term, N the number of items.

    `cosine` and `tfidf` normalise each item column to length 1; `bm25` does not. A column without an event stays 0.
    """
    X = sparse.csr_array(X, dtype=np.float64, copy=True)
    if weighting != "cosine":
        idf = np.log(X.shape[1]) - np.log1p(np.diff(X.indptr))
        per_event = np.repeat(idf, np.diff(X.indptr))
        if weighting == "tfidf":
            X.data = np.sqrt(X.data) * per_event
        else:
            lengths = X.sum(0)
            lengths = lengths / max(lengths.mean(), 1e-12)
            X.data = X.data * (k1 + 1) / (k1 * (1 - b + b * lengths[X.indices]) + X.data) * per_event
    if weighting != "bm25":
        norms = np.sqrt(X.multiply(X).sum(0))
        X.data /= np.where(norms > 0, norms, 1.0)[X.indices]
    return X


def gram_top_k(W: sparse.csr_array, k: int, shrink: float = 0.0, norms: np.ndarray | None = None, block: int = 256) -> sparse.csr_array:
    """The k most similar items of every target item: S = W^T W, diagonal 0, top k of each column, zeros dropped.

    W (U, N) weighted columns -> (N, N) CSR with S[i, j] the weight of history item i for target j. With `shrink` the
    cosine is w_i.w_j n_i n_j / (n_i n_j + shrink), `norms` (N,) being the lengths n of the raw columns. Ties at the
    k-th place go to the lower code; codes follow a hash of the id, so this favours no item.
    """
    n_items = W.shape[1]
    columns = sparse.csc_array(W)
    rows_T = sparse.csr_array(W.T)
    parts = []
    for start in range(0, n_items, block):
        stop = min(start + block, n_items)
        S = sparse.csr_array(rows_T @ columns[:, start:stop]).T.tocsr()  # row = target, column = history item
        S.sort_indices()
        target = np.repeat(np.arange(stop - start), np.diff(S.indptr))
        data, indices = S.data, S.indices
        if shrink and norms is not None:
            scale = norms[indices] * norms[target + start]
            data = data * scale / (scale + shrink)
        keep = (indices != target + start) & (data != 0)
        target, indices, data = target[keep], indices[keep], data[keep]
        order = np.lexsort([indices, -data, target])
        target, indices, data = target[order], indices[order], data[order]
        first = np.searchsorted(target, np.arange(stop - start))
        kept = np.arange(len(target)) - first[target] < k
        parts.append(sparse.csr_array((data[kept], (target[kept], indices[kept])), shape=(stop - start, n_items)))
    return sparse.csr_array(sparse.vstack(parts, format="csr").T.tocsr())
