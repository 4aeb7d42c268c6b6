"""MIM. Taobao, 2025, arXiv:2502.00321: a RECONSTRUCTION of its third stage, from the abstract and summaries. Frozen content vectors enter a click model by
their cosines with the target: attention guided by them alone, their histogram, and DIN over id and content together. The second stage, contrastive tuning
on what people did, is here a layer over the content, tuned beside the click loss: an item taken must find the event before it among those of the batch and
of earlier batches (`memory`). The first stage, encoders of one's own, is `vitrail content encode`. `content: false` is DIN. No published offline number is
known. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.interest import TargetAttention, shares
from vitrail.blocks.loss import sampled_softmax
from vitrail.blocks.recurrent import padded
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from vitrail.data.batches import Impressions
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.history_ranker import HistoryRanker, StoredContent


@system("mim", stage="rank", family="ranking", paper="2502.00321", year=2025, status="reconstruction")
class MIM(HistoryRanker):
    """Behaviour seen through content (a reconstruction)."""

    content_fields: ClassVar[bool] = False
    shares: ClassVar[bool] = True

    class Config(StoredContent, HistoryRanker.Config):
        """Settings of mim."""

        content: bool = True
        """Content is read; else it is DIN."""
        content_dim: PositiveInt = 16
        """Width of content beside the fields of an item, and in which cosines are taken."""
        buckets: PositiveInt = 10
        """Equal buckets of cosines between 0 and 1."""
        attention_hidden: list[PositiveInt] = [64]
        """Widths of the scoring MLP."""
        temperature: PositiveFloat = 0.1
        """Of attention guided by cosines, and of the contrastive loss."""
        tune: NonNegativeFloat = 0.1
        """Weight of the contrastive loss."""
        memory: NonNegativeInt = 1024
        """Items of earlier batches that are negatives too."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        H = self.features.item_width
        wide = H + (config.content_dim if config.content else 0)
        self.attention = TargetAttention(wide, "mlp", "raw", hidden=config.attention_hidden, act=config.activation)
        if config.content:
            self.frozen = self.content(given)
            self.project = nn.Linear(self.frozen.width, config.content_dim, bias=False)
            self.register_buffer("queue", torch.zeros(config.memory, dtype=torch.int64))
            self.register_buffer("queued", torch.zeros((), dtype=torch.int64))
        self.top(3 * wide + (H + config.buckets if config.content else 0))

    def histogram(self, cosines: Tensor, mask: Tensor) -> Tensor:
        """cosines (B, T), mask (B, T) -> (B, buckets) log(1 + how many lie in each), those below 0 in the first"""
        places = (cosines * self.config.buckets).long().clamp(0, self.config.buckets - 1)
        return torch.log1p(cosines.new_zeros(cosines.shape[0], self.config.buckets).scatter_add(1, places, mask.to(cosines.dtype)))

    def seen(self, items: Tensor) -> Tensor:
        """Item codes (...) -> (..., A) tuned content of length 1; 0 where there is none"""
        return F.normalize(self.project(self.frozen(items)), dim=-1)

    def logit(self, batch: Impressions) -> Tensor:
        """[interest ; target ; interest * target ; content-guided interest ; histogram ; other fields] -> MLP"""
        target, events = self.items_and_events(batch)
        if not self.config.content:
            interest = self.attention.packed(target, events, batch.mask)
            return self.finish(batch, interest, target, interest * target)
        present, (of_target, of_events) = self.features.distinct(batch.items, batch.history[batch.mask])
        content = self.seen(present)
        seen, past = F.embedding(of_target, content), F.embedding(of_events, content)
        if len(batch.mask) != len(seen):
            cosines = seen @ past.T if len(past) else seen.new_zeros(len(seen), 1)
        else:
            row = batch.mask.nonzero()[:, 0]
            cosines = seen.new_zeros(batch.mask.shape).masked_scatter(batch.mask, (seen[row] * past).sum(1))
        has = torch.zeros_like(batch.mask).masked_scatter(batch.mask, (past != 0).any(1)) & (seen != 0).any(1)[:, None]
        guided = torch.einsum("bt,bth->bh", shares(cosines / self.config.temperature, has), padded(events, batch.mask))
        both = torch.cat([target, seen], dim=1)
        interest = self.attention.packed(both, torch.cat([events, past], dim=1), batch.mask)
        return self.finish(batch, interest, both, interest * both, guided, self.histogram(cosines, has))

    def loss(self, batch: Impressions) -> Tensor:
        """Log loss, and the contrastive loss of content."""
        loss = self.loss_of(self.logit(batch), batch)
        return loss + self.config.tune * self.contrast(batch) if self.config.content and self.config.tune else loss

    def contrast(self, batch: Impressions) -> Tensor:
        """Each item that was taken finds the newest event before it among the newest events of the batch and the items of the memory, which then moves on."""
        rows = ((batch.labels > 0.5) & batch.mask.any(1)).nonzero().squeeze(1)
        if not len(rows):
            return batch.labels.new_zeros(())
        taken, before = batch.items[rows], batch.history[rows, batch.mask[rows].sum(1) - 1]
        held = self.get_buffer("queue")[: int(self.get_buffer("queued"))]
        found = self.similarity_of(taken, torch.cat([before, held]))
        same = torch.cat([before, held])[None] == before[:, None]  # the one itself, and others that are the same item
        self._remember(before)
        return sampled_softmax(found[torch.arange(len(rows), device=rows.device), torch.arange(len(rows), device=rows.device)], found, same)

    def similarity_of(self, a: Tensor, b: Tensor) -> Tensor:
        """Item codes (B,) and (M,) -> (B, M) cosines of their content over the temperature"""
        return self.seen(a) @ self.seen(b).T / self.config.temperature

    @torch.no_grad()
    def _remember(self, items: Tensor) -> None:
        queue = self.get_buffer("queue")
        kept = torch.cat([items, queue[: int(self.get_buffer("queued"))]])[: len(queue)]
        queue[: len(kept)] = kept
        self.get_buffer("queued").fill_(len(kept))
