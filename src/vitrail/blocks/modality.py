"""Content vectors of items inside a system: a table of each kind, frozen or trained, a map to the width of the system, and ways to fuse kinds.

Letters: N items, M kinds of content, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dct
from torch import Tensor, nn

from vitrail.blocks.embed import bag, few_rows, rows

INTEGERS = hasattr(torch, "_int_mm")
"""Whether bytes can be multiplied as they are."""


class Modalities(nn.Module):
    """Kind of content -> W x + b (..., D), or with a `hidden` layer W' LeakyReLU(W x + b), and which items have it."""

    def __init__(self, vectors: Mapping[str, Tensor], masks: Mapping[str, Tensor], dim: int, *, trained: bool, hidden: int = 0) -> None:
        """vectors name -> (N, width), masks name -> (N,). `trained`: the vectors themselves are parameters, as in the MMRec code; the artifact then
        holds them twice."""
        super().__init__()
        self.names = list(vectors)
        self.maps = nn.ModuleList(projector(values.shape[1], dim, hidden) for values in vectors.values())
        for place, name in enumerate(self.names):
            if trained:
                self.register_parameter(f"values_{place}", nn.Parameter(vectors[name].clone()))
            else:
                self.register_buffer(f"values_{place}", vectors[name], persistent=False)
            self.register_buffer(f"mask_{place}", masks[name], persistent=False)

    def has(self, place: int, items: Tensor | None = None) -> Tensor:
        """Item codes (...,), or none for all (N,) -> true where an item has this kind."""
        mask = self.get_buffer(f"mask_{place}")
        return mask if items is None else mask[items]

    def forward(self, place: int, items: Tensor | None = None) -> Tensor:
        """Item codes (...,), or none for all (N,) -> (..., D); meaningless where an item lacks this kind."""
        values: Tensor = getattr(self, f"values_{place}")
        if items is None or items.device.type != "cpu":
            projected: Tensor = self.maps[place](values if items is None else F.embedding(items, values))
            return projected
        # each item of a batch is mapped once, and what a trained table gets back is as long as these are many
        codes, where = items.unique(return_inverse=True)
        return rows(self.maps[place](few_rows(values, codes)), where)


def projector(width: int, dim: int, hidden: int = 0) -> nn.Module:
    """(..., width) -> (..., D): a linear map, or one to `hidden` numbers, LeakyReLU, and one without a bias."""
    if not hidden:
        return nn.Linear(width, dim)
    return nn.Sequential(nn.Linear(width, hidden), nn.LeakyReLU(), nn.Linear(hidden, dim, bias=False))


def side_by_side(vectors: Mapping[str, Tensor], masks: Mapping[str, Tensor], standardise: Tensor | None = None) -> Tensor:
    """All kinds of an item in one row, (N, sum of widths), as they are or, where `standardise` (N,) says over which items, each kind less its mean and at
    a mean squared length of 1, so that no kind is louder than another. A kind that an item lacks is 0."""
    columns = []
    for name, values in vectors.items():
        if standardise is not None and bool((over := standardise & masks[name]).any()):
            values = (values - values[over].mean(0)) * masks[name][:, None]
            values = values / values[over].square().sum(1).mean().sqrt().clamp(min=1e-12)
        columns.append(values.float() * masks[name][:, None])
    return torch.cat(columns, 1)


def cosine_transform(values: Tensor) -> Tensor:
    """Orthonormal DCT-II along the last axis (N, width) -> (N, width): energy is kept, what changes slowly comes first. Not differentiable."""
    return torch.from_numpy(dct(values.numpy().astype(np.float64), norm="ortho", axis=-1).astype(np.float32))


def softmax_where(logits: Tensor, has: Tensor, dim: int = -1) -> Tensor:
    """Softmax along `dim` among the places where `has`, of the same shape, is true; 0 at the others, also where it is true nowhere."""
    return logits.masked_fill(~has, -1e9).softmax(dim) * has


def slerp(p: Tensor, q: Tensor, share: Tensor) -> Tensor:
    """The point of the great circle from q (share 0) to p (share 1): unit rows p, q (N, D), share (N,) -> unit rows (N, D), differentiable."""
    # nearer than that to 1 or -1 the angle has no derivative, and the arc is as good as straight
    angle = torch.acos((p * q).sum(-1).clamp(-1 + 1e-6, 1 - 1e-6))
    a, b = torch.sin(share * angle), torch.sin((1 - share) * angle)
    return (a[..., None] * p + b[..., None] * q) / torch.sin(angle)[..., None]


def bezier(points: Sequence[Tensor], has: Sequence[Tensor], share: Tensor) -> Tensor:
    """The point at `share` (N,) of the Bezier curve on the sphere with unit control points (N, D), by de Casteljau's rule with arcs for lines; `slerp` with
    two. Points that are not there, `has` (N,) false, are skipped; 0 where none is. -> (N, D)"""
    row, there = list(points), list(has)
    while len(row) > 1:
        pairs = list(zip(row, row[1:], there, there[1:], strict=False))
        row = [torch.where((a & b)[:, None], slerp(p, q, share), torch.where(a[:, None], p, q)) for p, q, a, b in pairs]
        there = [a | b for _, _, a, b in pairs]
    return row[0] * there[0][:, None]


