"""AlphaRec. Sheng et al., ICLR 2025, arXiv:2407.05441. Every training event once an epoch, where the authors visit every user equally often; the
epoch is chosen on validation, where their code chooses it on test. An item without text has no vector and is told by a mask. `form=linear` is the
linear map of their first study. No parameter belongs to a user or an item, so the weights of one catalogue answer for another, and people never
seen pass through the same network: their own text vector beside one propagation of their history. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vitrail.blocks.graph import layers, mean_of_layers
from vitrail.blocks.modality import mean_of_items
from vitrail.config import NonNegativeInt, PositiveFloat, PositiveInt
from vitrail.data.batches import Sets
from vitrail.data.schema import Needs
from vitrail.errors import SettingError
from vitrail.systems.base import Can, ContentSettings, Given, Sizes, system
from vitrail.systems.ids import fold, folding, id_graph
from vitrail.systems.sampling import Loss
from vitrail.systems.skeletons import Graph


@system("alpharec", stage="retrieve", family="multimodal", paper="2407.05441", year=2025, status="works")
class AlphaRec(Graph):
    """The text of items, mapped by a small network and smoothed over the interaction graph; a user is the mean of their items' text."""

    needs = Needs(given=("interactions",))
    can: ClassVar[Can] = Can(new_users=True, cold_items=True)
    space: ClassVar[dict[str, Any]] = {"temperature": {"low": 0.05, "high": 0.5, "log": True}}
    toy: ClassVar[dict[str, Any]] = {"vectors": ("text",), "negatives": 8, "epochs": 60, "dim": 16, "hidden": 32, "lr": 0.01}

    class Config(Graph.Config, ContentSettings):
        """Settings of alpharec."""

        vectors: tuple[str, ...] = ("text",)
        """Names of the vectors of the data set that are read, side by side (`vitrail content list DATA` shows them)."""
        form: Literal["mlp", "linear"] = "mlp"
        """Two layers, or one linear map."""
        hidden: PositiveInt | None = None
        """Width of the inner layer; none: half of that of the vectors."""
        layers: NonNegativeInt = 2
        """Propagations; answers are the mean of layers 0 to L."""
        loss: Loss = "sampled_softmax"
        """What the training minimises."""
        negatives: PositiveInt = 256
        """Sampled items K beside each positive."""
        cosine: bool = True
        """Score by cosine instead of the dot product."""
        temperature: PositiveFloat = 0.15
        """Divides the scores in the softmax losses."""
        lr: PositiveFloat = 5e-4
        """Learning rate of Adam."""
        batch: PositiveInt = 4096
        """Pairs a step."""
        epochs: PositiveInt = 500
        """Epochs at most."""
        validate_every: PositiveInt = 5
        """Epochs between validations."""
        patience: NonNegativeInt = 20
        """Validations without improvement before the run stops; 0: never."""

    adjacency: Tensor
    degrees: Tensor
    text: Tensor
    has: Tensor
    read: Tensor
    reader: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        if not config.vectors:
            raise SettingError("alpharec answers by content alone: name at least one of the vectors of the data set, e.g. --set vectors=[text].")
        id_graph(self, sizes, given)
        vectors, masks = given.content(config.vectors)
        has = torch.stack(list(masks.values())).any(0)
        text = torch.cat([vectors[name] * masks[name][:, None] for name in vectors], 1)
        read, reader = mean_of_items(text, has, given.indptr, given.items)
        for name, tensor in {"text": text, "has": has, "read": read, "reader": reader}.items():
            self.register_buffer(name, tensor, persistent=False)
        width = text.shape[1]
        if config.form == "linear":
            self.net: nn.Module = nn.Linear(width, config.dim, bias=False)
        else:
            hidden = config.hidden or max(width // 2, 1)
            self.net = nn.Sequential(nn.Linear(width, hidden), nn.LeakyReLU(), nn.Linear(hidden, config.dim))

    def start(self) -> Tensor:
        """(U + N, D) layer 0: mapped text of users and items; 0 without text."""
        x: Tensor = self.net(torch.cat([self.read, self.text])) * torch.cat([self.reader, self.has])[:, None]
        return x

    def nodes(self) -> tuple[Tensor, Tensor]:
        users, items = mean_of_layers(self.adjacency, self.start().float(), self.config.layers).split([self.sizes.users, self.sizes.items])
        return users, items

    def prepare(self) -> None:
        super().prepare()
        below = layers(self.adjacency, self.start(), self.config.layers)[:-1]
        count = self.config.layers + 1
        self._folding = folding(below, self.sizes.users, self.degrees, count) if below else torch.zeros_like(self._items)

    def fold_in(self, histories: Sets) -> Tensor:
        read, has = mean_of_items(self.text, self.has, histories.indptr, histories.items)
        own: Tensor = self.net(read) * has[:, None] / (self.config.layers + 1)
        return own + fold(self._folding, histories)

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        width = sum(sizes.vectors.values())
        inner = config.hidden or width // 2
        return super().memory(config, sizes, events) + 8 * (sizes.users + sizes.items) * (width + inner)
