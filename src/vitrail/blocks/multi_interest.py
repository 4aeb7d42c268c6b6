"""Several interests of one history. MIND (1904.08030), ComiRec (2005.09347), HCN (2210.10547), DiffuMIN (RecSys 2025).

B histories, T time steps, K interests, H width. Padding is told by a mask and gets no weight.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.interest import FAR

Routing = Literal["capsules", "attention", "slots"]


def squash(x: Tensor) -> Tensor:
    """x (..., H) -> the same direction with the length |x|^2 / (1 + |x|^2)"""
    square = x.square().sum(-1, keepdim=True)
    return square / (1 + square) * x / torch.sqrt(square + 1e-9)


def compete(centres: Tensor, events: Tensor, mask: Tensor, *, over: Literal["centres", "time"] = "centres") -> Tensor:
    """centres (B, K, H), events (B, T, H), mask (B, T) -> (B, K, H) the mean of the events of each centre.

    An event is shared out between centres by a softmax of its inner products with them over sqrt(H): they compete for it, so that no two come to lie at one
    place. `over: time` is attention, a softmax over events, in which they may. 0 where there is no event.
    """
    scores = torch.einsum("bkh,bth->bkt", centres, events) / events.shape[-1] ** 0.5
    if over == "centres":
        share = torch.softmax(scores, dim=1) * mask[:, None]
        share = share / share.sum(2, keepdim=True).clamp(min=1e-9)
    else:
        share = torch.softmax(scores.masked_fill(~mask[:, None], FAR), dim=2) * mask[:, None]
    return share @ events


class MultiInterestExtractor(nn.Module):
    """K interests of a history.

    `capsules`: ComiRec-DR's dynamic routing, a matrix a capsule (there also one a position), routing logits 0 at first, gradient through the last round alone.
    `attention`: ComiRec-SA, a softmax over events of tanh(x W1) W2. `slots`: HCN's centres, which compete for events and move, `rounds` times.
    """

    def __init__(self, routing: Routing, width: int, interests: int, rounds: int = 3) -> None:
        super().__init__()
        self.routing, self.interests, self.rounds = routing, interests, rounds
        if routing == "capsules":
            self.maps = nn.Linear(width, interests * width, bias=False)
        elif routing == "attention":
            self.widen, self.score = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, interests, bias=False)
        else:
            self.start = nn.Parameter(torch.randn(interests, width) * width**-0.5)
            self.move = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
            self.norm = nn.LayerNorm(width)

    def forward(self, events: Tensor, mask: Tensor) -> Tensor:
        """events (B, T, H), mask (B, T) -> (B, K, H); 0 for an empty history"""
        if self.routing == "capsules":
            return self._capsules(events, mask)
        if self.routing == "attention":
            scores = self.score(torch.tanh(self.widen(events))).masked_fill(~mask[..., None], FAR)
            return torch.einsum("btk,bth->bkh", torch.softmax(scores, dim=1) * mask[..., None], events)
        centres = self.start.expand(events.shape[0], -1, -1)
        for _ in range(self.rounds):
            centres = self.norm(centres + self.move(compete(centres, events, mask)))
        return centres * mask.any(1)[:, None, None]

    def _capsules(self, events: Tensor, mask: Tensor) -> Tensor:
        votes = self.maps(events).view(*events.shape[:2], self.interests, -1)  # (B, T, K, H)
        still, logits = votes.detach(), votes.new_zeros(votes.shape[:3])
        found = votes.new_zeros(0)
        for turn in range(self.rounds):
            share = torch.softmax(logits, dim=2) * mask[..., None]
            last = turn + 1 == self.rounds
            found = squash(torch.einsum("btk,btkh->bkh", share, votes if last else still))
            if not last:
                logits = logits + torch.einsum("btkh,bkh->btk", still, found)
        return found


def orthogonal(x: Tensor) -> Tensor:
    """x (B, H, C) with C <= H -> (B, H, C) orthonormal columns that span the same: the Q of the QR decomposition whose R has a positive diagonal, which makes
    it one function. By Gram and Schmidt, twice over, so that rounding leaves no angle: a few products, where a decomposition a matrix takes far longer."""
    done: list[Tensor] = []
    for column in x.unbind(2):
        for q in done * 2:
            column = column - (column * q).sum(1, keepdim=True) * q
        done.append(F.normalize(column, dim=1))
    return torch.stack(done, 2)


def redundancy(interests: Tensor) -> Tensor:
    """interests (B, K, H) -> the mean over pairs of squared cosines; 0 where there is one interest"""
    unit = F.normalize(interests, dim=-1)
    K = unit.shape[1]
    square = (unit @ unit.transpose(1, 2)).square()
    return (square.sum((1, 2)) - torch.diagonal(square, dim1=1, dim2=2).sum(1)).mean() / max(K * (K - 1), 1)
