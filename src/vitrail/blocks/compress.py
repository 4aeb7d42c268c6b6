"""Vectors of codes in less memory than a row a code: hashing, quotient and remainder, low rank, mixed widths, one table for all fields.

Hashing trick: Weinberger et al., ICML 2009. QR: Shi et al., KDD 2020, arXiv:1909.02107. Mixed dimensions: Ginart et al., ISIT 2021, arXiv:1909.11810. Unified
Embedding (feature multiplexing): Coleman et al., NeurIPS 2023, arXiv:2305.12102. B batch, F fields, D width, n values of a field, M rows of a table.

A budget is a share of the numbers that a row a code would take, over all fields together. Fields of at most `SMALL` codes keep their rows: they cost
little. The codes 0 (missing) and 1 (unseen in training) of the others keep theirs too, and these start at 0: an unseen value never shares a known one's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.errors import SettingError

Kind = Literal["full", "hash", "qr", "low_rank", "multi_size", "unified"]
Compose = Literal["multiply", "add"]
PRIME = 2**31 - 1
SMALL = 64
"""Codes up to which a field is stored whole under any budget."""
ALPHAS = np.linspace(0.0, 1.0, 101)
"""Powers that are tried for mixed widths: at 0 all are D, at 1 a width is as small as its field is large."""


def polynomial(*seed: int) -> tuple[int, ...]:
    """Four coefficients below PRIME, a function of `seed` alone on every machine: part of what a table means."""
    return tuple(int(c) for c in np.random.default_rng((2305, *seed)).integers(1, PRIME, size=4))


def hashed(values: Tensor, coefficients: tuple[int, ...], rows: int) -> Tensor:
    """values (...,) int64 in [0, PRIME) -> (...,) in [0, rows): a random cubic polynomial modulo a prime, so that any four values are placed independently.

    Nothing overflows 64 bits and no bits are shifted, so that the same arithmetic runs in exported graphs.
    """
    found = torch.full_like(values, coefficients[0])
    for c in coefficients[1:]:
        found = (found * values + c) % PRIME
    return found % rows


def folded(codes: Tensor, factor: int) -> Tensor:
    """codes (..., F), a tuple each -> (...,) one number below PRIME each"""
    found = codes[..., 0] % PRIME
    for place in range(1, codes.shape[-1]):
        found = (found * factor + codes[..., place]) % PRIME
    return found


class Rows(nn.Module):
    """A table of M rows of width k, and a map (k, D) where k < D. With M = n each value has its row; with fewer, values are hashed into them."""

    def __init__(self, values: int, rows: int, width: int, dim: int, scale: float, seed: int) -> None:
        super().__init__()
        self.rows = min(rows, values)
        self.coefficients = polynomial(seed, 0) if self.rows < values else None
        self.weight = nn.Parameter(torch.empty(self.rows, width).normal_(std=scale))
        self.map = nn.Parameter(torch.empty(width, dim).normal_(std=width**-0.5)) if width < dim else None

    def forward(self, values: Tensor) -> Tensor:
        """values (...,) in [0, n) -> (..., D)"""
        found = F.embedding(values if self.coefficients is None else hashed(values, self.coefficients, self.rows), self.weight)
        return found if self.map is None else found @ self.map


class Quotients(nn.Module):
    """Q[x // r] * R[x mod r], or their sum: the smallest r whose ceil(n / r) + r rows fit into M. With r = 1 it is a plain table.

    Where no r does (M < 2 sqrt(n), about), values are hashed first into as many as fit.
    """

    def __init__(self, values: int, rows: int, dim: int, scale: float, seed: int, compose: Compose = "multiply") -> None:
        super().__init__()
        self.values = values
        while remainders(self.values, rows) is None:
            self.values = max(min(self.values - 1, rows * rows // 4), 1)
        r = remainders(self.values, rows)
        assert r is not None
        self.r, self.compose = r, compose
        self.coefficients = polynomial(seed, 0) if self.values < values else None
        each = scale if r == 1 else scale**0.5 if compose == "multiply" else scale * 0.5**0.5  # what comes out has the deviation `scale`
        self.quotient = nn.Parameter(torch.empty(-(-self.values // r), dim).normal_(std=each))
        self.remainder = nn.Parameter(torch.empty(r, dim).normal_(std=each)) if r > 1 else None

    def forward(self, values: Tensor) -> Tensor:
        """values (...,) in [0, n) -> (..., D)"""
        x = values if self.coefficients is None else hashed(values, self.coefficients, self.values)
        q = F.embedding(torch.div(x, self.r, rounding_mode="floor"), self.quotient)
        if self.remainder is None:
            return q
        r = F.embedding(x % self.r, self.remainder)
        return q * r if self.compose == "multiply" else q + r


def remainders(values: int, rows: int) -> int | None:
    """The smallest r in [1, sqrt(n)] with ceil(n / r) + r <= M rows (r = 1: n <= M); none where there is none."""
    if values <= rows:
        return 1
    candidates = np.arange(2, int(values**0.5) + 2)
    fitting = candidates[-(-values // candidates) + candidates <= rows]
    return int(fitting[0]) if len(fitting) else None


class Pool(nn.Module):
    """The one table (M, D / chunks) that all fields look into."""

    def __init__(self, rows: int, width: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width).normal_(std=scale))


class Multiplexed(nn.Module):
    """A field's rows of a pool: `chunks` look-ups under hash functions of its own, side by side."""

    def __init__(self, pool: Pool, chunks: int, seed: int) -> None:
        super().__init__()
        self.__dict__["pool"] = pool  # whoever made the pool owns its weights
        self.coefficients = [polynomial(seed, chunk) for chunk in range(chunks)]

    def forward(self, values: Tensor) -> Tensor:
        """values (...,) in [0, n) -> (..., D)"""
        weight: Tensor = self.__dict__["pool"].weight
        return torch.cat([F.embedding(hashed(values, c, len(weight)), weight) for c in self.coefficients], dim=-1)


class Store(nn.Module):
    """One field: codes (...,) -> (..., D). Missing and unseen have rows of their own, which start at 0; `values` has the others."""

    def __init__(self, values: nn.Module, dim: int) -> None:
        super().__init__()
        self.values = values
        self.special = nn.Parameter(torch.zeros(2, dim))

    def forward(self, codes: Tensor) -> Tensor:
        codes = codes.to(torch.int64)
        found: Tensor = self.values((codes - 2).clamp(min=0))
        return torch.where((codes < 2)[..., None], F.embedding(codes.clamp(max=1), self.special), found)


@dataclass(frozen=True)
class Storage:
    """How the vectors of fields are stored."""

    kind: Kind = "full"
    budget: float = 1.0
    """share of the numbers that a row a code takes"""
    chunks: int = 1
    """look-ups a value (unified)"""
    compose: Compose = "multiply"
    """of quotient and remainder (qr)"""

    def stores(self, sizes: Sequence[int], dim: int, scale: float) -> tuple[list[Store | None], Pool | None]:
        """For fields of so many codes each their stores, none where a field is stored whole; and the pool they share, if they do.

        Raises SettingError where the budget is too small for the fields, or `chunks` do not divide D.
        """
        large = [place for place, n in enumerate(sizes) if n > SMALL]
        if self.kind == "full" or not large:
            return [None] * len(sizes), None
        values = {place: sizes[place] - 2 for place in large}
        left = self.left(sizes, dim)
        made: dict[int, nn.Module] = {}
        pool = None
        if self.kind == "unified":
            if dim % self.chunks:
                raise SettingError(f"chunks={self.chunks} does not divide the width {dim} of a field: choose a divisor.")
            pool = Pool(left * self.chunks // dim, dim // self.chunks, scale)
            made = {place: Multiplexed(pool, self.chunks, place) for place in large}
        elif self.kind == "multi_size":
            widths, rows = mixed_tables(sizes, large, dim, left)
            made = {place: Rows(values[place], rows[place], widths[place], dim, scale, place) for place in large}
        else:
            for place in large:
                n, numbers = values[place], max(left * values[place] // sum(values.values()), dim)
                if self.kind == "low_rank":
                    rank = min(numbers // (n + dim), dim)
                    made[place] = Rows(n, n if rank else max(numbers - dim, 1), max(rank, 1), dim, scale, place)
                elif self.kind == "qr":
                    made[place] = Quotients(n, numbers // dim, dim, scale, place, self.compose)
                else:
                    made[place] = Rows(n, numbers // dim, dim, dim, scale, place)
        return [Store(made[place], dim) if place in made else None for place in range(len(sizes))], pool

    def left(self, sizes: Sequence[int], dim: int) -> int:
        """Numbers that the values of large fields may take. Raises SettingError where they are fewer than four rows a field."""
        large = sum(n > SMALL for n in sizes)
        fixed = dim * (sum(n for n in sizes if n <= SMALL) + 2 * large)
        left = int(self.budget * dim * sum(sizes)) - fixed
        if left < 4 * dim * large:
            least = (fixed + 4 * dim * large) / (dim * sum(sizes))
            raise SettingError(f"budget={self.budget:g} is too small for these fields, whose small ones are stored whole: give at least {least:.3f}.")
        return left


def mixed_dims(sizes: Sequence[int], dim: int, alpha: float, most: float = 1.0) -> list[int]:
    """Width of each field: most * D * (n / least n) ** -alpha, rounded to a power of 2, from 1 to D."""
    exact = most * dim * (np.asarray(sizes, dtype=np.float64) / min(sizes)) ** -alpha
    return [int(d) for d in np.minimum(2.0 ** np.round(np.log2(np.maximum(exact, 1.0))), dim)]


def mixed_tables(sizes: Sequence[int], large: Sequence[int], dim: int, numbers: int) -> tuple[dict[int, int], dict[int, int]]:
    """place -> width, and place -> rows, of the `large` fields: the widths of the smallest alpha that fit into `numbers`; where even alpha = 1 does not, all
    widths are halved on, and where width 1 does not, rows are hashed."""
    tried = [(alpha, 1.0) for alpha in ALPHAS] + [(1.0, 0.5**halving) for halving in range(1, dim.bit_length())]
    values = {place: sizes[place] - 2 for place in large}
    for alpha, most in tried:
        dims = mixed_dims(sizes, dim, alpha, most)
        widths = {place: dims[place] for place in large}
        if sum(values[place] * k + (k * dim if k < dim else 0) for place, k in widths.items()) <= numbers:
            return widths, values
    share = (numbers - dim * len(large)) / sum(values.values())
    return dict.fromkeys(large, 1), {place: max(int(share * n), 1) for place, n in values.items()}
