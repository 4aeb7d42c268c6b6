"""Text encoders that a system trains: a transformers model, or a small one of its own made from nothing. Letters: B texts, T tokens, D width, V words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.sequence import TransformerStack

SCRATCH = "scratch"
WORDS = re.compile(r"\w+")
SPECIAL = 4
"""Codes that are no words: padding, first, mask, last."""


@runtime_checkable
class Tunable(Protocol):
    """What is asked of an encoder."""

    dim: int
    first: int
    last: int
    mask: int
    pad: int

    def tokenize(self, texts: Sequence[str], length: int) -> list[list[int]]:
        """Codes of the words of each text, at most `length`, without first and last."""
        ...

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids (B, T), mask (B, T) true where a token is -> (B, T, D)"""
        ...

    def words(self) -> Tensor:
        """(V, D) the vectors of words at the input."""
        ...


class Scratch(nn.Module):
    """A small Transformer over hashed words, with weights of its own: for catalogues whose words no model knows, and for trying things out."""

    first, mask, last, pad = 1, 2, 3, 0

    def __init__(self, dim: int, layers: int, length: int, words: int = 4096) -> None:
        super().__init__()
        self.dim = dim
        self.table = nn.Embedding(words + SPECIAL, dim)
        nn.init.normal_(self.table.weight, std=0.1)
        self.body = TransformerStack(dim, layers, 1, 0.1, length=length, inner=4 * dim, norm="post", activation="gelu", causal=False)

    def tokenize(self, texts: Sequence[str], length: int) -> list[list[int]]:
        """Words in lower case, hashed; two of one code are one word to it."""
        size, known = len(self.table.weight) - SPECIAL, {}  # type: ignore[var-annotated]

        def code(word: str) -> int:
            if word not in known:
                known[word] = SPECIAL + int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little") % size
            return int(known[word])

        return [[code(word) for word in WORDS.findall(text.lower())[:length]] for text in texts]

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """As in `Tunable`."""
        found: Tensor = self.body(self.table(ids), mask)
        return found

    def words(self) -> Tensor:
        """As in `Tunable`."""
        return self.table.weight


class Tuned(nn.Module):
    """A transformers model by name or path; "minilm" is the embedded default."""

    def __init__(self, name: str) -> None:
        """Raises ResourceError where it cannot be loaded."""
        from vitrail.content.text import load_text

        super().__init__()
        loaded: Any = load_text(name)
        self.model, self._tokenizer, self.dim = loaded.model, loaded.tokenizer, loaded.dim
        told = loaded.tokenizer
        self.first, self.last = (told.cls_token_id, told.sep_token_id) if told.cls_token_id is not None else (told.bos_token_id or 0, told.eos_token_id or 0)
        self.pad, self.mask = told.pad_token_id or 0, told.mask_token_id if told.mask_token_id is not None else 0

    def tokenize(self, texts: Sequence[str], length: int) -> list[list[int]]:
        """By the model's own tokenizer."""
        if not texts:
            return []
        found: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=length, padding=False)["input_ids"]
        return found

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """As in `Tunable`."""
        found: Tensor = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return found.float()

    def words(self) -> Tensor:
        """As in `Tunable`."""
        weights: Tensor = self.model.get_input_embeddings().weight
        return weights


class WordHead(nn.Module):
    """Tells a hidden word from what stands around it: D -> V, tied to the vectors of words."""

    def __init__(self, dim: int, words: int) -> None:
        super().__init__()
        self.inner, self.norm, self.bias = nn.Linear(dim, dim), nn.LayerNorm(dim), nn.Parameter(torch.zeros(words))

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """hidden (n, D), words (V, D) -> (n, V)"""
        return self.norm(F.gelu(self.inner(hidden))) @ words.T + self.bias  # type: ignore[no-any-return]


def hide_words(ids: Tensor, able: Tensor, mask: int, words: int, share: float) -> tuple[Tensor, Tensor]:
    """ids (B, T) of which those where `able` (B, T) may be hidden -> ids with a `share` of them hidden, and (B, T) which: of ten, eight become `mask`, one
    another word, and one stays. The draw is torch's."""
    chosen = able & (torch.rand(ids.shape, device=ids.device) < share)
    kind = torch.rand(ids.shape, device=ids.device)
    other = torch.randint(words, ids.shape, device=ids.device)
    return torch.where(chosen & (kind < 0.8), mask, torch.where(chosen & (kind >= 0.9), other, ids)), chosen


def collated(rows: Tensor, first: int, last: int, pad: int) -> tuple[Tensor, Tensor]:
    """rows (B, L) of codes with -1 anywhere -> ids (B, T) that begin with `first` and end with `last`, and mask (B, T)."""
    there = rows >= 0
    order = (~there).to(torch.uint8).argsort(dim=1, stable=True)
    lengths = there.sum(1)
    width = int(lengths.max()) if len(rows) else 0
    words = rows.gather(1, order)[:, :width]
    ids = torch.cat([torch.full_like(rows[:, :1], first), words, torch.full_like(rows[:, :1], pad)], 1)
    steps = torch.arange(width + 2, device=rows.device)
    ids = torch.where(steps == lengths[:, None] + 1, last, torch.where(steps > lengths[:, None] + 1, pad, ids))
    return ids, steps < lengths[:, None] + 2


def sizes_of(encoder: str, width: int, layers: int, hidden: float) -> tuple[int, int]:
    """Bytes of an encoder's weights, gradients and moments, and of what training keeps of a token until its gradient is known, as it was measured; `hidden`:
    the share of words that are guessed among all. An encoder that is not made from nothing is taken to be of MiniLM's size."""
    width, layers, words = (width, layers, 4_096) if encoder == SCRATCH else (384, 6, 30_522)
    return 450 * 2**20 * (encoder != SCRATCH), int(132 * layers * width + 6 * hidden * words)
