"""The graph of items of alike content, with what the interaction graph knows of items that go together."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from torch import Tensor

from vitrail.blocks.item_graph import ItemGraph, as_torch, directed
from vitrail.blocks.neighbours import gram_top_k, weigh


def together(indptr: Tensor, items: Tensor, n_items: int, k: int) -> sparse.csr_array:
    """Training interactions in CSR form -> the `k` items that go together with each most, by the cosine of who has them (N, N); not itself."""
    X = sparse.csr_array((np.ones(len(items)), items.numpy(), indptr.numpy()), shape=(len(indptr) - 1, n_items), copy=True)
    X.sum_duplicates()
    X.data[:] = 1.0
    return sparse.csr_array(gram_top_k(weigh(X, "cosine"), k).T)


def infuse(S: sparse.csr_array, C: sparse.csr_array, has: np.ndarray, share: float) -> sparse.csr_array:
    """Alike items S (N, N), items that go together C (N, N) of any weights >= 0, has (N,) true where an item has content -> (1 - share) S + share C
    with rows of both summing to 1; where an item goes with none that has content, S alone."""
    keep = sparse.diags_array(has.astype(np.float64))
    C = sparse.csr_array(keep @ C @ keep)
    C, S = (sparse.csr_array(sparse.diags_array(1 / np.where((sums := M.sum(1)) > 0, sums, 1.0)) @ M) for M in (C, S))
    part = np.where(C.sum(1) > 0, share, 0.0)
    return sparse.csr_array(sparse.diags_array(1 - part) @ S + sparse.diags_array(part) @ C)


class Infused(ItemGraph):
    """The graph of one kind of content, with what the interaction graph knows."""

    def __init__(self, values: Tensor, mask: Tensor, k: int, together: sparse.csr_array, share: float) -> None:
        """values (N, width), mask (N,), `k` neighbours, `together` (N, N)."""
        super().__init__({"": values}, {"": mask}, (1.0,), k)
        self._together, self.share, self._mask = together, share, mask.numpy()

    def products(self) -> list[tuple[Tensor, Tensor]]:
        ids, cosines = self.neighbours(0)
        if not self._products or self._products[0][0].device != self.key.device:
            S = infuse(directed(ids.cpu().long(), cosines.cpu()), self._together, self._mask, self.share)
            self._products = [(as_torch(S, self.key.device), as_torch(sparse.csr_array(S.T), self.key.device))]
        return self._products
