"""Users joined by the items they share, or items by the users they share: the K of each that share most, weighed by a softmax of how many.

REARM (Wang et al., MM 2025). Letters: V rows (users or items), K neighbours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from vitrail.blocks.item_graph import ItemGraph, Neighbours
from vitrail.blocks.neighbours import gram_top_k

ContentOf = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
"""name -> vectors (V, width), name -> (V,) true where a row has them"""


class CoNeighbours(Neighbours):
    """Of each row those with which it shares most; none for one that shares nothing."""

    def __init__(self, indptr: Tensor, items: Tensor, n_items: int, k: int, of: Literal["users", "items"]) -> None:
        """indptr (U + 1,), items (E,): the training interactions in CSR form; repeated pairs count once."""
        users, digest = len(indptr) - 1, hashlib.blake2b(f"{of} {k}".encode(), digest_size=8)
        digest.update(indptr.numpy().tobytes() + items.numpy().tobytes())
        super().__init__(users if of == "users" else n_items, [k], (int.from_bytes(digest.digest(), "little") >> 1) or 1)
        self._source, self._of = (indptr, items, n_items), of

    def find(self, place: int, k: int) -> tuple[Tensor, Tensor]:
        indptr, items, n_items = self._source
        R = sparse.csr_array((np.ones(len(items)), items.numpy(), indptr.numpy()), shape=(len(indptr) - 1, n_items), copy=True)
        R.sum_duplicates()
        R.data[:] = 1.0
        rows = sparse.csr_array(gram_top_k(sparse.csr_array(R.T) if self._of == "users" else R, k).T)  # a row each, its neighbours in it
        ids, counts = torch.full((rows.shape[0], k), -1), torch.zeros(rows.shape[0], k)
        row = torch.from_numpy(np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)))
        slot = torch.arange(rows.nnz) - torch.from_numpy(rows.indptr.astype(np.int64))[row]
        ids[row, slot] = torch.from_numpy(rows.indices.astype(np.int64))
        counts[row, slot] = torch.from_numpy(rows.data).float()
        return ids, counts

    def matrix(self, ids: Tensor, cosines: Tensor) -> sparse.csr_array:
        """Rows sum to 1, or are 0 where there is no neighbour; `cosines` are counts."""
        n, k = ids.shape
        there = (ids >= 0).numpy().ravel()
        weights = cosines.masked_fill(ids < 0, -torch.inf).softmax(1).numpy().ravel()[there]
        return sparse.csr_array((weights, (np.repeat(np.arange(n), k)[there], ids.numpy().ravel()[there])), shape=(n, n))


class EnrichedGraph(nn.Module):
    """weight times the graph of what rows share, and the rest times the graph of their content (homography of REARM)."""

    def __init__(self, content: ContentOf, counts: Sequence[float], weight: float, shared: CoNeighbours) -> None:
        """The content of the rows and their masks, what each kind of it counts, and the rows that share most, which count `weight`."""
        super().__init__()
        self.alike = ItemGraph(*content, counts, shared.get_buffer("ids_0").shape[1], edges="scaled")
        self.shared, self.weight = shared, weight

    def forward(self, x: Tensor, depth: int = 1) -> Tensor:
        """(V, D) -> layer `depth` (V, D), differentiable in x."""
        for _ in range(depth):
            x = self.weight * self.shared.of_kind(0, x) + (1 - self.weight) * self.alike(x)
        return x
