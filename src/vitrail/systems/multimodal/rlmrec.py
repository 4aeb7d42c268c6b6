"""RLMRec. Ren et al., WWW 2024, arXiv:2310.15950, over lightgcn, simgcl or dccf, with the authors' settings of each host. The house keeps content of
items alone: a profile is a vector of the item (name vectors of profiles that a language model wrote, or of plain text), and a user's is the mean of
those of their training items, where the authors have one written. Who has no profile is in no term. A node that hides its id can be any node with a
profile. LightGCN's edges that are kept count for those left out; the authors' do not. The penalty is theirs: squares of all parameters. Numbers: none
yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from vitrail.blocks.embed import rows
from vitrail.blocks.loss import full_softmax, info_nce
from vitrail.blocks.modality import mean_of_items
from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt, Share
from vitrail.data.batches import Pairs
from vitrail.errors import SettingError
from vitrail.systems.base import ContentSettings, Given, Sizes, system
from vitrail.systems.hosted import Hosted, HostSettings
from vitrail.systems.skeletons import Graph


@system("rlmrec", stage="retrieve", family="multimodal", paper="2310.15950", year=2024, status="works")
class RLMRec(Hosted):
    """A graph system whose vectors are aligned with what text says of users and items."""

    space: ClassVar[dict[str, Any]] = {"align": {"low": 1e-3, "high": 1.0, "log": True}, "reg": None}
    toy: ClassVar[dict[str, Any]] = {"host_settings": {"dim": 8, "layers": 1, "edge_drop": 0.0}, "hidden": 16, "epochs": 25}

    class Config(HostSettings, ContentSettings):
        """Settings of rlmrec."""

        published: ClassVar[dict[str, dict[str, Any]]] = {
            "lightgcn": {"dim": 32, "readout": "sum", "edge_drop": 0.2, "init": "xavier", "l2": 0.0, "batch": 4096},
            "simgcl": {"dim": 32, "contrast": 0.1, "noise": 0.9, "l2": 0.0, "batch": 4096},
            "dccf": {"dim": 32, "l2": 0.0, "batch": 4096},
        }
        host: Literal["lightgcn", "simgcl", "dccf"] = "lightgcn"
        """Name of the system that is trained."""
        vectors: tuple[str, ...] = ("text",)
        """Names of the vectors of the data set that are profiles, side by side (`vitrail content list DATA` shows them)."""
        form: Literal["contrastive", "generative"] = "contrastive"
        """Draw a node's vector to its profile, or hide ids and tell the profile from what the graph says."""
        align: NonNegativeFloat = 1e-2
        """Weight of the alignment."""
        align_temperature: PositiveFloat = 0.2
        """Divides its cosines."""
        hidden: PositiveInt | None = None
        """Width of the inner layer between profiles and vectors; none: half way between theirs."""
        hide: Share = 0.15
        """Share of nodes whose ids are hidden in a step, at least one (generative)."""
        reg: NonNegativeFloat = 1e-7
        """Weight of the squares of all parameters."""

    host: Graph
    profiles: Tensor
    profiled: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        if not config.vectors:
            raise SettingError("rlmrec aligns with profiles: name at least one of the vectors of the data set, e.g. --set vectors=[text].")
        super().build(config, sizes, given)  # first, so that a host alone starts as this one does
        vectors, masks = given.content(config.vectors)
        has = torch.stack(list(masks.values())).any(0)
        items = torch.cat([vectors[name] * masks[name][:, None] for name in vectors], 1)
        users, readers = mean_of_items(items, has, given.indptr, given.items)
        self.register_buffer("profiles", torch.cat([users, items]), persistent=False)
        self.register_buffer("profiled", torch.cat([readers, has]), persistent=False)
        ends = items.shape[1], self.host.config.dim
        widths = [ends[0], config.hidden or max(sum(ends) // 2, 1), ends[1]]
        if config.form == "generative":
            widths.reverse()
            self.token = nn.Parameter(torch.zeros(ends[1]))
        self.net = nn.Sequential(nn.Linear(*widths[:2]), nn.LeakyReLU(), nn.Linear(*widths[1:]))
        for layer in (self.net[0], self.net[2]):
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]

    def loss(self, batch: Pairs) -> Tensor:
        c = self.config
        if c.form == "generative":
            hidden = self.choose()
            tables: list[Tensor] = [self.host.get_parameter(name) for name in ("users", "items")]
            users, items = torch.cat(tables).index_put((hidden,), self.token).split([len(table) for table in tables])
            value: Tensor = functional_call(self, {"host.users": users, "host.items": items}, (batch, hidden))
        else:
            value = self(batch, None)
        return value + c.reg * sum(p.square().sum() for p in self.parameters()) if c.reg else value

    def choose(self) -> Tensor:
        """Nodes whose ids are hidden in this step, each of which has a profile."""
        nodes = self.profiled.nonzero()[:, 0]
        count = min(max(int(self.config.hide * len(self.profiled)), 1), len(nodes))
        return nodes[torch.randperm(len(nodes), device=nodes.device)[:count]]

    def forward(self, batch: Pairs, hidden: Tensor | None) -> Tensor:
        """The host's loss and the alignment of one pass of its graph, by the tables that the host has in this call."""
        step = self.host.nodes()
        value = self.host.loss_at(step, batch)
        if not self.config.align or not bool(self.profiled.any()):
            return value
        aligned = self.towards(step, batch) if hidden is None else self.told(torch.cat(step), hidden)
        return value + self.config.align * aligned

    def told(self, nodes: Tensor, hidden: Tensor) -> Tensor:
        """Vectors of all nodes (V, D) -> how well those that hide their ids (H,) find their own profiles among theirs."""
        return info_nce(self.net(rows(nodes, hidden)), self.profiles[hidden], self.config.align_temperature)

    def towards(self, step: tuple[Tensor, Tensor], batch: Pairs) -> Tensor:
        """How well vectors of the batch find their mapped profiles: users among all users, items among the batch's."""
        t, (users, items) = self.config.align_temperature, step
        first, has = len(users), self.profiled
        readers, own = has[:first].nonzero()[:, 0], batch.users[has[batch.users]]
        total = users.new_zeros(())
        if len(own):
            place = (has[:first].cumsum(0) - 1)[own]
            said = F.normalize(self.net(self.profiles[readers]), dim=1)
            total = total + full_softmax(F.normalize(rows(users, own), dim=1) / t, said, place)
        for ids in (batch.items, batch.negatives[..., 0].expand_as(batch.items)):
            there = ids[has[first + ids]]
            if len(there):
                total = total + info_nce(rows(items, there), self.net(self.profiles[first + there]), t)
        return total

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        width = sum(sizes.vectors.values())
        return super().memory(config, sizes, events) + 4 * (sizes.users + sizes.items) * (2 * width + (config.hidden or width // 2))
