"""DGVAE. Zhou and Miao, TMM 2024, arXiv:2402.16110. A person's words are the sum of those of their items, weighed over items, where theirs are weighed over
people; `vitrail content encode DATA --text words --name words` makes them out of texts (words of pictures are theirs alone). The graph of alike items is
sparse and applied, never built dense, and content missing is a mask. Without `words` it is MacridVAE (Ma et al., NeurIPS 2019) on smoothed histories,
without `item_layers` that alone. Numbers: none yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.disentangle import Prototypes, across, parts_agree, spread_kl
from vitrail.blocks.embed import bag
from vitrail.blocks.item_graph import ItemGraph
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Rate
from vitrail.data.batches import Sets
from vitrail.data.schema import Needs
from vitrail.systems.autoencoder import Autoencoder, distinct, multinomial
from vitrail.systems.base import ContentSettings, Given, Sizes, system


@system("dgvae", stage="retrieve", family="multimodal", paper="2402.16110", year=2024, status="works")
class DGVAE(Autoencoder):
    """An autoencoder of histories and of their words, with a code for each prototype of taste; what is alike is smoothed together."""

    space: ClassVar[dict[str, Any]] = {"prototypes": [3, 4, 5], "agree": {"low": 0.05, "high": 1.0, "log": True}, "dropout": [0.3, 0.5]}
    toy: ClassVar[dict[str, Any]] = {"dim": 8, "words": "text", "prototypes": 2, "neighbours": 4, "batch": 24, "epochs": 60}

    class Config(Autoencoder.Config, ContentSettings):
        """Settings of dgvae; those of Baby."""

        batch: PositiveInt = 512
        """Users a step."""
        words: str = "words"
        """Name of the vectors that hold what words an item has, a column a word, negative numbers read as 0; empty: no network of words."""
        dim: PositiveInt = 64
        """Width of the part of the code that each prototype has."""
        prototypes: PositiveInt = 3
        """Prototypes K."""
        temperature: PositiveFloat = 0.1
        """Divides the cosines between things and prototypes, and the logits."""
        noise: NonNegativeFloat = 0.075
        """Standard deviation of the code in training."""
        dropout: Rate = 0.5
        """On the smoothed history."""
        neighbours: PositiveInt = 10
        """Alike items of each kind of content, the item itself counted."""
        graph_weights: tuple[NonNegativeFloat, ...] = (0.96, 0.04)
        """What each of `vectors` counts in the item graph; of no effect with one."""
        item_layers: NonNegativeInt = 2
        """Products of a history with the item graph; 0: none."""
        beta: NonNegativeFloat = 0.2
        """Largest weight of the KL term."""
        anneal: NonNegativeInt = 20_000
        """Steps in which the weight of the KL would rise from 0 to 1; it stops at beta."""
        words_weight: NonNegativeFloat = 0.2
        """Weight of the loss of words."""
        agree: NonNegativeFloat = 0.4
        """Weight of the loss that makes both networks say the same with the same prototypes."""

    step: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        c, (vectors, masks) = config, given.content(config.vectors)
        self.graph = ItemGraph(vectors, masks, c.counts_of("graph_weights"), c.neighbours) if c.item_layers else None
        self.items_net = Prototypes(sizes.items, c.dim, c.prototypes, temperature=c.temperature, noise=c.noise)
        if c.words:
            self.register_buffer("spoken", given.vectors[c.words].float().clamp(min=0) * given.masks[c.words][:, None], persistent=False)
            self.words_net = Prototypes(self.get_buffer("spoken").shape[1], c.dim, c.prototypes, temperature=c.temperature, noise=c.noise)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @classmethod
    def wants(cls, config: Any) -> Needs:
        return cls.needs.but({"vectors": tuple(dict.fromkeys((*config.vectors, *filter(None, [config.words]))))})

    def smooth(self, x: Tensor) -> Tensor:
        """x (B, N) -> x S ... S (B, N): what a history says of the items its own are alike to."""
        assert self.graph is not None
        rows = x.T.contiguous()
        for _ in range(self.config.item_layers):
            rows = self.graph.transposed(rows)
        return rows.T

    def read(self, histories: Sets) -> tuple[Tensor, Tensor, list[tuple[Prototypes, Tensor, Tensor, Tensor]], Tensor]:
        """Distinct histories -> the code (B, K, D) that is decoded, the log shares of items (N, K), each network with its input (B, N or words), log shares and
        log variances, and what the networks disagree."""
        c, dropout = self.config, self.config.dropout * self.training
        rows = torch.repeat_interleave(torch.arange(len(histories), device=histories.items.device), histories.lengths)
        x = torch.zeros(len(histories), self.sizes.items, device=rows.device)
        x[rows, histories.items] = 1.0
        share = self.items_net.belonging()
        code, logvar = self.items_net.encode(x, share, dropout, self.smooth if c.item_layers else None)
        nets = [(self.items_net, x, share, logvar)]
        if not c.words:
            return code, share, nets, x.new_zeros(())
        words = F.normalize(bag(self.get_buffer("spoken"), histories.items, histories.indptr), dim=1)
        said = self.words_net.belonging()
        told, logvar = self.words_net.encode(words, said, dropout)
        nets.append((self.words_net, words, said, logvar))
        one, two = across(told, code), across(code, told)
        return one + two, share, nets, parts_agree(one, two)

    def encode(self, histories: Sets) -> Tensor:
        return self.read(histories)[0].flatten(1)

    def decode(self, codes: Tensor) -> Tensor:
        return self.items_net.decode(codes.view(len(codes), self.config.prototypes, -1), self.items_net.belonging())

    def item(self) -> Tensor:
        return self.items_net.things

    def loss(self, batch: Sets) -> Tensor:
        c, batch = self.config, distinct(batch, self.sizes.items)
        code, share, nets, disagree = self.read(batch)
        weight = min(c.beta, (int(self.step) + 1) / max(c.anneal, 1))
        total = multinomial(self.items_net.decode(code, share), batch) + weight * spread_kl(nets[0][3]) + c.agree * disagree
        for net, words, said, logvar in nets[1:]:
            total = total + c.words_weight * (weight * spread_kl(logvar) - (net.decode(code, said).log_softmax(1) * words).sum(1).mean())
        return total

    def after_step(self, parameters: Iterable[nn.Parameter]) -> None:
        self.step += 1

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        wide = sizes.items + sizes.vectors.get(config.words, 0)
        content = 8 * sizes.items * sum(sizes.vectors.values()) + 4096 * sizes.items
        return super().memory(config, sizes, events) + content + 4 * wide * (config.batch * 6 * config.prototypes + 20 * config.dim)
