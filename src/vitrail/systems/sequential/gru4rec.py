"""GRU4Rec. Hidasi et al., ICLR 2016, arXiv:1511.06939; BPR-max and extra negatives by Hidasi and Karatzoglou, CIKM 2018.
Every user's history is a sequence of its own that is trained through time at all positions, instead of parallel sessions
whose state is carried over step by step without gradient; Adam instead of Adagrad; negatives drawn with chance ~ count^power
for a whole batch, the batch's other targets not among them. `embedding=separate` is the authors' mode b, `constrained`
their mode c; the projection after the GRU (`project`) is RecBole's. Numbers: recipes/gru4rec.*.yaml."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from vitrail.blocks.drop import Dropout
from vitrail.blocks.embed import ItemEmbedding
from vitrail.config import PositiveInt, Rate
from vitrail.data.batches import Sequences
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.next_item import NextItem


@system("gru4rec", stage="retrieve", family="sequential", paper="1511.06939", year=2016, status="measured")
class GRU4Rec(NextItem):
    """A recurrent net (GRU) over the newest events predicts the next item."""

    toy: ClassVar[dict[str, Any]] = {"epochs": 40, "hidden": 8, "lr": 0.02}

    class Config(NextItem.Config):
        """Settings of gru4rec."""

        hidden: PositiveInt = 128
        """Width of the GRU's state."""
        layers: PositiveInt = 1
        """GRU layers."""
        embedding: Literal["constrained", "separate"] = "constrained"
        """Whether the vectors that are read are those that are asked for."""
        project: bool = True
        """A linear layer from the state to dim; without it hidden must equal dim, or the embedding be separate."""
        dropout: Rate = 0.3
        """On embedded events."""
        hidden_dropout: Rate = 0.0
        """On the states that are asked, and between layers."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        if config.target == "cloze":
            raise SettingError('System "gru4rec" reads forward only and cannot be trained with target=cloze: use shifted or prefix.')
        if not config.project and config.embedding == "constrained" and config.hidden != config.dim:
            raise SettingError(f"Without project the state ({config.hidden} wide) must be as wide as item vectors ({config.dim}): set hidden={config.dim}.")
        self.items = ItemEmbedding(sizes.items, config.dim, "xavier")
        self.gru = nn.GRU(config.dim, config.hidden, config.layers, batch_first=True, dropout=config.hidden_dropout if config.layers > 1 else 0.0)
        for name, weights in self.gru.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(weights)
            else:  # the three gates are three matrices
                for gate in weights.detach().chunk(3):
                    nn.init.xavier_uniform_(gate)
        self.drop, self.drop_hidden = Dropout(config.dropout), Dropout(config.hidden_dropout)
        width = config.dim if config.project else config.hidden
        if config.project:
            self.out = nn.Linear(config.hidden, config.dim)
        if config.embedding == "separate":
            self.asked = ItemEmbedding(sizes.items, width, "xavier")

    def encode(self, batch: Sequences) -> Tensor:
        x = self.drop(self.items(batch.items))
        states: Tensor = self.gru(x)[0]
        return states

    def ask(self, hidden: Tensor) -> Tensor:
        hidden = self.drop_hidden(hidden)
        return self.out(hidden) if self.config.project else hidden

    def item(self) -> Tensor:
        return super().item() if self.config.embedding == "constrained" else self.asked.weight[: self.sizes.items]
