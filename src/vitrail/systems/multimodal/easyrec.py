"""EasyRec. Ren and Huang, EMNLP 2025, arXiv:2408.08821. No language model writes profiles here: an item's profile is its words, a user's are the words
of `history` training items, drawn anew for each example and never the one that is asked for, which stands for the paper's diversified profiles and
cannot leak. The encoder is MiniLM unless named otherwise (the paper's is RoBERTa over six domains). An epoch has an example an event, not a user. The
negatives of other processes are not gathered. The head is kept when it answers, as in the authors' code; `pooling=mean, head=none` start where the
encoder stands, without a step of training. A history is a user, an item is its words: both may be new. Numbers: none yet."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.loss import info_nce_against
from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt, Share
from vitrail.content.tunable import SCRATCH, Scratch, Tunable, Tuned, WordHead, collated, hide_words, sizes_of
from vitrail.data.batchers import Batcher, PairBatcher
from vitrail.data.batches import Pairs, Sets
from vitrail.data.item_facts import read_texts
from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.systems.base import Can, Given, Sizes, TrainSettings, system
from vitrail.systems.skeletons import Factors

TOGETHER = 256
"""Texts that are encoded at once when it answers."""


@system("easyrec", stage="retrieve", family="multimodal", paper="2408.08821", year=2024, status="works")
class EasyRec(Factors):
    """A text encoder tuned on behaviour, so that the words of what a user had are near the words of what comes."""

    needs = Needs(given=("interactions", "texts"))
    can: ClassVar[Can] = Can(new_users=True, cold_items=True)
    space: ClassVar[dict[str, Any]] = {"lr": {"low": 1e-5, "high": 2e-4, "log": True}, "words": [0.0, 0.1], "encoder": None}
    toy: ClassVar[dict[str, Any]] = {"encoder": SCRATCH, "width": 8, "layers": 1, "length": 8, "history": 3, "pooling": "mean", "lr": 0.02, "epochs": 10}

    class Config(TrainSettings):
        """Settings of easyrec."""

        encoder: str = "minilm"
        """A transformers name or path; scratch: a small Transformer of its own, made from nothing."""
        width: PositiveInt = 64
        """Width D of the encoder made from nothing."""
        layers: PositiveInt = 2
        """Layers of the encoder made from nothing."""
        pooling: Literal["cls", "mean"] = "cls"
        """How the vectors of tokens become one: the first, or their mean."""
        head: Literal["tanh", "none"] = "tanh"
        """A layer with tanh behind the encoder, kept when it answers; or none."""
        length: PositiveInt = 64
        """Tokens that are read of a profile."""
        history: PositiveInt = 10
        """Items whose words make a user's profile: drawn in training, the newest when it answers."""
        temperature: PositiveFloat = 0.05
        """Divides the cosines."""
        words: NonNegativeFloat = 0.1
        """Weight of telling hidden words; 0: none are hidden."""
        hide: Share = 0.15
        """Share of words that are hidden."""
        lr: PositiveFloat = 5e-5
        """Learning rate of Adam."""
        schedule: Literal["constant", "linear", "cosine"] = "linear"
        """How the learning rate falls to 0 over all epochs."""
        batch: PositiveInt = 256
        """Pairs a step."""
        epochs: PositiveInt = 25
        """Epochs at most."""
        metric: str = "recall@20"
        """What is maximised on the validation part."""

    tokens: Tensor
    indptr: Tensor
    seen: Tensor

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        assert given.indptr is not None and given.items is not None
        self.encoder: Tunable = Scratch(config.width, config.layers, config.length + 2) if config.encoder == SCRATCH else Tuned(config.encoder)
        self.head = nn.Linear(self.encoder.dim, self.encoder.dim) if config.head == "tanh" else None
        self.guess = WordHead(self.encoder.dim, len(self.encoder.words())) if config.words else None
        read = self.encoder.tokenize(read_texts({name: values.numpy() for name, values in given.tables.items()}), config.length)
        padded = [torch.tensor(row, dtype=torch.int32) for row in read]
        tokens = nn.utils.rnn.pad_sequence([*padded, torch.zeros(1, dtype=torch.int32)], batch_first=True, padding_value=-1)[:-1]
        self.register_buffer("tokens", tokens, persistent=False)
        self.register_buffer("indptr", given.indptr, persistent=False)
        self.register_buffer("seen", given.items, persistent=False)

    def batcher(self, log: Log, seed: int, rank: int, world: int) -> Batcher:
        return PairBatcher(log, self.config.batch, 1, seed, rank, world)

    def profile(self, items: Tensor, mask: Tensor) -> Tensor:
        """Items (B, H), mask (B, H) -> (B, L) the first words of each, -1 where there is none; L is at most `length`."""
        each = max(1, self.config.length // max(items.shape[1], 1))
        words: Tensor = self.tokens[items, :each].masked_fill(~mask[..., None], -1)
        return words.flatten(1)[:, : self.config.length]

    def read(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """words (B, L) -> ids (B, T) and mask (B, T)"""
        return collated(words.long(), self.encoder.first, self.encoder.last, self.encoder.pad)

    def vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids (B, T), mask (B, T) -> (B, D) of length 1"""
        hidden = self.encoder.hidden(ids, mask)
        pooled = hidden[:, 0] if self.config.pooling == "cls" else (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(pooled if self.head is None else self.head(pooled).tanh(), dim=1)

    def loss(self, batch: Pairs) -> Tensor:
        users, positive = batch.users, batch.items
        lengths = self.indptr[users + 1] - self.indptr[users]
        drawn = (torch.rand(len(users), self.config.history, device=users.device) * lengths[:, None]).long()
        items = self.seen[self.indptr[users][:, None] + drawn]
        asked = self.profile(items, items != positive[:, None])
        width = max(asked.shape[1], self.tokens.shape[1])
        three = [asked, self.tokens[positive], self.tokens[batch.negatives[:, 0]]]
        ids, mask = self.read(torch.cat([F.pad(words, (0, width - words.shape[1]), value=-1) for words in three]))
        u, p, n = self.vectors(ids, mask).chunk(3)
        total = info_nce_against(u, p, n, self.config.temperature)
        if self.guess is None:
            return total
        able = mask & (ids != self.encoder.first) & (ids != self.encoder.last)
        shown, hidden = hide_words(ids, able, self.encoder.mask, len(self.encoder.words()), self.config.hide)
        if not bool(hidden.any()):
            return total
        logits = self.guess(self.encoder.hidden(shown, mask)[hidden], self.encoder.words())
        return total + self.config.words * F.cross_entropy(logits, ids[hidden])

    def encoded(self, words: Tensor) -> Tensor:
        """words (B, L) -> (B, D), in parts; 0 where there are no words"""
        parts = [self.vectors(*self.read(part)) * (part >= 0).any(1, keepdim=True) for part in words.split(TOGETHER)]
        return torch.cat(parts).float() if parts else torch.zeros(0, self.encoder.dim)

    def prepare(self) -> None:
        self._items = self.encoded(self.tokens).detach()

    def _told(self, histories: Sets) -> Tensor:
        newest = histories.to(self._items.device).last(self.config.history)
        return self.profile(newest.items, newest.mask)

    def query_vectors(self, histories: Sets) -> Tensor:
        return self.encoded(self._told(histories))

    def answerable(self, histories: Sets) -> Tensor:
        return (self._told(histories) >= 0).any(1)

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        weights, token = sizes_of(config.encoder, config.width, config.layers, config.hide if config.words else 0.0)
        read = 3 * config.batch * (config.length + 2) * (2 if config.words else 1)
        return weights + read * token + 8 * sizes.items * config.length + 16 * events