def mean_where(values: Tensor, has: Tensor) -> Tensor:
    """The mean of values (B,) where `has` (B,) is true; 0 where it never is."""
    return torch.where(has, values, 0.0).sum() / has.sum().clamp(min=1)


def mean_of_items(values: Tensor, mask: Tensor, indptr: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """values (N, width), mask (N,) true where an item has content; the items of B people, indptr (B + 1,), items (E,) -> the mean over
    those that have content (B, width), and which people have such an item (B,)."""
    have = mask[items].to(values.dtype)
    total = bag(values, items, indptr, have)
    owner = torch.repeat_interleave(torch.arange(len(total), device=items.device), indptr.diff())
    count = have.new_zeros(len(total)).index_add(0, owner, have)
    return total / count.clamp(min=1)[:, None], count > 0


def to_int8(values: Tensor) -> Tensor:
    """(N, D) numbers -> (N, D) int8, each row scaled so that its largest is 127: cosines stay, lengths do not."""
    largest = values.abs().amax(1, keepdim=True).clamp(min=1e-12)
    return (values / largest * 127).round().to(torch.int8)


class UnitStore(nn.Module):
    """Frozen content vectors of items, kinds side by side, as they came or as int8: rows come out with length 1, whatever they are stored as.

    An item that lacks a kind has zeros there; one that lacks all is all zeros.
    """

    def __init__(self, vectors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        """vectors name -> (N, width) float32 or int8, masks name -> (N,)"""
        super().__init__()
        self.names, self.kinds, self.width = tuple(vectors), len(vectors), sum(values.shape[1] for values in vectors.values())
        lengths = {name: torch.cat([block.float().norm(dim=1) for block in values.split(1 << 16)]) for name, values in vectors.items()}
        there = {name: masks[name] & (length > 0) for name, length in lengths.items()}
        kinds = torch.stack(list(there.values())).sum(0).clamp(min=1)
        for place, (name, values) in enumerate(vectors.items()):
            self.register_buffer(f"values_{place}", values, persistent=False)
            self.register_buffer(f"scale_{place}", torch.where(there[name], 1 / (lengths[name] * kinds.sqrt()), 0.0), persistent=False)

    def has(self, items: Tensor) -> Tensor:
        """Item codes (...) -> whether there is any content"""
        return torch.stack([self.get_buffer(f"scale_{place}")[items] > 0 for place in range(self.kinds)]).any(0)

    def forward(self, items: Tensor) -> Tensor:
        """Item codes (...,) -> (..., width) float32"""
        parts = [self.get_buffer(f"values_{place}")[items] * self.get_buffer(f"scale_{place}")[items][..., None] for place in range(self.kinds)]
        return parts[0] if self.kinds == 1 else torch.cat(parts, dim=-1)

    def products(self, a: Tensor, b: Tensor) -> Callable[[slice], Tensor]:
        """Item codes (A,) and (n,) -> what gives the inner products of some of the former with the latter (..., n). Bytes are multiplied as bytes, which is
        exact and several times as fast as to make numbers of them first."""
        kinds = []
        for place in range(self.kinds):
            values, scale = self.get_buffer(f"values_{place}"), self.get_buffer(f"scale_{place}")
            x, y = values.index_select(0, a), values.index_select(0, b).T
            whole = torch._int_mm(x, y) if INTEGERS and x.dtype == torch.int8 and x.device.type == "cpu" else x.float() @ y.float()
            kinds.append((whole, scale[a][:, None], scale[b]))

        def product(rows: slice) -> Tensor:
            total: Tensor | None = None
            for whole, of_x, of_y in kinds:
                found = (whole[rows] * of_x[rows]).mul_(of_y)
                total = found if total is None else total.add_(found)
            assert total is not None
            return total

        return product


def nearness(vectors: Tensor, has: Tensor, items: Tensor, history: Tensor, mask: Tensor) -> Tensor:
    """vectors (N, width), has (N,) true where an item has one; items (B,), history (B, T), mask (B, T) -> (B, 3): the largest and the mean cosine of an item
    to the events before it, and that to the newest; NaN where the item or all events have none."""
    known = mask & has[history] & has[items][:, None]
    target = F.normalize(vectors[items].float(), dim=-1)
    found = (F.normalize(vectors[history].float(), dim=-1) @ target[:, :, None]).squeeze(-1)
    n = known.sum(1)
    newest = torch.where(known, torch.arange(known.shape[1], device=known.device), -1).amax(1).clamp(min=0)
    three = [found.masked_fill(~known, -torch.inf).amax(1), (found * known).sum(1) / n.clamp(min=1), found.gather(1, newest[:, None]).squeeze(1)]
    return torch.where((n > 0)[:, None], torch.stack(three, dim=1), torch.nan)
