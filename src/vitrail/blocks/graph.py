"""One bipartite graph, one normalisation, one propagate, shared by all graph systems."""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from vitrail.blocks.drop import kept
from vitrail.blocks.embed import bag


def bipartite_adjacency(indptr: Tensor, items: Tensor, n_items: int, *, normalise: bool = True) -> Tensor:
    """Symmetrically normalised adjacency D^-1/2 A D^-1/2 of the user-item graph, no self loops (LightGCN, equation 8); plain
    A without `normalise`: a row-normalised product is diag(1 / d) (A x), which keeps the gradient a product with A itself.

    indptr (U + 1,), items (E,): the training interactions in CSR form; repeated pairs count once. A node without an
    edge gets a zero row. Returns a sparse CSR float32 tensor (U + N, U + N), users first.
    """
    users = len(indptr) - 1
    R = sparse.csr_array((np.ones(len(items)), items.numpy(), indptr.numpy()), shape=(users, n_items), copy=True)  # the sum below works in place
    R.sum_duplicates()
    R.data[:] = 1.0
    degrees = np.concatenate([R.sum(1), R.sum(0)])
    scale = np.where(degrees > 0, 1 / np.sqrt(np.maximum(degrees, 1)), 0.0)
    A = sparse.csr_array(sparse.block_array([[None, R], [R.T, None]], format="csr"))
    A.sort_indices()
    rows = np.repeat(scale, np.diff(A.indptr))
    values = (rows * scale[A.indices] if normalise else A.data).astype(np.float32)
    # 32-bit indices: the products are faster with them
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # PyTorch calls the format beta
        return torch.sparse_csr_tensor(
            torch.from_numpy(A.indptr.astype(np.int32)), torch.from_numpy(A.indices.astype(np.int32)), torch.from_numpy(values), size=A.shape
        )


