"""Nested widths: vectors of which every prefix is a vector of its own. MRL (Kusupati et al., NeurIPS 2022, arXiv:2205.13147) for the loss;
fMRLRec (Wang et al., 2024, arXiv:2409.16627) for layers whose first m outputs read the first m inputs alone. Letters: D width, m a prefix of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vitrail.errors import SettingError

Cut = Callable[[Tensor], Tensor]


def halvings(width: int, least: int) -> tuple[int, ...]:
    """`width`, its half, and so on down to `least`, the smallest first: 64, 8 -> (8, 16, 32, 64)."""
    found = [width]
    while found[0] % 2 == 0 and found[0] // 2 >= least:
        found.insert(0, found[0] // 2)
    return tuple(found)


def over_prefixes(value: Callable[[Cut], Tensor], widths: Sequence[int], weights: Sequence[float], full: int) -> Tensor:
    """The sum over `widths` of weight times `value`, which is handed what cuts vectors (..., D) to a prefix (..., m); no widths: `value` of the whole.

    Vectors are brought to length 1 after they are cut, where they are. Raises SettingError where the last width is not `full`, the width of the
    vectors: numbers behind it would never be trained.
    """
    if not widths:
        return value(lambda vectors: vectors)
    if widths[-1] != full or sorted(set(widths)) != list(widths):
        raise SettingError(f"nested must rise and end with the width of the vectors, which is {full}; it is {list(widths)}.")
    return torch.stack([weight * value(_cut_to(width)) for width, weight in zip(widths, weights, strict=True)]).sum()


def _cut_to(width: int) -> Cut:
    return lambda vectors: vectors[..., :width]


class NestedLinear(nn.Module):
    """A square linear map whose outputs up to each width read the inputs up to that width alone: sum of m_i (m_i - m_{i-1}) weights and D biases."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.parts = nn.ModuleList(nn.Linear(m, m - before) for before, m in zip((0, *self.widths), self.widths, strict=False))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D); a prefix (..., m) of one of the widths -> the same prefix of that."""
        return torch.cat([part(x[..., :m]) for m, part in zip(self.widths, self.parts, strict=True) if m <= x.shape[-1]], -1)


class NestedNorm(nn.Module):
    """A LayerNorm of its own for the numbers between each width and the next."""

    def __init__(self, widths: Sequence[int], eps: float = 1e-5) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.parts = nn.ModuleList(nn.LayerNorm(m - before, eps=eps) for before, m in zip((0, *self.widths), self.widths, strict=False))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) or a prefix of one of the widths -> the same shape."""
        ends = [m for m in self.widths if m <= x.shape[-1]]
        blocks = [(part, x[..., before:m]) for before, m, part in zip((0, *ends), ends, self.parts, strict=False)]
        return torch.cat([part(block) for part, block in blocks], -1)
