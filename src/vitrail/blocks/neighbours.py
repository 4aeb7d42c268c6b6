"""Sparse item-item similarity and its top-k, in blocks: no dense (N, N) matrix."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from vitrail.blocks.embed import bag

Weighting = Literal["cosine", "tfidf", "bm25"]

DENSE = 16
"""A block of similarities with more than one in so many stored is handled as a dense one; a product of sparse rows takes as many
times as long an addition as one of dense rows."""
CELLS = 1 << 24
"""Users times items up to which the columns may be made dense."""


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
    narrow = np.int32 if W.nnz < 2**31 else np.int64  # a faster product
    W = sparse.csr_array((W.data, W.indices.astype(narrow), W.indptr.astype(narrow)), shape=W.shape)
    columns = sparse.csr_array(W.T)
    products = np.square(np.diff(W.indptr).astype(np.float64)).sum()
    if W.shape[0] * n_items <= CELLS and W.nnz * n_items <= DENSE * products:
        similar = _dense_product(W, columns)
        # these take all threads by themselves
        parts = [_from_dense(similar(start, min(start + block, n_items)), start, k, shrink, norms) for start in range(0, n_items, block)]
    else:

        def of_block(start: int) -> Entries:
            stop = min(start + block, n_items)
            S = sparse.csr_array(columns[start:stop] @ W)  # row = target, column = history item
            if S.nnz * DENSE > (stop - start) * n_items:
                return _from_dense(torch.from_numpy(S.toarray()), start, k, shrink, norms)
            if shrink and norms is not None:
                target = np.repeat(np.arange(start, stop), np.diff(S.indptr))
                scale = norms[S.indices] * norms[target]
                S.data = S.data * scale / (scale + shrink)
            return _from_sparse(S, start, k)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # scipy's product leaves the interpreter's lock
            parts = list(pool.map(of_block, range(0, n_items, block)))
    target, indices, data = (np.concatenate(arrays) for arrays in zip(*parts, strict=True)) if parts else (np.empty(0, int), np.empty(0, int), np.empty(0))
    return sparse.csr_array(sparse.coo_array((data, (indices, target)), shape=(n_items, n_items)).tocsr())


Entries = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(target, history item, value) of what is kept"""


def _dense_product(W: sparse.csr_array, columns: sparse.csr_array) -> Callable[[int, int], Tensor]:
    """W (U, N) and its transpose -> a function of (start, stop) that gives those rows of W^T W, float32. A row is a weighted sum of the
    dense rows of its users: few additions a cell, all of them beside each other in memory."""
    D = torch.from_numpy(W.astype(np.float32).toarray())
    users, values = torch.from_numpy(columns.indices), torch.from_numpy(columns.data.astype(np.float32))

    def rows(start: int, stop: int) -> Tensor:
        bounds = columns.indptr[start : stop + 1]
        part = slice(int(bounds[0]), int(bounds[-1]))
        return bag(D, users[part], torch.from_numpy(bounds - bounds[0]), values[part])

    return rows


def _from_sparse(S: sparse.csr_array, start: int, k: int) -> Entries:
    """The k largest of each row of S (B, N), whose row r stands for item start + r and never keeps that item, by sorting what is stored."""
    S.sort_indices()
    target, indices, data = np.repeat(np.arange(S.shape[0]), np.diff(S.indptr)), S.indices, S.data
    keep = (indices != target + start) & (data != 0)
    target, indices, data = target[keep], indices[keep], data[keep]
    order = np.lexsort([-data, target])  # stable: equal values stay in the order of their codes
    target, indices, data = target[order], indices[order], data[order]
    first = np.searchsorted(target, np.arange(S.shape[0]))
    kept = np.arange(len(target)) - first[target] < k
    return target[kept] + start, indices[kept], data[kept]


def _from_dense(D: Tensor, start: int, k: int, shrink: float = 0.0, norms: np.ndarray | None = None) -> Entries:
    """As `_from_sparse`, by a selection in the dense rows D (B, N), which are changed: no sort of the millions of pairs of a small,
    dense catalogue."""
    if shrink and norms is not None:
        lengths = torch.from_numpy(norms).to(D.dtype)
        scale = lengths[start : start + len(D), None] * lengths
        D.mul_(scale / (scale + shrink))
    D.diagonal(start).zero_()
    k = min(k, D.shape[1])
    last = D.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    few = (last[:, 0] <= 0).nonzero().flatten()  # zeros, which are no pairs, or what lies below them would be kept
    D[few] = stored = D[few].masked_fill_(D[few] == 0, -torch.inf)
    last[few] = stored.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True).clamp(min=torch.finfo(D.dtype).min)
    keep = D.ge(last)
    tied = (keep.sum(1) > k).nonzero().flatten()  # more than k, equal at the cut: the lower codes stay
    equal = D[tied] == last[tied]
    over = keep[tied].sum(1, keepdim=True) - k
    keep[tied] &= ~(equal & (equal.cumsum(1, dtype=torch.int32) > equal.sum(1, keepdim=True) - over))
    places = np.flatnonzero(keep.numpy())
    target, indices = np.divmod(places, D.shape[1])
    return target + start, indices, D.numpy().reshape(-1)[places]
