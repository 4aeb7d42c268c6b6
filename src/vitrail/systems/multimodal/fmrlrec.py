"""fMRLRec. Wang et al., EMNLP Findings 2024, arXiv:2409.16627. Its paper encodes text by bge-large and pictures by SigLIP; here any vectors of the data
set are read, and a kind that an item lacks is zeros. Differs: the recurrence has the width D and its feed-forward net too, every map square, as the
paper draws it; sequences are left-aligned, so no mask is carried through the scan, and the original's extra target on padding is left out; Adam's eps
is the library's. Seen items are masked by the protocol, not as in the original, which masks none. An item is its content alone, so items that nobody
has met are answered. Served at any width of `dim` halved down to `smallest` (docs/nested.md).
Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.drop import Dropout
from vitrail.blocks.lru import LRU
from vitrail.blocks.nested import NestedLinear, NestedNorm, halvings
from vitrail.config import NonNegativeFloat, PositiveInt, Rate, Share
from vitrail.data.batches import Sequences
from vitrail.errors import SettingError
from vitrail.systems.base import Can, ContentSettings, Given, Sizes, system
from vitrail.systems.next_item import NextItem


class Block(nn.Module):
    """x + LRU(LN x), then a gated net: x + w2(silu(gate LN x) * w1 LN x), all nested."""

    def __init__(self, widths: tuple[int, ...], dropout: float, inner_dropout: float, r_min: float, r_max: float) -> None:
        super().__init__()
        self.lru, self.norm_1, self.norm_2 = LRU(widths, r_min, r_max), NestedNorm(widths), NestedNorm(widths)
        self.gate, self.w1, self.w2 = NestedLinear(widths), NestedLinear(widths), NestedLinear(widths)
        self.drop, self.inner = Dropout(dropout), Dropout(inner_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) or a prefix of one of the widths -> the same shape"""
        x = x + self.inner(self.lru(self.norm_1(x)))
        normed = self.norm_2(x)
        done: Tensor = x + self.drop(self.w2(F.silu(self.gate(normed)) * self.drop(self.w1(normed))))
        return done


@system("fmrlrec", stage="retrieve", family="multimodal", paper="2409.16627", year=2024, status="works")
class FMRLRec(NextItem):
    """The next item by text and pictures alone, at every width of one training."""

    can: ClassVar[Can] = Can(new_users=True, cold_items=True)
    space: ClassVar[dict[str, Any]] = {"dropout": [0.2, 0.4, 0.6], "inner_dropout": [0.2, 0.4, 0.6], "r_max": [0.1, 0.5, 0.9]}
    toy: ClassVar[dict[str, Any]] = {"dim": 16, "smallest": 8, "inner_dropout": 0.0, "warmup": 0, "batch": 8, "epochs": 25}

    class Config(NextItem.Config, ContentSettings):
        """Settings of fmrlrec."""

        dim: PositiveInt = 1024
        """Width D of item vectors, the widest that is served."""
        smallest: PositiveInt = 8
        """The narrowest width that is trained, where `nested` names none: dim is halved down to it."""
        blocks: PositiveInt = 1
        """Recurrences, each with its gated net."""
        dropout: Rate = 0.6
        """On item vectors and in the gated nets."""
        inner_dropout: Rate = 0.6
        """Behind the recurrences."""
        r_min: Share = 0.0
        """The least size of a decay at the start."""
        r_max: Share = 0.1
        """The largest size of a decay at the start."""
        lr: NonNegativeFloat = 1e-4
        """Learning rate of Adam."""
        weight_decay: NonNegativeFloat = 0.01
        """Decoupled weight decay (AdamW)."""
        schedule: Literal["constant", "linear", "cosine"] = "cosine"
        """How the learning rate falls to 0 over all epochs."""
        warmup: int = 100
        """Steps in which the learning rate rises from 0."""
        clip: NonNegativeFloat = 5.0
        """Largest norm of the gradient; 0: no clipping."""
        batch: PositiveInt = 32
        """Users a step."""
        epochs: PositiveInt = 500
        """Epochs at most."""

    @property
    def widths(self) -> tuple[int, ...]:
        return self.config.nested or halvings(self.config.dim, self.config.smallest)

    def width_weights(self) -> list[float]:
        return [1 / len(self.widths)] * len(self.widths)  # the mean over sizes, where the plain objective sums

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        if not config.vectors:
            raise SettingError('System "fmrlrec" knows items by their content alone: name vectors with --set vectors=[...].')
        if config.target == "cloze" or config.r_min >= config.r_max:
            raise SettingError("fmrlrec reads the past alone (target shifted or prefix), and its r_min lies below r_max.")
        self.register_buffer("content", torch.cat([given.vectors[name].float() for name in config.vectors], 1), persistent=False)
        self.project = nn.Linear(self.content.shape[1], config.dim)
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(self.widths, config.dropout, config.inner_dropout, config.r_min, config.r_max) for _ in range(config.blocks))

    content: Tensor

    def encode(self, batch: Sequences) -> Tensor:
        x = self.drop(self.project(F.embedding(batch.items, self.content)))
        for block in self.blocks:
            x = block(x)
        return x

    def item(self) -> Tensor:
        vectors: Tensor = self.project(self.content)
        return vectors

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        content, maps = sum(sizes.vectors.values()), 8 * config.blocks + 1
        steps = 4 * config.batch * config.length * config.dim * 60 * config.blocks
        return 8 * sizes.items * content + 12 * sizes.items * config.dim + 20 * config.dim * (content + maps * config.dim) + steps
