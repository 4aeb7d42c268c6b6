"""Content vectors of items inside a system: a table of each kind, frozen or trained, and a linear map to the width of the system."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.embed import bag


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


def mean_of_items(values: Tensor, mask: Tensor, indptr: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """values (N, width), mask (N,) true where an item has content; the items of B people, indptr (B + 1,), items (E,) -> the mean over
    those that have content (B, width), and which people have such an item (B,)."""
    have = mask[items].to(values.dtype)
    total = bag(values, items, indptr, have)
    owner = torch.repeat_interleave(torch.arange(len(total), device=items.device), indptr.diff())
    count = have.new_zeros(len(total)).index_add(0, owner, have)
    return total / count.clamp(min=1)[:, None], count > 0
