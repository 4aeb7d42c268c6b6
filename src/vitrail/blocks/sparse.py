"""Weights that stay sparse from the first step: a mask each, whose number of ones never changes, and whose places move to where they are wanted.

RigL (Evci et al., ICML 2020) as dynamic sparse learning has it (Wang et al., WSDM 2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

Start = Literal["uniform", "magnitude"]
Growth = Literal["gradient", "random"]


class Masks(nn.Module):
    """A mask of each of some parameters, in buffers that are saved. The parameters themselves are not kept here."""

    def __init__(self, parameters: Iterable[Tensor], density: float, start: Start = "uniform") -> None:
        """`uniform`: every entry stays by chance `density`; `magnitude`: the largest of all parameters together stay."""
        super().__init__()
        weights = [p.detach() for p in parameters]
        self.count = len(weights)
        if start == "magnitude" and weights:
            sizes = torch.cat([w.abs().flatten() for w in weights])
            kept = torch.zeros(len(sizes), dtype=torch.bool)
            kept[sizes.topk(round(density * len(sizes))).indices] = True
            made = [part.view_as(w) for part, w in zip(kept.split([w.numel() for w in weights]), weights, strict=True)]
        else:
            made = [torch.rand(w.shape) < density for w in weights]
        for place, mask in enumerate(made):
            self.register_buffer(f"mask_{place}", mask)

    def every(self) -> list[Tensor]:
        """The mask of each parameter, true where a weight is."""
        return [self.get_buffer(f"mask_{place}") for place in range(self.count)]

    @torch.no_grad()
    def clear(self, parameters: Iterable[Tensor]) -> None:
        """Set to 0 what is masked."""
        for p, mask in zip(parameters, self.every(), strict=True):
            p.mul_(mask)

    @torch.no_grad()
    def move(self, parameters: Iterable[Tensor], share: float, growth: Growth = "gradient", seed: int = 0) -> None:
        """In each parameter drop `share` of its weights, the smallest, and put as many, at 0, where its gradient `.grad` is largest or by lot.

        Weights as small as the largest that is dropped go too. A parameter without a gradient, or without a place that is free, stays as it is.
        """
        lot = torch.Generator().manual_seed(seed)
        for p, mask in zip(parameters, self.every(), strict=True):
            ones, gradient = int(mask.sum()), p.grad
            if not 0 < ones < mask.numel() or gradient is None or not share:
                continue
            limit = p.abs()[mask].kthvalue(min(math.ceil(share * ones), ones)).values
            mask &= p.abs() > limit
            p.mul_(mask)
            wish = gradient.abs() if growth == "gradient" else torch.rand(p.shape, generator=lot).to(p.device)
            places = wish.masked_fill(mask, -1.0).flatten().topk(ones - int(mask.sum())).indices
            mask.view(-1)[places] = True


def cosine(step: int, total: int, first: float, last: float) -> float:
    """From `first` at step 0 to `last` at step `total`, along half a wave."""
    return last + (first - last) * (1 + math.cos(math.pi * min(step / max(total, 1), 1.0))) / 2
