"""The linear recurrent unit (Orvieto et al., ICML 2023, arXiv:2303.06349), with nested projections where it has several widths (fMRLRec). Sequences
are left-aligned, so padding, which stands behind, never reaches an event. Letters: B batch, T time steps, D width."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitrail.blocks.nested import NestedLinear


def scan(x: Tensor, log_decay: Tensor) -> Tensor:
    """h_t = exp(log_decay) h_(t-1) + x_t by doubling: x (B, T, D) complex, log_decay (D,) complex -> (B, T, D), in log2 T passes over all steps."""
    h, reach = x, 1
    while reach < x.shape[1]:
        h = torch.cat([h[:, :reach], h[:, reach:] + (reach * log_decay).exp() * h[:, :-reach]], 1)
        reach *= 2
    return h


class LRU(nn.Module):
    """A complex diagonal recurrence between an input and an output projection, whose decays start on a ring."""

    def __init__(self, widths: Sequence[int], r_min: float, r_max: float) -> None:
        """`widths`, rising, the last D: outputs up to each read inputs up to it alone. |decay| starts in [r_min, r_max]."""
        super().__init__()
        dim = widths[-1]
        radius, angle = torch.rand(dim), torch.rand(dim)
        squares = radius * (r_max**2 - r_min**2) + r_min**2
        self.nu = nn.Parameter((-0.5 * squares.clamp(1e-12, 1 - 1e-6).log()).log())
        self.theta = nn.Parameter((2 * math.pi * angle.clamp(min=1e-6)).log())
        self.gamma = nn.Parameter((1 - squares).clamp(min=1e-12).sqrt().log())
        self.into = nn.ModuleList([NestedLinear(widths), NestedLinear(widths)])  # real and imaginary part
        self.out = nn.ModuleList([NestedLinear(widths), NestedLinear(widths)])

    def log_decay(self) -> Tensor:
        """(D,) complex logarithms of the decays; their real part is below 0 whatever is learned, so |decay| < 1."""
        return torch.complex(-self.nu.exp(), self.theta.exp())

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D), or a prefix of one of the widths -> the same shape; step t reads steps up to t."""
        m = x.shape[-1]
        with torch.autocast(x.device.type, enabled=False):  # there are no complex numbers of half precision
            real, imaginary = (part(x.float()) for part in self.into)
            h = scan(self.gamma[:m].exp() * torch.complex(real, imaginary), self.log_decay()[:m])
            y: Tensor = self.out[0](h.real.contiguous()) - self.out[1](h.imag.contiguous())
        return y
