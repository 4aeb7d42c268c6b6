"""Content-kNN, a baseline of the house: the mean cosine between an item and the history, kinds of content fused late. Repeated history items
count once, at their newest place. z-scores are taken over all items that have the kind; an item that lacks it gets the mean. Its tables are the
content itself, so it answers with items that nobody has met. Numbers: recipes/content-knn.*.yaml."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.config import NonNegativeFloat, PositiveInt
from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.errors import SettingError
from vitrail.systems.base import Can, ContentSettings, Given, Sizes, system
from vitrail.systems.skeletons import Table


@system("content-knn", stage="retrieve", family="multimodal", status="measured")
class ContentKNN(Table):
    """Items whose text and pictures resemble the history, without training."""

    needs = Needs(given=("item_counts",))
    can: ClassVar[Can] = Can(new_users=True, cold_items=True)
    space: ClassVar[dict[str, Any]] = {"gamma": [0.8, 0.9, 0.95, 1.0], "history": [5, 10, 20, 50]}

    class Config(ContentSettings):
        """Settings of content-knn."""

        weights: tuple[NonNegativeFloat, ...] = ()
        """What each of `vectors` counts; none: all alike."""
        fusion: Literal["zscore", "rrf", "sum"] = "zscore"
        """How kinds come together: z-scores of each, reciprocal ranks (60 + rank), or the cosines themselves."""
        aggregate: Literal["mean", "max"] = "mean"
        """The mean over the history, or its nearest item."""
        history: PositiveInt = 20
        """Newest events that are read."""
        gamma: NonNegativeFloat = 1.0
        """Weight of an event by its place from the end, gamma ** place."""
        centre: bool = True
        """Take the mean over items with a training event off every vector."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.item_counts is not None
        if not config.vectors or (config.weights and len(config.weights) != len(config.vectors)):
            raise SettingError(f"weights must hold a number for each of vectors ({', '.join(config.vectors) or 'none'}), or none at all.")
        weights = torch.tensor(config.weights or [1.0] * len(config.vectors))
        self._weights = (weights / weights.sum().clamp(min=1e-12)).tolist()
        for place, name in enumerate(config.vectors):
            values, mask = given.vectors[name].float(), given.masks[name]
            seen = mask & (given.item_counts > 0)
            if config.centre and bool(seen.any()):
                values = values - values[seen].mean(0)
            mask = mask & (values.abs().sum(1) > 0)
            self.register_buffer(f"unit_{place}", F.normalize(values, dim=1) * mask[:, None], persistent=False)
            self.register_buffer(f"mask_{place}", mask, persistent=False)

    def learn(self, interactions: Log) -> None:
        """Nothing: what it answers from is given."""

    def kind(self, place: int) -> tuple[Tensor, Tensor]:
        """Vectors of one kind (N, D), of length 1 or 0, and which items have them (N,)."""
        return self.get_buffer(f"unit_{place}"), self.get_buffer(f"mask_{place}")

    def cosines(self, place: int, items: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Histories items (B, T) with weights (B, T), 0 where there is none -> cosines (B, N), and (B,) true where the history has the kind."""
        unit, mask = self.kind(place)
        weights = weights * mask[items]
        total = weights.sum(1)
        if self.config.aggregate == "mean":
            user = (weights[:, None] @ unit[items])[:, 0] / total.clamp(min=1e-12)[:, None]
            return user @ unit.T, total > 0
        best = torch.full((len(items), len(unit)), -torch.inf, device=items.device)
        for step in range(items.shape[1]):
            best = torch.where((weights[:, step] > 0)[:, None], torch.maximum(best, unit[items[:, step]] @ unit.T), best)
        return best.nan_to_num(neginf=0.0), total > 0

    def each(self, cosines: list[Tensor], has: list[Tensor]) -> list[Tensor]:
        """M kinds of cosines (B, N) and which items have each (N,) -> what each kind adds to the scores (B, N)."""
        found = []
        for weight, cosine, mask in zip(self._weights, cosines, has, strict=True):
            n = mask.sum().clamp(min=1)
            centred = (cosine - (cosine * mask).sum(1, keepdim=True) / n) * mask
            if self.config.fusion == "rrf":
                order = cosine.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
                ranks = torch.arange(1, cosine.shape[1] + 1, dtype=cosine.dtype, device=cosine.device).expand_as(cosine)
                part = (1 / (60 + torch.empty_like(cosine).scatter_(1, order, ranks))) * mask * cosine.any(1, keepdim=True)
            elif self.config.fusion == "zscore":
                deviation = (centred.square().sum(1, keepdim=True) / n).sqrt()
                part = torch.where(deviation > 1e-7, centred / deviation.clamp(min=1e-12), 0.0)
            else:
                part = torch.where(mask, cosine, (cosine * mask).sum(1, keepdim=True) / n)
            found.append(weight * part)
        return found

    def fuse(self, cosines: list[Tensor], has: list[Tensor]) -> Tensor:
        """M kinds of cosines (B, N) and which items have each (N,) -> scores (B, N)."""
        return sum(self.each(cosines, has), torch.zeros_like(cosines[0]))

    def read(self, histories: Sets) -> tuple[list[Tensor], list[Tensor]]:
        """The cosines of each kind (B, N), 0 where the history lacks it, and which items have it (N,)."""
        newest = histories.to(self.kind(0)[0].device).last(self.config.history)
        items, mask = newest.items, newest.mask
        place = mask.sum(1, keepdim=True) - 1 - torch.arange(items.shape[1], device=items.device)
        later = (items[:, :, None] == items[:, None, :]) & mask[:, None, :] & torch.ones(items.shape[1], items.shape[1], dtype=torch.bool).triu(1)
        weights = (mask & ~later.any(2)) * torch.as_tensor(self.config.gamma, dtype=torch.float32).pow(place.clamp(min=0))
        found = [self.cosines(kind, items, weights) for kind in range(len(self.config.vectors))]
        return [cosine * there[:, None] for cosine, there in found], [self.kind(n)[1] for n in range(len(found))]

    def scores(self, histories: Sets) -> Tensor:
        return self.fuse(*self.read(histories))

    def parts(self, histories: Sets, items: Tensor) -> dict[str, Tensor]:
        """What each kind of content adds to the scores of items (B, K): kind -> (B, K)."""
        return dict(zip(self.config.vectors, (part.gather(1, items) for part in self.each(*self.read(histories))), strict=True))

    def answerable(self, histories: Sets) -> Tensor:
        has = torch.stack([self.kind(n)[1] for n in range(len(self.config.vectors))]).any(0)
        rows = torch.repeat_interleave(torch.arange(len(histories), device=has.device), histories.lengths.to(has.device))
        found = torch.zeros(len(histories), dtype=torch.bool, device=has.device)
        found[rows[has[histories.items.to(has.device)]]] = True
        return found

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        return 12 * sizes.items * sum(sizes.vectors.values())
