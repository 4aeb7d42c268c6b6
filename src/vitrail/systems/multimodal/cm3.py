"""CM3. Zhou et al., 2025, arXiv:2508.01226. Answers are made in evaluation mode with half of each kind in the mix (theirs are those of the last training
pass, random mix included). They are inner products of vectors as they are, as theirs; `cosine` scores on the sphere that training is on. An item that
lacks a kind mixes the others. Items are kept apart among the batch's negatives, repeats included, as theirs. People never seen are propagated from their
history and lean as people do on the whole, an extension. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.embed import rows
from vitrail.blocks.loss import alignment, uniformity
from vitrail.blocks.modality import Modalities, bezier
from vitrail.config import NonNegativeFloat, PositiveFloat
from vitrail.data.batches import Pairs
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.multimodal.trunk import ContentGraph
from vitrail.systems.sampling import only_loss


@system("cm3", stage="retrieve", family="multimodal", paper="2508.01226", year=2025, status="works")
class CM3(ContentGraph):
    """Items out of content, kinds mixed along the sphere, trained to be near their users and apart from items that are not alike."""

    space: ClassVar[dict[str, Any]] = {"layers": [3, 4], "gamma": [0.5, 0.9], "max_similar": [0.8, 1.0], "mix": [0.1, 0.5, 0.9]}
    toy: ClassVar[dict[str, Any]] = {"neighbours": 3, "layers": 2, "epochs": 25}

    class Config(ContentGraph.Config):
        """Settings of cm3."""

        gamma: NonNegativeFloat = 0.5
        """Weight of uniformity beside alignment."""
        min_similar: float = 0.0
        """Least similarity that items are said to have, in [-1, 1]."""
        max_similar: float = 0.8
        """Largest one; 1 for both makes uniformity the plain one."""
        mix: PositiveFloat = 0.5
        """alpha of the Beta distribution that says how near the mix of an item is to each kind, drawn anew in every training pass."""

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        only_loss("cm3", config, "bpr")
        if not -1 <= config.min_similar <= config.max_similar <= 1:
            raise SettingError(f"min_similar={config.min_similar} and max_similar={config.max_similar} must be cosines, the least not above the largest.")
        super().build(config, sizes, given)
        self.mixed = Modalities(*given.content(config.vectors), config.dim, trained=False)
        for projection in self.mixed.maps:
            nn.init.xavier_normal_(projection.weight)  # type: ignore[arg-type]
        self._mix: Tensor | None = None

    def together(self) -> Tensor:
        kinds = range(len(self.mixed.names))
        points = [F.normalize(self.mixed(n), dim=1) for n in kinds]
        half, alpha = torch.full_like(points[0][:, 0], 0.5), self.config.mix
        share = torch.distributions.Beta(alpha, alpha).sample(half.shape).to(half) if self.training else half  # type: ignore[no-untyped-call]
        self._mix = bezier(points, [self.mixed.has(n) for n in kinds], share)
        return self._mix

    def attention(self, blocks: Tensor, leaning: Tensor) -> Tensor:
        return leaning.softmax(1)

    def loss(self, batch: Pairs) -> Tensor:
        c, (users, items) = self.config, self.nodes()
        negatives = batch.negatives if batch.negatives.ndim == 1 else batch.negatives[:, 0]
        assert self._mix is not None
        mix, self._mix = F.normalize(rows(self._mix, negatives), dim=1), None
        u, p, n = (F.normalize(x, dim=1) for x in (rows(users, batch.users), rows(items, batch.items), rows(items, negatives)))
        apart = uniformity(u) + uniformity(n, mix, c.min_similar, c.max_similar)
        return alignment(u, p) + c.gamma * apart / 2

    def prepare(self) -> None:
        super().prepare()
        self._mix = None
