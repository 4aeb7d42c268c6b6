"""MUSE. Alimama, 2025, arXiv:2512.07216. A long history is searched by the cosines of frozen content vectors; attention over what was found is told the
cosines too, and their histogram (SimTier) is a feature, for the found and for the newest events. Vectors are kept as int8. Differs from the released code:
padding is never found and takes no attention, items without a vector are never found and have no place in a histogram; the newest events have multi-head
attention with values of their own; Dice is that of DIN; softmax weights have no 1e-7 added. Numbers: benchmarks/long_history.py makes them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.interest import shares
from vitrail.blocks.recurrent import summed
from vitrail.blocks.search import LITTLE, NEVER, Histogram, best, nearest
from vitrail.config import PositiveInt
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.history_ranker import LongRanker, Look, StoredContent


class ToldAttention(nn.Module):
    """Attention whose scores q.k are told cosines c: b1 q.k + b2 c / a + b3 q.k c / a; q, k and values are SiLU of layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_query, self.of_key, self.of_value = (nn.Sequential(nn.Linear(width, width), nn.SiLU()) for _ in range(3))
        self.a, self.b = nn.Parameter(torch.tensor(0.1)), nn.Parameter(torch.ones(3))

    def told(self, dot: Tensor, cosines: Tensor) -> Tensor:
        """dot (B, K), cosines (B, K) -> (B, K)"""
        near = cosines / self.a
        return self.b[0] * dot + self.b[1] * near + self.b[2] * dot * near

    def forward(self, query: Tensor, events: Tensor, mask: Tensor, cosines: Tensor, places: Tensor | None = None) -> Tensor:
        """query (B, H), events (B, K, H), or (T, H) and which of them each row has, places (B, K); mask (B, K), cosines (B, K) -> (B, H)"""
        keys, values = self.of_key(events), self.of_value(events)
        if places is not None:
            keys, values = F.embedding(places, keys), F.embedding(places, values)
        dot = torch.einsum("bh,bkh->bk", self.of_query(query), keys)
        return torch.einsum("bk,bkh->bh", shares(self.told(dot, cosines), mask), values)


@system("muse", stage="rank", family="ranking", paper="2512.07216", year=2025, status="works")
class MUSE(LongRanker):
    """Search a long history by what its things look like and are said to be, then attend."""

    content_fields: ClassVar[bool] = False

    class Config(StoredContent, LongRanker.Config):
        """Settings of muse."""

        hidden: list[PositiveInt] = [256, 128, 64]
        """Widths of the MLP on top."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        self.frozen = self.content(given)
        self.newest, self.long = self.attend(), ToldAttention(self.features.item_width)
        self.near, self.far = Histogram(), Histogram()
        self.top(5 * self.features.item_width + self.near.width + self.far.width)

    def logit(self, batch: Impressions) -> Tensor:
        """[newest events ; found events ; means of both ; target ; histograms of both ; other fields] -> MLP"""
        look = self.look(batch)
        has, row = self.frozen.has(look.items), batch.mask.nonzero()[:, 0]
        places, mask, near, spread = self._found(batch, look, has, row) if look.window is None else self._answered(look, has, look.window)
        if look.window is None:
            events = self.happened(look.vectors(look.events[places]), batch, places)
            found = self.long(look.target, events, mask, near)
        else:
            once = torch.arange(len(look.events), device=places.device)
            every = self.happened(look.vectors(look.events), batch, once)
            events, found = F.embedding(places, every), self.long(look.target, every, mask, near, places)
        mean = (events * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        total = summed(look.vectors(look.newest), batch.mask)
        mean_newest = (total / batch.mask.sum(1, keepdim=True).clamp(min=1)).expand_as(mean)
        known = torch.zeros_like(batch.mask).masked_scatter(batch.mask, has[look.newest]) & has[look.at][:, None]
        tiers = self.near(spread, known), self.far(near, mask & has[look.at][:, None])
        return self.finish(batch, self.recent(self.newest, batch, look), found, mean, mean_newest, look.target, *tiers)

    def _found(self, batch: Impressions, look: Look, has: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Places of the events found (B, K), which are there (B, K), their cosines (B, K), and those of the newest events (B, T)"""
        units = self.frozen(look.items)
        cosines = units[look.at] @ units.T  # (B, n)
        lacking = torch.onnx.is_in_onnx_export() or not bool(has.all())
        places, mask = best(cosines.masked_fill(~has, NEVER) if lacking else cosines, look.events, look.windows, self.config.chosen)
        spread = cosines.new_zeros(batch.mask.shape).masked_scatter(batch.mask, cosines[row, look.newest])
        return places, mask, cosines.gather(1, look.events[places]), spread.expand(look.at.shape[0], -1)

    def _answered(self, look: Look, has: Tensor, window: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same for the candidates of one person, whose cosines to all events are never held at once."""
        asked, T = look.items[look.at], window.stop - window.start
        cosines, lacking = self.frozen.products(asked, look.items[window]), None if bool(has[window].all()) else ~has[window]
        told = cosines if lacking is None else lambda rows: cosines(rows).masked_fill_(lacking, NEVER)
        found, places = nearest(told, len(asked), T, self.config.chosen, held=LITTLE)
        mask, newest = found > NEVER, look.items[look.newest]
        spread = self.frozen.products(asked, newest)(slice(None)) if len(newest) else found.new_zeros(len(asked), 1)
        return places.masked_fill(~mask, 0), mask, found.masked_fill(~mask, 0.0), spread
