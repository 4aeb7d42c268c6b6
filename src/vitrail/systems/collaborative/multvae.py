"""Mult-VAE and, with `variational=false`, Mult-DAE. Liang, Krishnan, Hoffman and Jebara, WWW 2018, arXiv:1802.05814; initialisation
and training defaults of the authors from memory (card base/multvae). Noise has standard deviation 1 and the KL is summed over
the code, as in the paper (RecBole: .01; Elliot: the mean). Numbers: none yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.embed import bag
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveInt, Rate
from vitrail.data.batches import Sets
from vitrail.systems.autoencoder import Autoencoder, distinct, multinomial
from vitrail.systems.base import Given, Sizes, system


def kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of normal(mu, exp(logvar)) (B, D) from the standard normal, summed over D -> (B,)."""
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)


@system("multvae", stage="retrieve", family="collaborative", paper="1802.05814", year=2018, status="works")
class MultVAE(Autoencoder):
    """A variational autoencoder of histories with a multinomial likelihood."""

    space: ClassVar[dict[str, Any]] = {"beta": {"low": 0.0, "high": 1.0}}
    toy: ClassVar[dict[str, Any]] = {"dim": 16, "hidden": 32, "lr": 0.02}

    class Config(Autoencoder.Config):
        """Settings of multvae."""

        dim: PositiveInt = 200
        """Width of the code."""
        hidden: PositiveInt = 600
        """Width of the layer on both sides of the code."""
        dropout: Rate = 0.5
        """On the history that is read."""
        variational: bool = True
        """Sample the code and pull it to a standard normal; false: Mult-DAE."""
        beta: NonNegativeFloat = 0.2
        """Largest weight of the KL term."""
        anneal: NonNegativeInt = 200_000
        """Steps in which the weight of the KL would rise from 0 to 1; it stops at beta. On small data it never gets there."""

    step: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        c = config
        self.read = nn.Parameter(torch.empty(max(sizes.items, 1), c.hidden))  # one row an item: only rows of the history are touched
        self.shift = nn.Parameter(torch.empty(c.hidden))
        self.to_code = nn.Linear(c.hidden, 2 * c.dim if c.variational else c.dim)
        self.widen, self.write = nn.Linear(c.dim, c.hidden), nn.Linear(c.hidden, max(sizes.items, 1))
        for weights in (self.read, self.to_code.weight, self.widen.weight, self.write.weight):
            nn.init.xavier_normal_(weights)
        for bias in (self.shift, self.to_code.bias, self.widen.bias, self.write.bias):
            nn.init.trunc_normal_(bias, std=0.001, a=-0.002, b=0.002)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def moments(self, histories: Sets) -> tuple[Tensor, Tensor | None]:
        """Distinct histories -> mean (B, D) of the code and its log variance (B, D), none for Mult-DAE."""
        scale = histories.lengths.clamp(min=1).float().rsqrt().repeat_interleave(histories.lengths)
        hidden = bag(self.read, histories.items, histories.indptr, F.dropout(scale, self.config.dropout, self.training))
        code = self.to_code(torch.tanh(hidden + self.shift))
        if not self.config.variational:
            return code, None
        mu, logvar = code.chunk(2, 1)
        return mu, logvar

    def encode(self, histories: Sets) -> Tensor:
        return self.moments(histories)[0]

    def decode(self, codes: Tensor) -> Tensor:
        logits: Tensor = self.write(torch.tanh(self.widen(codes)))
        return logits

    def item(self) -> Tensor:
        return self.write.weight

    @property
    def weight(self) -> float:
        """Of the KL term at this step."""
        return min(self.config.beta, int(self.step) / max(self.config.anneal, 1))

    def loss(self, batch: Sets) -> Tensor:
        batch = distinct(batch, self.sizes.items)
        mu, logvar = self.moments(batch)
        if logvar is None:
            return multinomial(self.decode(mu), batch)
        code = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return multinomial(self.decode(code), batch) + self.weight * kl(mu, logvar).mean()

    def after_step(self, parameters: Iterable[nn.Parameter]) -> None:
        self.step += 1

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        return super().memory(config, sizes, events) + 40 * sizes.items * config.hidden
