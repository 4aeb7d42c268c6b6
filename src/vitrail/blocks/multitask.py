"""Bottoms that several objectives share: one network, a mixture of experts with a gate an objective, and progressive layers of own and shared experts.

B batch, K objectives, n experts, W width of the input, D of what experts give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.activation import Activation
from vitrail.blocks.interact import Tower

Bottom = Literal["shared_bottom", "mmoe", "ple"]


def mixed(weights: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """weights (B, n), which are shares, and n outputs (B, D) -> (B, D)"""
    return torch.einsum("bn,bnd->bd", weights, torch.stack(list(experts), dim=1))


def entropy(weights: Tensor) -> Tensor:
    """The mean over the batch of the entropy of gates (B, n), n > 1, as a share of ln n: near 0, one expert does all the work."""
    return -(weights * weights.clamp(min=1e-12).log()).sum(1).mean() / math.log(weights.shape[1])


class SharedBottom(nn.Module):
    """One network for all objectives (Caruana, 1997)."""

    def __init__(self, width: int, objectives: int, hidden: Sequence[int], act: Activation = "relu", *, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.objectives = objectives
        self.net = Tower(width, hidden, act, dropout=dropout, norm=norm)
        self.width = self.net.width

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (B, W) -> K times (B, D)"""
        return [self.net(x)] * self.objectives


class MMoE(nn.Module):
    """n experts, and a gate an objective: h_k = sum of softmax(G_k x)_i f_i(x). Ma et al., KDD 2018. Gates are plain linear maps without bias."""

    def __init__(
        self, width: int, objectives: int, hidden: Sequence[int], act: Activation = "relu", *, experts: int, dropout: float = 0.0, norm: bool = False
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Tower(width, hidden, act, dropout=dropout, norm=norm) for _ in range(experts))
        self.gates = nn.ModuleList(nn.Linear(width, experts, bias=False) for _ in range(objectives))
        self.width = hidden[-1] if hidden else width

    def shares(self, x: Tensor) -> list[Tensor]:
        """x (B, W) -> for each objective (B, n), adding up to 1"""
        return [torch.softmax(gate(x), dim=1) for gate in self.gates]

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (B, W) -> K times (B, D)"""
        given = [expert(x) for expert in self.experts]
        return [mixed(weights, given) for weights in self.shares(x)]


class CGC(nn.Module):
    """A level of PLE (Tang et al., RecSys 2020): experts of each objective and shared ones. The gate of an objective mixes its own and the shared ones; that
    of the shared way, which the last level lacks, mixes all."""

    def __init__(
        self, width: int, objectives: int, hidden: Sequence[int], act: Activation = "relu", *, own: int, shared: int, last: bool, dropout: float = 0.0,
        norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()

        def experts(n: int) -> nn.ModuleList:
            return nn.ModuleList(Tower(width, hidden, act, dropout=dropout, norm=norm) for _ in range(n))

        self.own, self.shared = nn.ModuleList(experts(own) for _ in range(objectives)), experts(shared)
        self.gates = nn.ModuleList(nn.Linear(width, own + shared, bias=False) for _ in range(objectives))
        self.gate = None if last or not shared else nn.Linear(width, objectives * own + shared, bias=False)
        self.width = hidden[-1] if hidden else width

    def forward(self, ways: Sequence[Tensor], common: Tensor) -> tuple[list[Tensor], Tensor]:
        """What each objective reads, K times (B, W), and what the shared experts do (B, W) -> the same of the next level; the shared way as it came where there
        is no gate for it"""
        own = [[expert(way) for expert in mine] for way, mine in zip(ways, self.own, strict=True)]  # type: ignore[attr-defined]
        shared = [expert(common) for expert in self.shared]
        found = [mixed(torch.softmax(gate(way), dim=1), [*mine, *shared]) for way, gate, mine in zip(ways, self.gates, own, strict=True)]
        if self.gate is None:
            return found, common
        return found, mixed(torch.softmax(self.gate(common), dim=1), [*(one for mine in own for one in mine), *shared])


class PLE(nn.Module):
    """Levels of CGC on top of each other."""

    def __init__(
        self, width: int, objectives: int, hidden: Sequence[int], act: Activation = "relu", *, levels: int, own: int, shared: int, dropout: float = 0.0,
        norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        end = hidden[-1] if hidden else width
        self.levels = nn.ModuleList(
            CGC(end if level else width, objectives, hidden, act, own=own, shared=shared, last=level == levels - 1, dropout=dropout, norm=norm)
            for level in range(levels)
        )
        self.objectives, self.width = objectives, end

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (B, W) -> K times (B, D)"""
        ways, common = [x] * self.objectives, x
        for level in self.levels:
            ways, common = level(ways, common)
        return ways


def masked_bce(log_p: Tensor, log_q: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """log p and log (1 - p) (B,), labels (B,) with NaN where none is known, weights (B,) -> the mean log loss in nats over the rows that have a label."""
    known = ~labels.isnan()
    y = torch.where(known, labels, 0.0)
    losses = -(y * log_p + (1 - y) * log_q) * known
    return (losses if weights is None else losses * weights).sum() / known.sum().clamp(min=1)


def chain(first: Tensor, then: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B,) of a first success and of a second that can only follow it -> log p and log (1 - p) of both together, without a product of small numbers.

    ESMM (Ma et al., SIGIR 2018): p = sigmoid(first) sigmoid(then).
    """
    log_p = F.logsigmoid(first) + F.logsigmoid(then)
    # 1 - p = sigmoid(-first) + sigmoid(first) sigmoid(-then)
    return log_p, torch.logsumexp(torch.stack([F.logsigmoid(-first), F.logsigmoid(first) + F.logsigmoid(-then)]), dim=0)
