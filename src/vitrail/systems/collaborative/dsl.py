"""DSL, dynamic sparse learning. Wang et al., WSDM 2024, arXiv:2402.02855: no model but a way to train one, here any system that retrieves and is
trained in batches. Adam's moments are not masked, as in the authors' code. Biases and other single rows stay dense by default, where theirs masks
them too (`biases=true`). Masks start by chance, so the share of a tensor is that of the draw. Zeros are stored as zeros: nothing smaller is written.
Numbers: none yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitrail.blocks.sparse import Growth, Masks, Start, cosine
from vitrail.config import PositiveInt, Share
from vitrail.data.batchers import Batcher
from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.hosted import Hosted, HostSettings


@system("dsl", stage="retrieve", family="collaborative", paper="2402.02855", year=2024, status="works")
class DSL(Hosted):
    """A system trained with a fixed share of its weights, which move to where the gradient wants them."""

    space: ClassVar[dict[str, Any]] = {"density": None}
    toy: ClassVar[dict[str, Any]] = {"host_settings": {"dim": 8}, "interval": 8, "density": 0.7, "schedule": "constant"}

    class Config(HostSettings):
        """Settings of dsl."""

        published: ClassVar[dict[str, dict[str, Any]]] = {
            "lightgcn": {"lr": 1e-2, "schedule": "cosine", "batch": 1024, "init": "xavier"},
            "multvae": {"lr": 1e-4, "batch": 16},
            "neumf": {"lr": 1e-4, "batch": 512},
        }
        density: Share = 0.5
        """Share of the weights of each tensor that are not 0."""
        interval: PositiveInt | None = None
        """Steps between moves; none: 3000 for lightgcn, 100 for multvae, 2000 for any other."""
        ratio: Share = 0.5
        """Share of the weights that move at first."""
        ratio_end: Share = 0.005
        """Share that moves at the end; between them lies half a cosine over all steps."""
        start: Start = "uniform"
        """Which weights are there first: by chance in each tensor, or the largest of all."""
        growth: Growth = "gradient"
        """Where weights go: where the gradient is largest, or by lot."""
        fixed: bool = False
        """Masks never move."""
        biases: bool = False
        """Whether biases and other single rows are masked too."""

    step: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        super().build(config, sizes, given)
        self.masks = Masks(self.masked(), config.density, config.start)
        self.masks.clear(self.masked())
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self._total = 0

    def masked(self) -> list[nn.Parameter]:
        """The parameters that are kept sparse."""
        return [p for p in self.host.parameters() if p.requires_grad and (p.ndim > 1 or self.config.biases)]

    @property
    def interval(self) -> int:
        """Steps between moves."""
        return int(self.config.interval or {"lightgcn": 3000, "multvae": 100}.get(self.config.host, 2000))

    def ratio(self, step: int) -> float:
        """The share that moves at a step."""
        return cosine(step, self._total, self.config.ratio, self.config.ratio_end)

    def batcher(self, log: Log, seed: int, rank: int, world: int) -> Batcher:
        made = super().batcher(log, seed, rank, world)
        self._total = made.steps() * self.config.epochs
        return made

    def after_step(self, parameters: Iterable[nn.Parameter]) -> None:
        super().after_step(parameters)
        self.step += 1
        step, sparse = int(self.step), self.masked()
        self.masks.clear(sparse)
        if not self.config.fixed and step % self.interval == 0:
            self.masks.move(sparse, self.ratio(step), self.config.growth, seed=step)
