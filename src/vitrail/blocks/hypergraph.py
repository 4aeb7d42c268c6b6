"""Hypergraphs: rows that share columns of an incidence matrix B are joined, as often as they share one. B B^T is never built: it is two products.

MMHCL (Xu et al., TOMM 2025). Letters: N items, U users, M kinds of content, K neighbours, D width.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from vitrail.blocks.item_graph import ContentNeighbours, as_torch, times


class ItemHypergraph(ContentNeighbours):
    """D^-1/2 H H^T D^-1/2 x, H = [H_1 | ... | H_M] (N, M N): item i is in the hyperedge of each of its K neighbours of each kind, itself one of them, whose
    cosine is above 0. D are the row sums of H H^T, in which items have as many edges as hyperedges they share."""

    def matrix(self, ids: Tensor, cosines: Tensor) -> sparse.csr_array:
        """H of one kind (N, N), of 0 and 1."""
        n, k = ids.shape
        there = ((ids >= 0) & (cosines > 0)).numpy().ravel()
        return sparse.csr_array((np.ones(there.sum()), (np.repeat(np.arange(n), k)[there], ids.numpy().ravel()[there])), shape=(n, n))

    def shared(self, x: Tensor) -> Tensor:
        """(N, D) -> H H^T x (N, D), differentiable in x."""
        return torch.stack([times(S, S_T, times(S_T, S, x)) for S, S_T in self.products()]).sum(0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> D^-1/2 H H^T D^-1/2 x (N, D); 0 for an item without content."""
        degrees = self.shared(torch.ones_like(x[:, :1]))
        scale = torch.where(degrees > 0, degrees.clamp(min=1e-12).rsqrt(), 0.0)
        return scale * self.shared(scale * x)


class CoUsers(nn.Module):
    """D^-1 (R R^T - diag) x: users joined as often as they share an item, no user with itself; rows sum to 1, or are 0 where a user shares none."""

    R: Tensor
    R_T: Tensor
    own: Tensor
    total: Tensor

    def __init__(self, indptr: Tensor, items: Tensor, n_items: int) -> None:
        """indptr (U + 1,), items (E,): the training interactions in CSR form; repeated pairs count once."""
        super().__init__()
        R = sparse.csr_array((np.ones(len(items)), items.numpy(), indptr.numpy()), shape=(len(indptr) - 1, n_items), copy=True)
        R.sum_duplicates()
        R.data[:] = 1.0
        own = R.sum(1)
        self.register_buffer("R", as_torch(R, torch.device("cpu")), persistent=False)
        self.register_buffer("R_T", as_torch(sparse.csr_array(R.T), torch.device("cpu")), persistent=False)
        self.register_buffer("own", torch.from_numpy(own).float()[:, None], persistent=False)
        self.register_buffer("total", torch.from_numpy(R @ R.sum(0) - own).float()[:, None], persistent=False)

    def to_items(self, x: Tensor) -> Tensor:
        """(U, D) -> R^T x (N, D): what a stranger's history is summed from."""
        return times(self.R_T, self.R, x)

    def forward(self, x: Tensor) -> Tensor:
        """(U, D) -> (U, D), differentiable in x."""
        return torch.where(self.total > 0, times(self.R, self.R_T, self.to_items(x)) - self.own * x, 0.0) / self.total.clamp(min=1)
