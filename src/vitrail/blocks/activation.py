"""Activations with parameters: Dice. Shapes end in the channels C; every leading place is a sample."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["dice", "prelu", "relu", "sigmoid"]


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
        flat = x.reshape(-1, x.shape[-1])
        by_batch = self.training and len(flat) > 1  # one sample has no variance
        mean, variance = self.get_buffer("mean"), self.get_buffer("variance")
        p = torch.sigmoid(F.batch_norm(flat, mean, variance, None, None, by_batch, self.momentum, self.eps))
        return torch.lerp(self.alpha * flat, flat, p).view_as(x)


def activation(name: Activation, channels: int) -> nn.Module:
    """The activation of that name over `channels`."""
    return {"dice": lambda: Dice(channels), "prelu": lambda: nn.PReLU(channels, init=0.25), "relu": nn.ReLU, "sigmoid": nn.Sigmoid}[name]()
