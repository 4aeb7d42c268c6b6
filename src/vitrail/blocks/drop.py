"""Dropout (Srivastava et al., JMLR 2014) whose random numbers cost a processor little: 16 bits a number, where PyTorch draws a double each and
takes eight times as long."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def kept(x: Tensor, rate: float) -> Tensor:
    """What dropout multiplies x (...) by: 0 with chance `rate`, rounded to 16 bits, else 1 / (1 - rate); drawn from PyTorch's generator."""
    if x.device.type != "cpu":
        return torch.empty_like(x).bernoulli_(1 - rate).div_(1 - rate)
    return stays(x, rate, new_seed()).to(x.dtype).mul_(1 / (1 - rate))


def new_seed() -> int:
    """A seed out of PyTorch's generator."""
    return int(torch.empty((), dtype=torch.int64).random_())


def stays(x: Tensor, rate: float, seed: int) -> Tensor:
    """1 where a number of x (...) stays and 0, with chance `rate`, where it is dropped: the same for the same seed, so that none of it need be kept."""
    if x.device.type != "cpu":
        return (torch.rand(x.shape, device=x.device, generator=torch.Generator(x.device).manual_seed(seed)) >= rate).to(torch.uint8)
    bits = np.random.SFC64(seed).random_raw(-(-x.numel() // 4)).view(np.uint16)[: x.numel()]
    return torch.from_numpy((bits >= round(rate * 2**16)).view(np.uint8)).view(x.shape)  # PyTorch turns bytes into floats far faster than booleans


def dropout(x: Tensor, rate: float) -> Tensor:
    """x (...) -> x with numbers set to 0 with chance `rate`, the others over 1 - rate."""
    return x * kept(x, rate) if rate else x


class Dropout(nn.Module):
    """x (...) -> x with numbers set to 0 with chance `rate` in training, the others over 1 - rate; x itself elsewhere."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.rate) if self.training else x
