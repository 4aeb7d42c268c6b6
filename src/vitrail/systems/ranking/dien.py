"""DIEN. Zhou et al., AAAI 2019, arXiv:1809.03672. A GRU reads the history; its states, each told by an auxiliary loss to foresee the next event, go
through a second GRU whose update gate is told how near each state is to the target. Differs from the released code: its gate (`cell: augru_released`) and
its scoring MLP (`attention: mlp`) are settings, the paper's forms the defaults; padding enters neither the sum of the history nor the auxiliary loss, a
mean over real steps; its negatives are events drawn from the batch, so by popularity, as there. `auxiliary: 0` is how benchmarks run it. Numbers:
benchmarks/rank_pairs.py makes them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitrail.blocks.interact import Tower
from vitrail.blocks.interest import Scorer, TargetAttention
from vitrail.blocks.loss import bce
from vitrail.blocks.recurrent import AttentionGRU, Cell, padded
from vitrail.config import NonNegativeFloat, PositiveInt
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.history_ranker import HistoryRanker


@system("dien", stage="rank", family="ranking", paper="1809.03672", year=2019, status="works")
class DIEN(HistoryRanker):
    """How the interest in the target came about, event after event."""

    unrolled: ClassVar[bool] = True
    shares: ClassVar[bool] = True

    class Config(HistoryRanker.Config):
        """Settings of dien."""

        cell: Cell = "augru"
        """The second GRU: augru (the paper), augru_released (the authors' code), agru, aigru; gru does without attention."""
        attention: Scorer = "bilinear"
        """How a state is scored against the target: bilinear (the paper), mlp (the authors' code), dot."""
        attention_hidden: list[PositiveInt] = [80, 40]
        """Widths of the scoring MLP."""
        auxiliary: NonNegativeFloat = 1.0
        """Weight of the auxiliary loss."""
        auxiliary_hidden: list[PositiveInt] = [100, 50]
        """Widths of the net that tells the next event from another."""
        hidden: list[PositiveInt] = [200, 80]
        """Widths of the MLP on top."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        H = self.features.item_width
        self.extractor = nn.GRU(H, H, batch_first=True)
        self.attention = TargetAttention(H, config.attention, "softmax", hidden=config.attention_hidden, act=config.activation)
        self.evolution = AttentionGRU(H, config.cell)
        self.foresees = Tower(2 * H, config.auxiliary_hidden, "sigmoid", out=1) if config.auxiliary else None
        self.top(4 * H)

    def logit(self, batch: Impressions) -> Tensor:
        """[target ; sum of the history ; target * sum ; last state of the evolution ; other fields] -> MLP"""
        return self._read(batch)[0]

    def loss(self, batch: Impressions) -> Tensor:
        """Log loss, and the auxiliary loss."""
        logit, events, states = self._read(batch)
        loss = self.loss_of(logit, batch)
        return loss if self.foresees is None else loss + self.config.auxiliary * self.auxiliary(events, states, batch.mask)

    def _read(self, batch: Impressions) -> tuple[Tensor, Tensor, Tensor]:
        """(B,) logits, and events (B, T, H) with the states (B, T, H) after each"""
        target, found = self.items_and_events(batch)
        events = padded(found, batch.mask)
        states, _ = self.extractor(events)
        interest = self.evolution(states, batch.mask, self._weights(target, states, batch.mask))
        summed = events.sum(1).expand_as(target)
        return self.finish(batch, target, summed, target * summed, interest), events, states

    def _weights(self, target: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """(B, T) attention of targets (B, H) to states (B, T, H) that `mask` (B, T) has"""
        rows = mask.nonzero()[:, 0]
        if len(rows) and len(mask) != len(target):
            return self.attention.shared_weights(target, states[0])[0]
        weights = self.attention.weigh(target, states[mask], mask, rows, len(rows) == mask.numel())[:, 0] if len(rows) else states.new_zeros(0)
        return states.new_zeros(target.shape[0], mask.shape[1]).masked_scatter(mask, weights)

    def auxiliary(self, events: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """The state after an event tells the next event from one drawn from the batch: 2 ln 2 where it knows nothing. Arguments as `_read` has them."""
        assert self.foresees is not None
        real = mask[:, 1:]
        state, right = states[:, :-1][real], events[:, 1:][real]
        if not len(right):
            return events.new_zeros(())
        wrong = right[torch.randint(len(right), (len(right),), device=right.device)]
        told, untold = (self.foresees(torch.cat([state, x], dim=1)).squeeze(1) for x in (right, wrong))
        other = (wrong != right).any(1)  # an event drawn against itself teaches nothing
        return bce(told[other], untold[other][:, None]) if bool(other.any()) else events.new_zeros(())
