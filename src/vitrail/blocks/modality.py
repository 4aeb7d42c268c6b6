"""Content vectors of items inside a system: a table of each kind, frozen or trained, and a linear map to the width of the system."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Modalities(nn.Module):
    """Kind of content -> W x + b (..., D), and which items have it."""

    def __init__(self, vectors: Mapping[str, Tensor], masks: Mapping[str, Tensor], dim: int, *, trained: bool) -> None:
        """vectors name -> (N, width), masks name -> (N,). `trained`: the vectors themselves are parameters, as in the MMRec code; the artifact then
        holds them twice."""
        super().__init__()
        self.names = list(vectors)
        self.maps = nn.ModuleList(nn.Linear(values.shape[1], dim) for values in vectors.values())
        for place, name in enumerate(self.names):
            values = vectors[name].clone()
            if trained:
                self.register_parameter(f"values_{place}", nn.Parameter(values))
            else:
                self.register_buffer(f"values_{place}", values, persistent=False)
            self.register_buffer(f"mask_{place}", masks[name], persistent=False)

    def has(self, place: int, items: Tensor | None = None) -> Tensor:
        """Item codes (...,), or none for all (N,) -> true where an item has this kind."""
        mask = self.get_buffer(f"mask_{place}")
        return mask if items is None else mask[items]

    def forward(self, place: int, items: Tensor | None = None) -> Tensor:
        """Item codes (...,), or none for all (N,) -> (..., D); meaningless where an item lacks this kind."""
        values: Tensor = getattr(self, f"values_{place}")
        projected: Tensor = self.maps[place](values if items is None else F.embedding(items, values))
        return projected


def mean_where(values: Tensor, has: Tensor) -> Tensor:
    """The mean of values (B,) where `has` (B,) is true; 0 where it never is."""
    return torch.where(has, values, 0.0).sum() / has.sum().clamp(min=1)


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
        self.kinds, self.width = len(vectors), sum(values.shape[1] for values in vectors.values())
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
