"""The skeleton NextItem: a history is a user, so new users need no retraining."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.blocks import loss as losses
from vitrail.blocks.nested import Cut, over_prefixes
from vitrail.blocks.sequence import TransformerStack
from vitrail.config import PositiveInt, Share
from vitrail.data.batchers import Batcher, SequenceBatcher
from vitrail.data.batches import Sequences, Sets
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, Given, Sizes, System
from vitrail.systems.sampling import Loss, LossSettings, from_samples, log_chance

TOGETHER = 128
"""Histories that a processor encodes at once when the system answers."""


class NextItem(System):
    """Encodes a sequence; the newest position's vector asks for the next item by a dot product."""

    needs: ClassVar[Needs] = Needs(history=("item",), order="sequence", given=("item_counts",))
    can: ClassVar[Can] = Can(new_users=True)

    class Config(LossSettings):
        """Settings of next-item systems."""

        dim: PositiveInt = 64
        """Width D of item vectors."""
        length: PositiveInt = 50
        """Newest events T that are read."""
        target: Literal["shifted", "prefix", "cloze"] = "shifted"
        """What is predicted in training: the next item at every position, the last item of every prefix, or masked items."""
        cloze_share: Share = 0.2
        """Share of events that are masked (target cloze), at least one."""
        cloze_most: PositiveInt | None = None
        """Events masked at most; none: length."""
        cloze_last: Share = 0.0
        """Share of rows in which the newest event alone is masked, as it is when the system answers."""
        loss: Loss = "full_softmax"
        """What the training minimises. Negatives belong to one position, but for sampled_softmax and bpr_max to the whole batch."""
        batch: PositiveInt = 128
        """Users (or prefixes) a step."""

    def __init__(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().__init__(config, sizes, given)
        self.register_buffer("log_q", log_chance(config, given, sizes.items), persistent=False)

    def encode(self, batch: Sequences) -> Tensor:
        """batch.items (B, T), batch.mask (B, T) -> (B, T, D)"""
        raise NotImplementedError

    def newest(self, batch: Sequences) -> Tensor:
        """batch.items (B, T), batch.mask (B, T) -> (B, D) of the newest position of each row, when the system answers."""
        h = self.encode(batch)
        return h[torch.arange(len(h), device=h.device), (batch.mask.sum(1) - 1).clamp(min=0)]

    def item(self) -> Tensor:
        """(N, D) vectors that are asked for; by default the tied input table."""
        weights: Tensor = self.items.weight  # type: ignore[assignment,union-attr]
        return weights[: self.sizes.items]

    def ask(self, hidden: Tensor) -> Tensor:
        """Encoded positions (..., D) -> vectors that ask for an item; only where something is asked."""
        return hidden

    def finish(self, vectors: Tensor) -> Tensor:
        """The last step of every vector (..., D) before the dot product."""
        return F.normalize(vectors, dim=-1) if self.config.cosine else vectors

    def batcher(self, log: Log, seed: int, rank: int, world: int) -> Batcher:
        c = self.config
        return SequenceBatcher(
            log,
            batch=c.batch,
            length=c.length,
            negatives=0 if c.loss == "full_softmax" else c.negatives,
            seed=seed,
            rank=rank,
            world=world,
            shared_negatives=c.loss in ("sampled_softmax", "bpr_max"),
            target=c.target,
            cloze_share=c.cloze_share,
            cloze_most=c.cloze_most,
            cloze_last=c.cloze_last,
            power=c.power,
        )

    def loss(self, batch: Sequences) -> Tensor:
        return self.mean_loss(batch) * batch.share

    def mean_loss(self, batch: Sequences) -> Tensor:
        """The mean over the positions that ask."""
        assert batch.targets is not None
        asked = batch.targets >= 0
        hidden, items, targets = self.ask(self.encode(batch)[asked]), self.item(), batch.targets[asked]

        def value(cut: Cut) -> Tensor:
            h, E = self.finish(cut(hidden)), self.finish(cut(items))
            if self.config.loss == "full_softmax":
                return losses.full_softmax(h.float() / self.config.temperature, E, targets)
            assert batch.negatives is not None
            positive = (h * F.embedding(targets, E)).sum(-1)
            negatives = batch.negatives if batch.negatives.ndim == 1 else batch.negatives[asked]
            vectors = F.embedding(negatives, E)
            negative = h @ vectors.T if negatives.ndim == 1 else torch.einsum("bd,bkd->bk", h, vectors)
            return from_samples(self.config, positive, negative, targets, negatives, self.sizes.items, self.log_q)  # type: ignore[arg-type]

        return over_prefixes(value, self.widths, self.width_weights(), hidden.shape[-1])

    def prepare(self) -> None:
        self._items = self.finish(self.narrow(self.item())).detach().float().contiguous()

    def represent(self, histories: Sets) -> Tensor:
        """B histories -> (B, D) vectors that ask for the next item; a history without events gives a meaningless row."""
        if self.config.target == "cloze":
            batch = with_mask_token(histories.last(self.config.length - 1), self.sizes.items)
        else:
            batch = histories.last(self.config.length)
        if self._items.device.type != "cpu" or len(batch.users) <= TOGETHER:
            return self._newest(batch)
        # most histories are far shorter than the longest: those of one length go together, so that little padding is read
        lengths = batch.mask.sum(1)
        order = lengths.argsort(stable=True)
        vectors = torch.cat([self._newest(_rows_of(batch, part, max(int(lengths[part[-1]]), 1))) for part in order.split(TOGETHER)])
        return torch.empty_like(vectors).index_copy_(0, order, vectors)

    def _newest(self, batch: Sequences) -> Tensor:
        """(B, D) vectors with which the newest position of each row asks."""
        return self.finish(self.narrow(self.ask(self.newest(batch.to(self._items.device)))))

    def item_vectors(self) -> Tensor:
        return self._items

    def query_vectors(self, histories: Sets) -> Tensor:
        return self.represent(histories).float()

    def attention(self, histories: Sets) -> tuple[Tensor, Tensor] | None:
        """B histories, none empty -> (B, T) the events that were read, -1 behind the newest, and (B, T) what the newest position reads of each in
        the last layer; none where the body is no Transformer."""
        body = getattr(self, "body", None)
        if not isinstance(body, TransformerStack):
            return None
        cloze = self.config.target == "cloze"
        newest = histories.last(self.config.length - 1 if cloze else self.config.length)
        batch = with_mask_token(newest, self.sizes.items) if cloze else newest
        batch = batch.to(self._items.device)
        weights = body.attention(self.items(batch.items), batch.mask)  # type: ignore[operator]
        width = newest.items.shape[1]  # the mask token reads itself too, and is no event
        return newest.items.masked_fill(~newest.mask, -1).cpu(), weights[:, :width].cpu().masked_fill(~newest.mask, 0.0)

    def scores(self, histories: Sets) -> Tensor:
        return self.query_vectors(histories) @ self._items.T

    def similarity(self, items: Tensor) -> Tensor:
        unit = F.normalize(self._items, dim=1)
        return unit[items.to(unit.device)] @ unit.T

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        parameters = 4 * sizes.items * config.dim
        activations = 4 * config.batch * config.length * config.dim * 40
        return 6 * parameters + activations + 24 * events


def _rows_of(batch: Sequences, rows: Tensor, width: int) -> Sequences:
    """Some rows of a batch without targets, cut to their first `width` positions."""
    times = None if batch.times is None else batch.times[rows, :width]
    return Sequences(batch.users[rows], batch.items[rows, :width], batch.mask[rows, :width], times)


def with_mask_token(batch: Sequences, token: int) -> Sequences:
    """The same histories with the code `token` after the newest event: T + 1 positions."""
    ends = batch.mask.sum(1, keepdim=True)
    items = F.pad(batch.items, (0, 1)).scatter(1, ends, token)
    mask = F.pad(batch.mask, (0, 1)).scatter(1, ends, True)
    return Sequences(batch.users, items, mask)
