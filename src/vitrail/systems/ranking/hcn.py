"""HCN. Alibaba, 2022, arXiv:2210.10547: a RECONSTRUCTION. Only the abstract could be read: several interests of a person, whose centres are updated in
rounds so that they differ, from the long and from the short history apart, brought together by a network of both; for coarse ranking by inner products.
How centres compete (slot attention), how the two attend to each other and the gate are ours. No target is read before the inner product, so that both
sides can be kept; the fields of the person and of the impression count only by what they add to the interests and to the logit. No published number is
known. Numbers: none yet."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.interact import linear
from vitrail.blocks.interest import FAR
from vitrail.blocks.multi_interest import MultiInterestExtractor, Routing, redundancy
from vitrail.config import NonNegativeFloat, PositiveInt
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.history_ranker import LongRanker, Look
from vitrail.systems.ranker import RankerSettings


@system("hcn", stage="rank", family="ranking", paper="2210.10547", year=2022, status="reconstruction")
class HCN(LongRanker):
    """Coarse ranking by interests of the long and of the short history (a reconstruction)."""

    class Config(RankerSettings):
        """Settings of hcn."""

        length: PositiveInt = 20
        """Newest events, the short history; the long one ends before them."""
        long: PositiveInt = 200
        """Newest events of both together."""
        interests: PositiveInt = 4
        """Interests K of each history."""
        rounds: PositiveInt = 3
        """Rounds in which centres move."""
        routing: Routing = "slots"
        """How interests are made: slots, centres that compete for events; attention (ComiRec-SA); capsules."""
        read: Literal["max", "softmax"] = "max"
        """Which interest counts: the nearest, or all by the softmax of their inner products."""
        apart: NonNegativeFloat = 0.0
        """Weight of the mean squared cosine between interests."""
        batch: PositiveInt = 256
        """Impressions a step."""

        @property
        def searched(self) -> int:
            """As of other systems with long histories."""
            return self.long

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        H = self.features.item_width
        self.of_long, self.of_short = (MultiInterestExtractor(config.routing, H, config.interests, config.rounds) for _ in range(2))
        self.gate = linear(2 * H, 1)
        others = self.features.dim * self.features.other_fields
        self.person, self.rest = nn.Linear(others, H, bias=False), linear(others, 1)
        self.level = nn.Parameter(torch.zeros(sizes.items, 1))

    def interests(self, look: Look, length: int) -> tuple[Tensor, Tensor]:
        """(W, 2 K, H) interests of each window and the mask of those that are there (W, 2 K): long ones that attended to the short, and the other way round."""
        places, there = look.windows.places()
        events = look.vectors(look.events[places])
        short = there & (places >= look.windows.stops[:, None] - length)
        K = self.config.interests
        long, brief = self.of_long(events, there & ~short), self.of_short(events, short)
        has_long, has_brief = (mask.any(1)[:, None].expand(-1, K) for mask in (there & ~short, short))
        long_told, brief_told = long + self.told(long, brief, has_brief), brief + self.told(brief, long, has_long)
        mean = (long_told * has_long[..., None]).mean(1, keepdim=True).expand_as(brief)
        share = torch.sigmoid(self.gate(torch.cat([brief_told, mean], dim=2)))
        mixed = share * brief_told + (1 - share) * self.told(brief_told, long_told, has_long)
        return torch.cat([long_told, mixed], dim=1), torch.cat([has_long, has_brief], dim=1)

    @staticmethod
    def told(query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """query (W, K, H), keys (W, K, H), mask (W, K) of the keys -> (W, K, H) attention; 0 where no key is there"""
        scores = (query @ keys.transpose(1, 2) / query.shape[2] ** 0.5).masked_fill(~mask[:, None], FAR)
        return (torch.softmax(scores, dim=2) * mask[:, None]) @ keys

    def _read(self, batch: Impressions) -> tuple[Tensor, Tensor]:
        look = self.look(batch)
        interests, there = self.interests(look, self.config.length)
        others = self.features.others(batch.users, batch.fields).flatten(1)
        near = torch.einsum("bkh,bh->bk", interests[look.windows.of] + self.person(others)[:, None], look.target)
        near = near.masked_fill(~there[look.windows.of], FAR)
        scale = near if self.config.read == "max" else torch.softmax(near, dim=1) * near
        score = scale.amax(1) if self.config.read == "max" else scale.sum(1)
        score = torch.where(there.any(1)[look.windows.of], score, 0.0)
        return score + self.rest(others).squeeze(1) + F.embedding(batch.items, self.level).squeeze(1), interests

    def logit(self, batch: Impressions) -> Tensor:
        """The inner product of the item with the nearest interest, plus what the other fields and the item add"""
        return self._read(batch)[0]

    def loss(self, batch: Impressions) -> Tensor:
        """Log loss, and how much interests are alike."""
        logit, interests = self._read(batch)
        loss = self.loss_of(logit, batch)
        return loss + self.config.apart * redundancy(interests) if self.config.apart else loss