def product(A: Tensor, x: Tensor) -> Tensor:
    """A (V, V) sparse CSR, x (V, D) -> A x (V, D). On a processor a row of it is a weighted bag of rows of x, whose kernel takes a
    third of the time of the sparse product, and adds in the same order whatever the number of threads."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return A @ x
    # detached: what the bags' own gradient would need is made even where no gradient is asked
    return bag(x.detach(), A.col_indices(), A.crow_indices(), A.values())


class _SymmetricProduct(torch.autograd.Function):
    """A x with A symmetric: the gradient is A g, one product, and no transpose of A is ever built."""

    @staticmethod
    def forward(ctx, A: Tensor, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.A = A
        return product(A, x)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[None, Tensor]:  # type: ignore[no-untyped-def]
        return None, product(ctx.A, gradients[0].contiguous())


def propagate(A: Tensor, x: Tensor) -> Tensor:
    """A (V, V) symmetric sparse CSR, x (V, D) -> A x (V, D), differentiable in x."""
    y: Tensor = _SymmetricProduct.apply(A, x)  # type: ignore[no-untyped-call]
    return y


class _MeanOfLayers(torch.autograd.Function):
    """(x + A x + ... + A^L x) / (L + 1) by Horner's rule. With A symmetric the gradient is the same function of the gradient, so
    nothing is kept for it and no layer but one is ever in memory."""

    @staticmethod
    def forward(ctx, A: Tensor, x: Tensor, depth: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.A, ctx.depth = A, depth
        return _horner(A, x, depth)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[None, Tensor, None]:  # type: ignore[no-untyped-def]
        return None, _horner(ctx.A, gradients[0].contiguous(), ctx.depth), None


def _horner(A: Tensor, x: Tensor, depth: int) -> Tensor:
    total = x
    for _ in range(depth):
        total = product(A, total).add_(x)
    return total.div_(depth + 1) if depth else total.clone()


def mean_of_layers(A: Tensor, x: Tensor, depth: int) -> Tensor:
    """A (V, V) symmetric sparse CSR, x (V, D) -> the mean of x, A x, ..., A^depth x (V, D), differentiable in x."""
    mean: Tensor = _MeanOfLayers.apply(A, x, depth)  # type: ignore[no-untyped-call]
    return mean


class _MeanOfTables(torch.autograd.Function):
    """`_MeanOfLayers` of two tables. Neither they nor their gradients are ever joined, and no gradient of a part, as large as the whole, is made."""

    @staticmethod
    def forward(ctx, A: Tensor, users: Tensor, items: Tensor, depth: int) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        ctx.A, ctx.depth = A, depth
        return _horner_of_two(A, users, items, depth)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[None, Tensor, Tensor, None]:  # type: ignore[no-untyped-def]
        return None, *_horner_of_two(ctx.A, gradients[0].contiguous(), gradients[1].contiguous(), ctx.depth), None


def _horner_of_two(A: Tensor, users: Tensor, items: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    n = len(users)
    if users.device.type != "cpu" or users.dtype != torch.float32:
        mean = _horner(A, torch.cat([users, items]), depth)
        return mean[:n], mean[n:]
    starts, columns, values = A.crow_indices(), A.col_indices(), A.values()
    edges = int(starts[n])  # rows of users read items alone, and rows of items users
    to_users, to_items = (columns[:edges] - n, starts[: n + 1], values[:edges]), (columns[edges:], starts[n:] - edges, values[edges:])
    u, i = users.detach(), items.detach()
    for _ in range(depth):
        u, i = bag(i, *to_users).add_(users), bag(u, *to_items).add_(items)
    return (u.div_(depth + 1), i.div_(depth + 1)) if depth else (u.clone(), i.clone())


def mean_of_tables(A: Tensor, users: Tensor, items: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """`mean_of_layers` of users (U, D) and items (N, D), A (U + N, U + N) symmetric sparse CSR -> the means (U, D) and (N, D), differentiable in both."""
    both: tuple[Tensor, Tensor] = _MeanOfTables.apply(A, users, items, depth)  # type: ignore[no-untyped-call]
    return both


def layers(A: Tensor, x: Tensor, depth: int) -> list[Tensor]:
    """[x, A x, ..., A^depth x], each (V, D)."""
    out = [x]
    for _ in range(depth):
        out.append(propagate(A, out[-1]))
    return out


class _BilinearLayer(torch.autograd.Function):
    """One pass forward and one back, a block of rows at a time: what lies between stays in the cache, and is made anew on the way back."""

    @staticmethod
    def forward(ctx, x: Tensor, s: Tensor, W: Tensor, P: Tensor, bias: Tensor, stays: Tensor | None, slope: float) -> Tensor:  # type: ignore[no-untyped-def]
        out, length = torch.empty_like(x), x.new_empty(len(x), 1)
        for rows in _blocks(x):
            own, sent, h = x[rows], s[rows], out[rows]
            torch.addmm(bias, sent + own, W.T, out=h).addmm_(sent * own, P.T)
            F.leaky_relu(h, slope, inplace=True)
            if stays is not None:
                h.mul_(stays[rows])
            torch.linalg.vector_norm(h, dim=1, keepdim=True, out=length[rows])
            h.div_(length[rows].clamp_(min=1e-12))
        ctx.slope = slope
        ctx.save_for_backward(x, s, W, P, stays, out, length)
        return out

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, None, None]:  # type: ignore[no-untyped-def]
        x, s, W, P, stays, out, length = ctx.saved_tensors
        of_x, of_s, of_W, of_P, of_bias = torch.empty_like(x), torch.empty_like(s), torch.zeros_like(W), torch.zeros_like(P), W.new_zeros(len(W))
        for rows in _blocks(x):
            g, own, sent, unit = gradients[0][rows], x[rows], s[rows], out[rows]
            d = torch.addcmul(g, unit, (g * unit).sum(1, keepdim=True), value=-1.0).div_(length[rows])
            if stays is not None:
                d.mul_(stays[rows])
            # the slope shows in the sign of what came out; where nothing was kept it does not matter
            d = torch.ops.aten.leaky_relu_backward(d, unit, ctx.slope, True)
            of_total, of_both = d @ W, d @ P
            torch.addcmul(of_total, of_both, sent, out=of_x[rows])
            torch.addcmul(of_total, of_both, own, out=of_s[rows])
            of_W.addmm_(d.T, sent + own)
            of_P.addmm_(d.T, sent * own)
            of_bias += d.sum(0)
        return of_x, of_s, of_W, of_P, of_bias, None, None


class _TwoSidedLayer(torch.autograd.Function):
    """As `_BilinearLayer`: products are made anew on the way back, and nothing but what comes in and goes out is kept."""

    @staticmethod
    def forward(ctx, x: Tensor, s: Tensor, W: Tensor, P: Tensor, of_sum: Tensor, of_both: Tensor, stays: Tensor | None, slope: float):  # type: ignore[no-untyped-def]
        out, unit = torch.empty_like(x), torch.empty_like(x)
        length = x.new_empty(len(x), 1)
        for rows in _blocks(x):
            h = out[rows]
            F.leaky_relu(torch.addmm(of_sum, s[rows], W.T, out=h), slope, inplace=True)
            h += F.leaky_relu(torch.addmm(of_both, x[rows] * s[rows], P.T), slope, inplace=True)
            if stays is not None:
                h.mul_(stays[rows])
            torch.linalg.vector_norm(h, dim=1, keepdim=True, out=length[rows])
            torch.div(h, length[rows].clamp_(min=1e-12), out=unit[rows])
        ctx.slope = slope
        ctx.save_for_backward(x, s, W, P, of_sum, of_both, stays, unit, length)
        return out, unit

    @staticmethod
    def backward(ctx, *gradients: Tensor):  # type: ignore[no-untyped-def]
        x, s, W, P, of_sum, of_both, stays, unit, length = ctx.saved_tensors
        of_x, of_s, of_W, of_P = torch.empty_like(x), torch.empty_like(s), torch.zeros_like(W), torch.zeros_like(P)
        biases = torch.zeros_like(of_sum), torch.zeros_like(of_both)
        for rows in _blocks(x):
            g, own, sent, u = gradients[1][rows], x[rows], s[rows], unit[rows]
            d = torch.addcmul(g, u, (g * u).sum(1, keepdim=True), value=-1.0).div_(length[rows]).add_(gradients[0][rows])
            if stays is not None:
                d.mul_(stays[rows])
            both = own * sent
            first, second = (
                torch.ops.aten.leaky_relu_backward(d, torch.addmm(bias, side, weight.T), ctx.slope, False)
                for bias, side, weight in ((of_sum, sent, W), (of_both, both, P))
            )
            back = second @ P
            torch.mul(back, sent, out=of_x[rows])
            torch.addcmul(torch.mm(first, W, out=of_s[rows]), back, own, out=of_s[rows])
            of_W.addmm_(first.T, sent)
            of_P.addmm_(second.T, both)
            for total, part in zip(biases, (first, second), strict=True):
                total += part.sum(0)
        return of_x, of_s, of_W, of_P, *biases, None, None


BLOCK = 1 << 18
"""Numbers of a block of rows that lie in the cache several times over."""


def _blocks(x: Tensor) -> list[slice]:
    size = max(1, BLOCK // x.shape[1]) if x.device.type == "cpu" else max(len(x), 1)
    return [slice(start, start + size) for start in range(0, len(x), size)]


def bilinear_layer(x: Tensor, s: Tensor, W: Tensor, P: Tensor, bias: Tensor, *, slope: float, dropout: float) -> Tensor:
    """Rows of dropout(leaky_relu((s + x) W^T + (s * x) P^T + bias)) at length 1 (NGCF, equation 7), differentiable.

    x (V, D) own vectors, s (V, D) what neighbours send, W, P (D, D), bias (D,), slope below 0, dropout a share (0 outside training) -> (V, D).
    """
    stays = kept(x, dropout) if dropout else None
    unit: Tensor = _BilinearLayer.apply(x, s, W, P, bias, stays, slope)  # type: ignore[no-untyped-call]
    return unit


def two_sided_layer(
    x: Tensor, s: Tensor, W: Tensor, P: Tensor, of_sum: Tensor, of_both: Tensor, *, slope: float, dropout: float
) -> tuple[Tensor, Tensor]:
    """dropout(leaky_relu(s W^T + of_sum) + leaky_relu((x * s) P^T + of_both)), and its rows at length 1 (NGCF, the authors' code), differentiable.

    Shapes as of `bilinear_layer`, with a bias (D,) for each product -> (V, D), (V, D).
    """
    stays = kept(x, dropout) if dropout else None
    both: tuple[Tensor, Tensor] = _TwoSidedLayer.apply(x, s, W, P, of_sum, of_both, stays, slope)  # type: ignore[no-untyped-call]
    return both


def nudge(x: Tensor, length: float | Tensor) -> Tensor:
    """x (V, D) with every row moved by exactly `length`, one number or one a row (V, 1), in a random direction of its own orthant
    (SimGCL): no coordinate changes its sign, and a row of zeros stays."""
    step = torch.nn.functional.normalize(torch.rand_like(x), dim=1)
    return x + length * torch.sign(x) * step
