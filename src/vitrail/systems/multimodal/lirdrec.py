"""LIRDRec. Zhou et al., 2025, arXiv:2505.04960. Answers are made in evaluation mode (theirs are those of the last training pass), which does as well or
better. The authors' unused tables of trainable features are left out; each block has a gate of its own. `users=even`, `shared=none` and `item_layers=0`
leave a LightGCN on content with summed layers. An item that lacks a kind has a block of 0. People never seen are propagated from their history and lean
as people do on the whole, an extension. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.blocks.modality import cosine_transform, projector
from vitrail.config import NonNegativeFloat, PositiveFloat, Share
from vitrail.data.batches import Pairs
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.multimodal.trunk import ContentGraph


@system("lirdrec", stage="retrieve", family="multimodal", paper="2505.04960", year=2025, status="works")
class LIRDRec(ContentGraph):
    """Items out of content and its cosine transform; a user's weights of kinds are copied, epoch by epoch, from a gate into a table."""

    space: ClassVar[dict[str, Any]] = {"layers": [2, 3, 4], "l2": [1e-2, 1e-3, 1e-4], "gate_share": [0.9, 0.95, 0.99]}
    toy: ClassVar[dict[str, Any]] = {"neighbours": 3, "layers": 2, "epochs": 25}

    class Config(ContentGraph.Config):
        """Settings of lirdrec."""

        lr: PositiveFloat = 1e-4
        """Learning rate of Adam."""
        shared: Literal["dct", "none"] = "dct"
        """The block of all kinds together: out of their cosine transforms side by side, or no such block."""
        users: Literal["progressive", "even"] = "progressive"
        """How users weigh blocks: by progressive weight copying, or all alike."""
        gate_share: Share = 0.9
        """What the gate counts beside the table before the first epoch (decay_weight)."""
        gate_decay: Share = 0.9
        """Base of the power of the epoch by which that falls (decay_base)."""
        l2: NonNegativeFloat = 1e-4
        """Weight of the mean squares of all users' and all items' vectors."""

    gate: Tensor
    copied: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().build(config, sizes, given)
        vectors, masks = given.content(config.vectors)
        if config.shared == "dct":
            spectrum = torch.cat([cosine_transform(values.float()) * masks[name][:, None] for name, values in vectors.items()], 1)
            self.register_buffer("spectrum", spectrum, persistent=False)
            self.common = projector(spectrum.shape[1], config.dim, 4 * config.dim)
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(config.dim, max(config.dim // 4, 1)), nn.LeakyReLU(), nn.Linear(max(config.dim // 4, 1), 1)) for _ in range(self.blocks)
        )
        self.register_buffer("gate", torch.tensor(config.gate_share, dtype=torch.float64))
        self.register_buffer("copied", torch.zeros_like(self.leaning))

    def shared_blocks(self, config: Any) -> int:
        return int(config.shared == "dct")

    def together(self) -> Tensor | None:
        return None if self.config.shared == "none" else self.common(self.get_buffer("spectrum"))

    def attention(self, blocks: Tensor, leaning: Tensor) -> Tensor:
        if self.config.users == "even":
            return torch.full_like(leaning, 1 / self.blocks)
        gated = torch.cat([gate(block) for gate, block in zip(self.gates, blocks.unbind(1), strict=True)], 1)
        share = self.gate.to(gated.dtype)
        found = (share * gated + (1 - share) * leaning).softmax(1)
        if self.training:
            self.copied[: len(found)] = found.detach()
        return found

    def on_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        """The gate gives way to the table, which takes the weights of the last pass."""
        fallen = self.gate * self.config.gate_decay ** (epoch + 1)
        self.gate.copy_(fallen / (fallen + 1 - self.gate))
        if epoch:
            with torch.no_grad():
                self.leaning.copy_(self.copied)

    def regulariser(self, batch: Pairs) -> Tensor | float:
        users, items = self._step
        return self.config.l2 * (users.square().mean() + items.square().mean())
