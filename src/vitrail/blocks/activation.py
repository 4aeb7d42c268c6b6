"""Activations with parameters: Dice. Shapes end in the channels C; every leading place is a sample."""

from __future__ import annotations

from math import gcd
from typing import Any, Literal

import torch
from torch import Tensor, nn

Activation = Literal["dice", "prelu", "relu", "sigmoid"]


SIDE = 64
"""Rows that are taken for one long one, where their number allows it."""
BLOCK = 1 << 17
"""Numbers a pass works on at a time on a processor: what a step of the formula writes is still in the cache when the next reads it."""


class _Gate(torch.autograd.Function):
    """Dice in two passes over blocks of rows, derivative by hand: autograd's chain would write and read a tensor of the size of x a dozen times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, mean: Tensor, spread: Tensor, by_batch: bool) -> Tensor:
        """x (S, C); alpha, mean, spread (1 over the standard deviation) (C,)"""
        out, p = torch.empty_like(x), torch.empty_like(x)
        for rows in _blocks(x):
            torch.sub(x[rows], mean, out=p[rows]).mul_(spread).sigmoid_()
            torch.mul(p[rows], 1 - alpha, out=out[rows]).add_(alpha).mul_(x[rows])
        ctx.save_for_backward(x, alpha, mean, spread, p)
        ctx.by_batch = by_batch
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # type: ignore[override]
        """With z = (x - mean) spread and h = grad x (1 - alpha) p (1 - p), the gradient of z:
        dx = grad (alpha + (1 - alpha) p) + spread (h - mean(h) - z mean(h z)), the means from the moments of the batch alone."""
        x, alpha, mean, spread, p = ctx.saved_tensors
        into, h = torch.empty_like(x), torch.empty_like(x)
        of_alpha, sum_h, sum_hx = (torch.zeros_like(alpha) for _ in range(3))
        for rows in _blocks(x):
            xb, pb, gb, hb, ib = x[rows], p[rows], grad[rows], h[rows], into[rows]
            torch.neg(pb, out=ib).add_(1).mul_(xb).mul_(gb)  # grad x (1 - p)
            of_alpha += ib.sum(0)
            torch.mul(ib, pb, out=hb).mul_(1 - alpha)
            if ctx.by_batch:
                sum_h += hb.sum(0)
                sum_hx += torch.mul(hb, xb, out=ib).sum(0)
            torch.mul(pb, 1 - alpha, out=ib).add_(alpha).mul_(gb)
        if not ctx.by_batch:
            return into.addcmul_(h, spread), of_alpha, None, None, None
        slope = (sum_hx - mean * sum_h) * spread / len(x)  # mean(h z)
        shift = sum_h / len(x) - slope * spread * mean
        for rows in _blocks(x):
            h[rows].sub_(shift).addcmul_(x[rows], slope * spread, value=-1.0)
            into[rows].addcmul_(h[rows], spread)
        return into, of_alpha, None, None, None


def _blocks(x: Tensor) -> list[slice]:
    size = max(1, BLOCK // x.shape[1]) if x.device.type == "cpu" else max(len(x), 1)
    return [slice(start, start + size) for start in range(0, len(x), size)]


class Dice(nn.Module):
    """p x + (1 - p) alpha x with p = sigmoid of x standardised a channel: by the batch in training, by moving averages else.

    DIN (Zhou et al., KDD 2018). alpha (C,) starts at 0 and is learned. Give it events only: padding would enter the moments.
    """

    def __init__(self, channels: int, eps: float = 1e-9, momentum: float = 0.01) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> (..., C)"""
        mean, variance = self.get_buffer("mean"), self.get_buffer("variance")
        if torch.onnx.is_in_onnx_export():  # the formula itself: passes over blocks would be unrolled for the size of the example
            return x * (self.alpha + (1 - self.alpha) * torch.sigmoid((x - mean) * torch.rsqrt(variance + self.eps)))
        flat = x.reshape(-1, x.shape[-1]).float().contiguous()
        by_batch = self.training and len(flat) > 1  # one sample has no variance
        spread = torch.rsqrt(variance + self.eps)
        if not by_batch and not torch.is_grad_enabled():
            return self._answered(flat, mean, spread).view(x.shape)
        if by_batch:
            with torch.no_grad():  # for the moments of the batch, and to move the averages: many times as fast as torch.var_mean along rows
                _, mean, spread = torch.native_batch_norm(flat, None, None, mean, variance, True, self.momentum, self.eps)  # type: ignore[no-untyped-call]
        out: Tensor = _Gate.apply(flat, self.alpha, mean, spread, by_batch)  # type: ignore[no-untyped-call]
        return out.view(x.shape)

    def _answered(self, x: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        """x (S, C) -> (S, C) where nothing is learned: the fewest passes, and nothing kept for a derivative."""
        times = gcd(len(x), SIDE)  # rows side by side: few long passes in place of many short ones
        wide, out = x.view(-1, times * x.shape[1]), torch.empty_like(x)
        shift, spread, alpha, rest = torch.stack([-mean * spread, spread, self.alpha, 1 - self.alpha]).repeat(1, times)
        into = out.view(wide.shape)
        for rows in _blocks(wide):
            torch.addcmul(shift, wide[rows], spread, out=into[rows]).sigmoid_()
            torch.addcmul(alpha, into[rows], rest, out=into[rows]).mul_(wide[rows])
        return out


def activation(name: Activation, channels: int) -> nn.Module:
    """The activation of that name over `channels`."""
    if name == "dice":
        return Dice(channels)
    if name == "prelu":
        return nn.PReLU(channels, init=0.25)
    return nn.ReLU() if name == "relu" else nn.Sigmoid()
