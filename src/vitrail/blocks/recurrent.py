"""Recurrent cells whose gate is told how much a step matters: DIEN (Zhou et al., AAAI 2019, arXiv:1809.03672). B batch, T time steps, E events, H width."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Cell = Literal["augru", "augru_released", "agru", "aigru", "gru"]


def padded(events: Tensor, mask: Tensor) -> Tensor:
    """events (E, H) in the order in which `mask` (B, T) has them -> (B, T, H), 0 elsewhere"""
    if torch.onnx.is_in_onnx_export():
        return events.new_zeros((*mask.shape, events.shape[1])).masked_scatter(mask[:, :, None], events)
    flat = events.new_zeros(mask.numel(), events.shape[1])
    return flat.index_copy(0, mask.flatten().nonzero().squeeze(1), events).view(*mask.shape, -1)


def summed(events: Tensor, mask: Tensor) -> Tensor:
    """events (E, H) in the order in which `mask` (B, T) has them -> (B, H) the sum of each row"""
    if torch.onnx.is_in_onnx_export():
        return padded(events, mask).sum(1)
    return events.new_zeros(len(mask), events.shape[1]).index_add(0, mask.nonzero()[:, 0], events)


class AttentionGRU(nn.Module):
    """A GRU over events x with a weight a for each; u, r, c are the update gate, the reset gate and the candidate of a plain GRU.

    augru (the paper): h' = (1 - a u) h + a u c. augru_released (the authors' code, whose gate is the one that keeps): h' = k h + (1 - k) c with
    k = (1 - a)(1 - u), so that a = 0 is a plain step there and no step in the paper. agru: h' = (1 - a) h + a c. aigru: a plain step on a x. gru: no a.
    The reset gate multiplies after the matrix: c = tanh(W x + r (U h)).
    """

    def __init__(self, width: int, cell: Cell = "augru") -> None:
        super().__init__()
        self.cell = cell
        self.of_input, self.of_state = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width, bias=False)

    def forward(self, events: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        """events (B, T, H) left-aligned, mask (B, T), weights (B, T) -> (B, H) the state after the last event of each row; 0 for an empty row. Events and mask
        may be (1, T, ...): one history, weighed by each row."""
        inputs = self.of_input(events * weights[..., None] if self.cell == "aigru" else events)
        state = events.new_zeros(weights.shape[0], events.shape[2])
        full = not torch.onnx.is_in_onnx_export() and bool(mask.all())
        for t in range(events.shape[1]):
            moved = self.step(inputs[:, t], state, weights[:, t, None])
            state = moved if full else torch.where(mask[:, t, None], moved, state)
        return state

    def step(self, inputs: Tensor, state: Tensor, weight: Tensor) -> Tensor:
        """inputs (B, 3 H) = W x + b, state (B, H), weight (B, 1) -> (B, H)"""
        H = state.shape[1]
        told = self.of_state(state)
        update, reset = torch.sigmoid(inputs[:, : 2 * H] + told[:, : 2 * H]).chunk(2, dim=1)
        candidate = torch.tanh(torch.addcmul(inputs[:, 2 * H :], reset, told[:, 2 * H :]))
        if self.cell == "agru":
            moved = weight
        else:
            moved = update
            if self.cell == "augru":
                moved = weight * moved
            elif self.cell == "augru_released":
                moved = 1 - (1 - weight) * (1 - moved)
        return torch.lerp(state, candidate, moved.expand_as(state))
