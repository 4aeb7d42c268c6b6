"""Weights on the edges of the bipartite graph that are learned or made of what is at their ends, and sums over neighbours by them.

Letters: V = U + N nodes, users first; E distinct edges between a user and an item; D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitrail.blocks.embed import bag

BLOCK = 1 << 22
"""Numbers that are gathered at a time where two ends of edges meet."""


class Edges(nn.Module):
    """The distinct edges of a user-item graph, and for every node which of them it has."""

    users: Tensor
    items: Tensor
    indptr: Tensor
    neighbours: Tensor
    owner: Tensor

    def __init__(self, indptr: Tensor, items: Tensor, n_items: int) -> None:
        """indptr (U + 1,), items: training interactions in CSR form; repeated pairs are one edge."""
        super().__init__()
        self.n_users, self.n_items = len(indptr) - 1, n_items
        rows = torch.repeat_interleave(torch.arange(self.n_users), indptr.diff())
        keys = (rows * max(n_items, 1) + items).unique()
        u, i = keys // max(n_items, 1), keys % max(n_items, 1)
        by_item = torch.argsort(i, stable=True)
        self.register_buffer("users", u, persistent=False)  # (E,) nodes
        self.register_buffer("items", i + self.n_users, persistent=False)  # (E,) nodes
        degrees = torch.bincount(torch.cat([u, i + self.n_users]), minlength=self.n_users + n_items)
        self.register_buffer("indptr", nn.functional.pad(degrees.cumsum(0), (1, 0)), persistent=False)  # (V + 1,)
        self.register_buffer("neighbours", torch.cat([self.items, u[by_item]]), persistent=False)  # (2E,)
        self.register_buffer("owner", torch.cat([torch.arange(len(u)), by_item]), persistent=False)  # (2E,) the edge of each neighbour

    @property
    def degrees(self) -> Tensor:
        """(V,) neighbours of each node."""
        return self.indptr.diff()

    def sums(self, weights: Tensor, back: Tensor | None = None) -> Tensor:
        """Weights of edges (E,), and those of the same edges seen from the item where they differ -> their sum at every node (V,)."""
        nodes = torch.cat([self.users, self.items])
        return weights.new_zeros(self.n_users + self.n_items).index_add(0, nodes, torch.cat([weights, weights if back is None else back]))

    def spread(self, weights: Tensor, x: Tensor) -> Tensor:
        """Weights of edges (E,), vectors of nodes x (V, D) -> what neighbours send by them (V, D), differentiable in both."""
        y: Tensor = _Spread.apply(weights.to(x.dtype), x, self)  # type: ignore[no-untyped-call]
        return y

    def cosines(self, x: Tensor) -> Tensor:
        """x (V, D) -> the cosine between both ends of each edge (E,), differentiable; 0 beside a row of zeros."""
        y: Tensor = _Meet.apply(nn.functional.normalize(x, dim=1), self)  # type: ignore[no-untyped-call]
        return y


def _gather(edges: Edges, weights: Tensor, x: Tensor) -> Tensor:
    return bag(x, edges.neighbours, edges.indptr, weights[edges.owner])


def _meet(edges: Edges, a: Tensor, b: Tensor) -> Tensor:
    """(V, D), (V, D) -> <a of the user, b of the item> of each edge (E,), some edges at a time."""
    step = max(1, BLOCK // a.shape[1])
    pieces = [(a[u] * b[i]).sum(1) for u, i in zip(edges.users.split(step), edges.items.split(step), strict=True)]
    return torch.cat(pieces) if pieces else a.new_zeros(0)


class _Spread(torch.autograd.Function):
    """W x with W symmetric: the gradient in x is W g, that in the weight of an edge is what its ends would send each other."""

    @staticmethod
    def forward(ctx, weights: Tensor, x: Tensor, edges: Edges) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(weights, x)
        ctx.edges = edges
        return _gather(edges, weights, x)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[no-untyped-def]
        (weights, x), edges, g = ctx.saved_tensors, ctx.edges, gradients[0].contiguous()
        of_weights = _meet(edges, g, x) + _meet(edges, x, g) if ctx.needs_input_grad[0] else None
        return of_weights, _gather(edges, weights, g) if ctx.needs_input_grad[1] else None, None


class _Meet(torch.autograd.Function):
    """Inner products over edges, whose gradient is a sum over neighbours: nothing as large as (E, D) is ever kept."""

    @staticmethod
    def forward(ctx, x: Tensor, edges: Edges) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        ctx.edges = edges
        return _meet(edges, x, x)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return _gather(ctx.edges, gradients[0].contiguous(), ctx.saved_tensors[0]), None
