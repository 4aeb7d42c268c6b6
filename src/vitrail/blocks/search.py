"""Search in a long history, before attention: the few events that matter for a target. SIM (CIKM 2020), ETA (2108.04468), SDIM (CIKM 2022), MUSE (2512.07216).

What a target thinks of an item is worked out once an item, not once an event: relevances are (B, n) over the n distinct items of a batch, and events read them
from there. B rows, W windows, T time steps, E events, n distinct items, K events chosen, H width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from vitrail.data.batches import Windows

Search = Literal["hard", "dot", "cosine", "lsh"]
CHUNK = 1 << 22
"""Scores held at once."""
NEVER = float("-inf")
"""The relevance of what is not to be chosen."""


class TwoStageSearch(nn.Module):
    """The first stage: the `top` most relevant events of each row's window; of equally relevant ones the newest, so that nothing hangs on the batch.

    `how`: hard, events of the target's category; dot, the largest inner products; cosine, the largest cosines, items without a vector left out; lsh, the
    smallest Hamming distances of `bits` signs of random projections (ETA). No gradient passes.
    """

    def __init__(self, how: Search, top: int, width: int = 0, bits: int = 32) -> None:
        """`width` H of what is hashed (lsh only)."""
        super().__init__()
        self.how, self.top = how, top
        if how == "lsh":
            self.register_buffer("planes", torch.randn(width, bits))

    @torch.no_grad()
    def relevance(self, query: Tensor, keys: Tensor) -> Tensor:
        """query (B, H) and keys (n, H), or categories (B,) and (n,) where `how` is hard -> (B, n)"""
        if self.how == "hard":
            same = query[:, None] == keys
            return torch.zeros(same.shape, device=keys.device).masked_fill_(~same, NEVER)
        if self.how == "cosine":
            cosines = F.normalize(query, dim=1) @ F.normalize(keys, dim=1).T
            return cosines.masked_fill_((keys == 0).all(1), NEVER)
        if self.how == "lsh":
            query, keys = (signs(x, self.get_buffer("planes")) for x in (query, keys))
        return query @ keys.T  # of signs: bits - 2 x the Hamming distance

    def forward(self, query: Tensor, keys: Tensor, items: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
        """items (E,) the row of `keys` of each event -> places among the events (B, K) and the mask of those that are there (B, K)."""
        return best(self.relevance(query, keys), items, windows, self.top, whole=self.how in ("hard", "lsh"))


@torch.no_grad()
def best(
    relevance: Tensor, items: Tensor, windows: Windows, top: int, bias: Tensor | None = None, *, whole: bool = False
) -> tuple[Tensor, Tensor]:
    """The `top` events of each row's window by relevance (B, n) of their items (E,), plus `bias` (W, T) of their places: places (B, K), mask (B, K).

    K = min(top, T). What has relevance -inf is never chosen; of equals the newest are. `whole`: relevances are whole numbers, up to 2^24 / T, so that
    recency is told in the same number.
    """
    places, there = windows.places()
    T, relevance = there.shape[1], relevance.detach().float()
    recency = torch.arange(T, device=items.device, dtype=torch.float32).expand(there.shape)
    told = recency if whole else torch.zeros_like(recency) if bias is None else bias.float()
    plain = not whole and bias is None and bool(there.all())
    told, at = told.masked_fill(~there, NEVER), items[places]
    chosen, masks = [places.new_zeros(0, min(top, T))], [there.new_zeros(0, min(top, T))]
    step = max(CHUNK // T, 1)
    for start in range(0, len(relevance), step):
        of = windows.of[start : start + step]
        scores = _of_events(relevance[start : start + step], at, of)
        if not plain:
            scores = torch.add(told if len(told) == 1 else told[of], scores, alpha=T if whole else 1)
        found, steps = scores.topk(min(top, T), dim=1)
        if not whole:
            edge = found[:, -1:]
            tied = ((scores == edge).sum(1) > (found == edge).sum(1)) & (edge[:, 0] > NEVER)
            if bool(tied.any()):  # recency decides, as a number that is less than any difference between others
                exact = scores[tied].double()
                least = torch.finfo(torch.float32).eps * exact.masked_fill(exact == NEVER, 0.0).abs().amax(1, keepdim=True).clamp(min=1e-30) / (8 * T)
                steps[tied] = (exact + recency[:1] * least).topk(min(top, T), dim=1).indices
        chosen.append(places[of[:, None], steps])
        masks.append(found > NEVER)
    mask = torch.cat(masks)
    return torch.cat(chosen).masked_fill(~mask, 0), mask


def _of_events(relevance: Tensor, at: Tensor, of: Tensor) -> Tensor:
    """relevance (B, n), at (W, T) items of events, of (B,) windows -> (B, T)"""
    if len(at) > 1:
        return relevance.gather(1, at[of])
    first = int(at[0, 0])  # one window, whose events mostly stand in a row (LongRanker.look)
    if torch.equal(at[0], torch.arange(first, first + at.shape[1], device=at.device)):
        return relevance[:, first : first + at.shape[1]]
    return relevance.index_select(1, at[0])


def signs(x: Tensor, planes: Tensor) -> Tensor:
    """x (..., H), planes (H, bits) -> (..., bits) of -1 and 1: on which side of each plane it lies."""
    return (x @ planes >= 0).to(x.dtype) * 2 - 1


def multiplicities(items: Tensor, windows: Windows, n: int) -> Tensor:
    """items (E,) the distinct item of each event -> (W, n) how often each window has each of n items."""
    places, there = windows.places()
    counts = torch.zeros(len(there), n, device=items.device)
    return counts.scatter_add_(1, items[places], there.float())


class BucketSums(nn.Module):
    """SDIM: the sum of the events in the target's bucket, the mean over `hashes` of `bits` signs each; no event is chosen, none is left out.

    An event at the angle a has the weight (1 - a / pi)^bits in the mean of many hashes. The sums of all buckets are made once a window, so that a target
    costs the same whatever the length of the history. `normalise` gives each hash's sum length 1, as the paper does. bits = 0: sum pooling.
    """

    def __init__(self, width: int, hashes: int = 2, bits: int = 4, *, normalise: bool = True) -> None:
        super().__init__()
        self.hashes, self.bits, self.normalise = hashes, bits, normalise
        self.register_buffer("planes", torch.randn(width, hashes * bits))

    @torch.no_grad()
    def buckets(self, x: Tensor) -> Tensor:
        """x (n, H) -> (n, hashes) bucket of each"""
        told = (x @ self.get_buffer("planes") >= 0).view(len(x), self.hashes, self.bits)
        return (told * (1 << torch.arange(self.bits, device=x.device))).sum(-1)

    def table(self, values: Tensor, counts: Tensor) -> Tensor:
        """values (n, H), counts (W, n) -> (W, hashes, 2^bits, H) the sum of the events in each bucket"""
        sums = []
        for bucket in self.buckets(values).unbind(1):
            order = bucket.argsort(stable=True)
            sizes = torch.bincount(bucket, minlength=1 << self.bits).tolist()
            parts = zip(counts[:, order].split(sizes, dim=1), values[order].split(sizes), strict=True)
            sums.append(torch.stack([share @ of for share, of in parts], dim=1))
        return torch.stack(sums, dim=1)

    def forward(self, query: Tensor, values: Tensor, counts: Tensor, of: Tensor) -> Tensor:
        """query (B, H), values (n, H), counts (W, n), of (B,) the window of each row -> (B, H)"""
        table, bucket = self.table(values, counts), self.buckets(query)
        found = table[of[:, None], torch.arange(self.hashes, device=of.device), bucket]
        return (F.normalize(found, dim=-1) if self.normalise else found).mean(1)


class Histogram(nn.Module):
    """SimTier of MUSE: log(1 + how many cosines lie in each bin of width .1), times a weight a bin."""

    width = 22

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(self.width))

    def forward(self, cosines: Tensor, mask: Tensor) -> Tensor:
        """cosines (B, K), mask (B, K) -> (B, 22)"""
        bins = (torch.ceil(10 * cosines.clamp(-1, 1)) + 10).long()
        counts = cosines.new_zeros(len(cosines), self.width).scatter_add(1, bins, mask.to(cosines.dtype))
        return torch.log1p(counts) * self.weight
