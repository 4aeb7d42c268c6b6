"""Several objectives in one ranker: shared bottom, MMoE (Ma et al., KDD 2018), PLE (Tang et al., RecSys 2020), and ESMM's chain of two successes (Ma et al.,
SIGIR 2018, arXiv:1804.07931) as settings. Objectives are conditions over columns of the impressions, which then are no features; `clicked` is always one. What
candidates are ordered by is a declared value: the product of the chances to declared powers, or the sum of their log odds with declared weights. Where an
objective is not known of a row (the column is empty), the row does not count for it. Differs from the public ports: gates are plain linear maps without batch
normalisation; the history is read too, as one more field a field of the item (the mean of its events).
Numbers: none yet."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.multitask import PLE, Bottom, MMoE, SharedBottom, chain, entropy, masked_bce
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveInt
from vitrail.data.batchers_rows import in_order
from vitrail.data.batches import Impressions
from vitrail.data.impressions import CLICKED, Rows
from vitrail.errors import SettingError, unknown
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.field_ranker import FieldRanker, TowerSettings


@system("multi-task", stage="rank", family="ranking", year=2018, status="works")
class MultiTask(FieldRanker):
    """Clicks, purchases and whatever else was declared, each with a head, weighed into one value."""

    class Config(FieldRanker.Config, TowerSettings):
        """Settings of multi-task."""

        objectives: dict[str, str] = {}
        """Beside `clicked`: name of an objective -> condition over columns of the impressions, as {bought: bought > 0}."""
        bottom: Bottom = "mmoe"
        """What objectives share: one network, experts with a gate each, or levels of own and shared experts."""
        experts: PositiveInt = 4
        """Experts (mmoe), or shared experts of a level (ple)."""
        own: NonNegativeInt = 1
        """Experts of each objective in a level (ple)."""
        levels: PositiveInt = 1
        """Levels (ple)."""
        expert: list[PositiveInt] = [64]
        """Widths of an expert, or of the shared bottom."""
        hidden: list[PositiveInt] = [32]
        """Widths of the MLP of each objective."""
        after: dict[str, str] = {}
        """Objective -> the one without which it cannot be; its chance is then the product of both, over all rows (ESMM)."""
        loss_weights: dict[str, NonNegativeFloat] = {}
        """Objective -> weight of its loss; 1 where it is not named."""
        value: Literal["product", "sum"] = "product"
        """What orders candidates: the product of chances to the powers `value_weights`, or the weighted sum of log odds."""
        value_weights: dict[str, float] = {}
        """Objective -> its power or weight in the value; 1 where it is not named."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().build(config, sizes, given)
        self.names = [CLICKED, *config.objectives]
        told = {"after": [*config.after, *config.after.values()], "loss_weights": config.loss_weights, "value_weights": config.value_weights}
        for key, named in told.items():
            for name in named:
                if name not in self.names:
                    raise unknown(f"objective (in {key})", name, self.names)
        if any(config.after.get(first) for first in config.after.values()):
            raise SettingError(f"after={config.after} makes a chain of three: name for each objective one that follows nothing.")
        width, K = self.fields * self.features.dim, len(self.names)
        more: dict[str, Any] = {"dropout": config.dropout, "norm": config.norm}
        if config.bottom == "shared_bottom":
            self.bottom: nn.Module = SharedBottom(width, K, config.expert, config.activation, **more)
        elif config.bottom == "mmoe":
            self.bottom = MMoE(width, K, config.expert, config.activation, experts=config.experts, **more)
        else:
            self.bottom = PLE(width, K, config.expert, config.activation, levels=config.levels, own=config.own, shared=config.experts, **more)
        self.towers = nn.ModuleList(self.mlp(config, config.expert[-1] if config.expert else width, 1) for _ in self.names)

    def heads(self, batch: Impressions) -> dict[str, tuple[Tensor, Tensor]]:
        """Objective -> log p and log (1 - p), each (B,)"""
        ways = self.bottom(self.vectors(batch).flatten(1))
        logits = {name: tower(way).squeeze(1) for name, tower, way in zip(self.names, self.towers, ways, strict=True)}
        first = self.config.after
        return {name: chain(logits[first[name]], z) if name in first else (F.logsigmoid(z), F.logsigmoid(-z)) for name, z in logits.items()}

    def logit(self, batch: Impressions) -> Tensor:
        """The value: the log of the product of powers, or the sum of log odds."""
        weights, heads = self.config.value_weights, self.heads(batch)
        terms = [weights.get(name, 1.0) * (p if self.config.value == "product" else p - q) for name, (p, q) in heads.items()]
        return torch.stack(terms).sum(0)

    def loss(self, batch: Impressions) -> Tensor:
        labels = {CLICKED: batch.labels}
        if batch.outcomes is not None:
            labels |= dict(zip(self.names[1:], batch.outcomes.unbind(1), strict=True))
        weights, heads = self.config.loss_weights, self.heads(batch)
        losses = [weights.get(name, 1.0) * masked_bce(*heads[name], labels[name], batch.weights) for name in labels]
        loss = torch.stack(losses).sum()
        return loss + self.config.rare * self.penalty(batch) if self.config.rare else loss

    @torch.no_grad()
    def chances(self, rows: Rows) -> dict[str, Any]:
        """Objective -> (R,) its chance, for rows with their fields."""
        found = {name: np.empty(len(rows), dtype=np.float32) for name in self.names}
        for chosen, batch in in_order(rows, self.config.length):
            for name, (log_p, _) in self.heads(batch.to(self.device)).items():
                found[name][chosen] = log_p.exp().cpu().numpy()
        return found

    @torch.no_grad()
    def gates(self, rows: Rows) -> dict[str, float]:
        """Objective -> entropy of its gate over `rows` as a share of the most it can be (mmoe): near 0, a single expert is asked."""
        if not isinstance(self.bottom, MMoE) or len(self.bottom.experts) == 1:
            return {}
        found = np.zeros(len(self.names))
        for chosen, batch in in_order(rows, self.config.length):
            shares = self.bottom.shares(self.vectors(batch.to(self.device)).flatten(1))
            found += [float(entropy(weights)) * len(chosen) for weights in shares]
        return dict(zip(self.names, (found / max(len(rows), 1)).tolist(), strict=True))
