"""The graph between items whose content is alike: built once from content vectors, in blocks, and never a dense (N, N) matrix.

LATTICE (Zhang et al., MM 2021) and FREEDOM (Zhou and Shen, MM 2023). Letters: N items, M kinds of content, K neighbours.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from vitrail.blocks.graph import product

Edges = Literal["binary", "cosine", "scaled"]
WIDE = 128
"""Columns whose largest value is looked at before they are."""


def nearest(values: Tensor, mask: Tensor, k: int, block: int = 1024) -> tuple[Tensor, Tensor]:
    """Rows values (N, D), mask (N,) true where a row has content -> the k rows of largest cosine, each row itself first: ids (N, K) int64 and
    cosines (N, K) float32, K = k or as many rows as have content. Rows without content have no neighbours (-1) and are nobody's."""
    have, lack, n = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0], len(mask)
    k = min(k, len(have))
    ids, cosines = torch.full((n, k), -1), torch.zeros(n, k)
    columns = values.float()  # read where they lie: a copy at length 1 would take as much memory again
    lengths = torch.cat([part.norm(dim=1) for part in columns.split(block)]).clamp_(min=1e-12)
    room = torch.full((min(block, len(have)), n + -n % WIDE), -2.0)  # whole groups of columns; past the end: never chosen
    for of in have.split(block) if k else ():
        cosine = room[: len(of)]
        torch.mm(columns[of].div_(lengths[of, None]), columns.T, out=cosine[:, :n])
        cosine[:, :n].div_(lengths)
        cosine[:, lack] = -2.0
        cosine[torch.arange(len(of)), of] = 2.0  # an item is its own first neighbour, also beside one of equal content
        best, found = largest(cosine, k)
        best[:, 0] = 1.0
        ids[of], cosines[of] = found, best
    return ids, cosines


def largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """x (B, N), N a multiple of WIDE -> the k largest of each row, descending, and their places, both (B, K). The k largest stand in those k groups
    of columns whose own largest are the largest, so that all but k groups are read once: a selection among all would take longer than the product."""
    rows, columns = x.shape
    if columns // WIDE <= 2 * k:
        best, place = x.topk(k, dim=1)
        return best, place
    groups = x.view(rows, -1, WIDE)
    of = groups.amax(2).topk(k, dim=1).indices.sort(1).values
    best, place = groups.gather(1, of[:, :, None].expand(-1, -1, WIDE)).view(rows, -1).topk(k, dim=1)
    return best, of.gather(1, place // WIDE) * WIDE + place % WIDE


def directed(ids: Tensor, cosines: Tensor, edges: Edges = "binary") -> sparse.csr_array:
    """Neighbours (N, K) -> the normalised graph (N, N): w_ij / sqrt(d_i d_j) with d the row sums of the weights w, which are 1 (`binary`, so every
    entry is 1 / K) or the cosine (`cosine`, LATTICE; a negative one is 0, where the original breaks); or the cosine over counts of neighbours,
    cos_ij / sqrt(K_i K_j) (`scaled`, REARM)."""
    n, k = ids.shape
    there = (ids >= 0).numpy()
    rows, columns = np.repeat(np.arange(n), k)[there.ravel()], ids.numpy().ravel()[there.ravel()]
    found = cosines.numpy().ravel()[there.ravel()].astype(np.float64)
    weights = np.ones(len(rows)) if edges == "binary" else found.clip(min=0) if edges == "cosine" else found
    degrees = there.sum(1).astype(np.float64) if edges == "scaled" else np.bincount(rows, weights, minlength=n)
    scale = np.where(degrees > 0, 1 / np.sqrt(np.maximum(degrees, 1e-12)), 0.0)
    return sparse.csr_array((weights * scale[rows] * scale[columns], (rows, columns)), shape=(n, n))


class _Product(torch.autograd.Function):
    """S x with the transpose at hand: the gradient is S^T g."""

    @staticmethod
    def forward(ctx, S: Tensor, S_T: Tensor, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.S_T = S_T
        return product(S, x)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[None, None, Tensor]:  # type: ignore[no-untyped-def]
        return None, None, product(ctx.S_T, gradients[0].contiguous())


def times(S: Tensor, S_T: Tensor, x: Tensor) -> Tensor:
    """S (V, W) sparse CSR and its transpose, x (W, D) -> S x (V, D), differentiable in x."""
    y: Tensor = _Product.apply(S, S_T, x)  # type: ignore[no-untyped-call]
    return y


def as_torch(matrix: sparse.csr_array, device: torch.device) -> Tensor:
    """A sparse CSR float32 tensor with 32-bit indices, which halves the time of a product."""
    matrix = sparse.csr_array(matrix)
    matrix.sort_indices()
    rows, columns = (torch.from_numpy(index.astype(np.int32)) for index in (matrix.indptr, matrix.indices))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # PyTorch calls the format beta
        return torch.sparse_csr_tensor(rows, columns, torch.from_numpy(matrix.data.astype(np.float32)), size=matrix.shape).to(device)


class Neighbours(nn.Module):
    """K neighbours of each of V rows, of one kind or several. They are found at the first use and live in buffers beside a hash of what they were found
    from, so an artifact brings them along, and neighbours of other content are never taken for these."""

    key: Tensor

    def __init__(self, rows: int, wide: Sequence[int], source: int) -> None:
        """`rows` V, the K of each kind, and the hash of what they are found from."""
        super().__init__()
        self._hash, self.kinds = source, len(wide)
        self._products: list[tuple[Tensor, Tensor]] = []
        for place, k in enumerate(wide):
            self.register_buffer(f"ids_{place}", torch.full((rows, k), -1, dtype=torch.int32))
            self.register_buffer(f"cosines_{place}", torch.zeros(rows, k))
        self.register_buffer("key", torch.zeros((), dtype=torch.int64))

    def find(self, place: int, k: int) -> tuple[Tensor, Tensor]:
        """Ids (V, K), -1 where there is none, and their weights (V, K), of one kind."""
        raise NotImplementedError

    def matrix(self, ids: Tensor, cosines: Tensor) -> sparse.csr_array:
        """What neighbours (V, K) and their weights say as a matrix S (V, V)."""
        raise NotImplementedError

    def neighbours(self, place: int) -> tuple[Tensor, Tensor]:
        """Ids (V, K) and cosines (V, K) of one kind, found where they are not there."""
        if int(self.key) != self._hash:
            for n in range(self.kinds):
                ids, cosines = self.find(n, self.get_buffer(f"ids_{n}").shape[1])
                self.get_buffer(f"ids_{n}").copy_(ids)
                self.get_buffer(f"cosines_{n}").copy_(cosines)
            self.settled()
        return self.get_buffer(f"ids_{place}"), self.get_buffer(f"cosines_{place}")

    def settled(self) -> None:
        """The buffers hold what belongs to the source."""
        self.key.fill_(self._hash)
        self._products = []

    def products(self) -> list[tuple[Tensor, Tensor]]:
        """(S, S^T) of each kind."""
        pairs = [self.neighbours(place) for place in range(self.kinds)]
        if not self._products or self._products[0][0].device != self.key.device:
            graphs = [self.matrix(ids.cpu().long(), cosines.cpu()) for ids, cosines in pairs]
            self._products = [(as_torch(S, self.key.device), as_torch(sparse.csr_array(S.T), self.key.device)) for S in graphs]
        return self._products

    def of_kind(self, place: int, x: Tensor) -> Tensor:
        """(V, D) -> S x (V, D) of one kind alone, differentiable in x."""
        return times(*self.products()[place], x)


class ContentNeighbours(Neighbours):
    """The rows whose content is most alike, kind by kind; an item that lacks a kind has no neighbours of it and is nobody's."""

    has: Tensor

    def __init__(self, vectors: Mapping[str, Tensor], masks: Mapping[str, Tensor], k: int, edges: Edges = "binary") -> None:
        """vectors name -> (N, D), masks name -> (N,)."""
        content = {name: (vectors[name], masks[name]) for name in vectors}
        has = torch.stack([masks[name] for name in vectors], 1)
        super().__init__(len(has), [min(k, int(mask.sum())) for mask in has.T], content_hash(content, k))
        self.names, self.edges, self._content = list(vectors), edges, content
        self.register_buffer("has", has.float(), persistent=False)  # (N, M)

    def find(self, place: int, k: int) -> tuple[Tensor, Tensor]:
        return nearest(*self._content[self.names[place]], k)

    def settled(self) -> None:
        super().settled()
        self._content = {}  # they are found, and need not hold the content in memory

    def matrix(self, ids: Tensor, cosines: Tensor) -> sparse.csr_array:
        return directed(ids, cosines, self.edges)

    def add(self, first: int) -> None:
        """Rows from `first` on are new: their neighbours are themselves and old rows; old rows keep theirs."""
        for place, (values, mask) in enumerate(self._content.values()):
            unit = F.normalize(values.float(), dim=1)
            old, new = mask[:first].nonzero()[:, 0], mask[first:].nonzero()[:, 0] + first
            ids, cosines = self.get_buffer(f"ids_{place}"), self.get_buffer(f"cosines_{place}")
            if len(new) and ids.shape[1]:
                best, found = (unit[new] @ unit[old].T).topk(min(ids.shape[1] - 1, len(old)), dim=1)
                ids[new, : best.shape[1] + 1] = torch.cat([new[:, None], old[found]], 1).to(ids.dtype)
                cosines[new, : best.shape[1] + 1] = torch.cat([torch.ones(len(new), 1), best], 1)
        self.settled()


class ItemGraph(ContentNeighbours):
    """S x = sum over kinds of content of weight times S_kind x. An item that lacks a kind gets the others at their share, one that lacks all gets 0."""

    def __init__(
        self, vectors: Mapping[str, Tensor], masks: Mapping[str, Tensor], weights: Sequence[float], k: int, *, edges: Edges = "binary", learned: bool = False
    ) -> None:
        """vectors name -> (N, D), masks name -> (N,), a weight each; `learned`: the softmax of a parameter that starts at their logarithms (LATTICE)."""
        super().__init__(vectors, masks, k, edges)
        start = torch.tensor([float(weight) for weight in weights]).clamp(min=1e-6).log()
        self.logits = nn.Parameter(start) if learned else None
        self.register_buffer("start", start, persistent=False)

    def weights(self) -> Tensor:
        """(N, M) what each kind counts for each item; rows sum to 1, or are 0 where an item has no content."""
        share = (self.start if self.logits is None else self.logits).softmax(0) * self.has  # type: ignore[union-attr,operator]
        total: Tensor = share / share.sum(1, keepdim=True).clamp(min=1e-12)
        return total

    def each(self, x: Tensor) -> list[Tensor]:
        """(N, D) -> what each kind of content adds to S x (N, D), differentiable in x."""
        weights = self.weights()
        return [weights[:, place, None] * self.of_kind(place, x) for place in range(self.kinds)]

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> S x (N, D), differentiable in x."""
        return sum(self.each(x), torch.zeros_like(x))

    def transposed(self, x: Tensor) -> Tensor:
        """(N, D) -> S^T x (N, D), differentiable in x."""
        weights = self.weights()
        return torch.stack([times(S_T, S, weights[:, place, None] * x) for place, (S, S_T) in enumerate(self.products())]).sum(0)

    def neighbours_of(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Item codes (K,) -> the items each takes from, (K, M), -1 where it has fewer, and with what weight; over all kinds, each item once."""
        weights, found = self.weights(), []
        for item in items.tolist():
            row: dict[int, float] = {}
            for place, (S, _) in enumerate(self.products()):
                start, stop = S.crow_indices()[item : item + 2].tolist()
                for code, value in zip(S.col_indices()[start:stop].tolist(), S.values()[start:stop].tolist(), strict=True):
                    row[code] = row.get(code, 0.0) + float(weights[item, place]) * value
            found.append(row)
        ids, values = torch.full((len(found), max(map(len, found), default=0)), -1), torch.zeros(len(found), max(map(len, found), default=0))
        for place, row in enumerate(found):
            ids[place, : len(row)], values[place, : len(row)] = torch.tensor(list(row), dtype=torch.int64), torch.tensor(list(row.values()))
        return ids, values


def content_hash(content: Mapping[str, tuple[Tensor, Tensor]], k: int) -> int:
    """A positive 63-bit number that changes with any value, mask, order of kinds, or k."""
    digest = hashlib.blake2b(str(k).encode(), digest_size=8)
    for values, mask in content.values():
        digest.update(values.float().contiguous().numpy().data)
        digest.update(mask.contiguous().numpy().data)
    return (int.from_bytes(digest.digest(), "little") >> 1) or 1
