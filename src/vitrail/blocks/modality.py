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
