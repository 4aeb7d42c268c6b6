"""Search in a long history, before attention: the few events that matter for a target. SIM (CIKM 2020), ETA (2108.04468), SDIM (CIKM 2022), MUSE (2512.07216).

What a target thinks of an item is worked out once an item, not once an event: relevances are (B, n) over the n distinct items of a batch, and events read them
from there. B rows, W windows, T time steps, E events, n distinct items, K events chosen, H width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from vitrail.data.batches import Windows

Search = Literal["hard", "dot", "cosine", "lsh"]
CHUNK = 1 << 20
"""Scores held at once: what is written is still in the cache when it is read."""
LITTLE = 1 << 18
"""The same where they are read from a larger table."""
NEVER = float("-inf")
"""The relevance of what is not to be chosen."""
STRIDE, SPARE = 8, 16
"""Of long rows the largest of each so many scores is looked at first; and how many more of these are taken than are wanted, in case some are equal."""


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

    def coded(self, x: Tensor) -> Tensor:
        """x (..., H) -> what inner products are taken of"""
        if self.how == "lsh":
            return signs(x, self.get_buffer("planes"))  # their product is bits - 2 x the Hamming distance
        return F.normalize(x, dim=1) if self.how == "cosine" else x

    @torch.no_grad()
    def relevance(self, query: Tensor, keys: Tensor) -> Tensor:
        """query (B, H) and keys (n, H), or categories (B,) and (n,) where `how` is hard -> (B, n)"""
        if self.how == "hard":
            same = query[:, None] == keys
            return torch.zeros(same.shape, device=keys.device).masked_fill_(~same, NEVER)
        found = self.coded(query) @ self.coded(keys).T
        return found.masked_fill_((keys == 0).all(1), NEVER) if self.how == "cosine" else found

    @torch.no_grad()
    def forward(self, query: Tensor, keys: Tensor, items: Tensor, windows: Windows, window: slice | None = None) -> tuple[Tensor, Tensor]:
        """items (E,) the row of `keys` of each event -> places among the events (B, K) and the mask of those that are there (B, K). `window`: there is one,
        and its events are these rows of `keys`."""
        if self.how == "hard" and not torch.onnx.is_in_onnx_export():
            return newest_of(query, keys[items], windows, self.top)
        whole = self.how in ("hard", "lsh")
        if window is None:
            return best(self.relevance(query, keys), items, windows, self.top, whole=whole)
        keys, T = keys[window], window.stop - window.start
        bias = torch.arange(T, dtype=torch.float32, device=keys.device) if whole else torch.zeros(T, device=keys.device)
        if self.how == "cosine":
            bias = bias.masked_fill_((keys == 0).all(1), NEVER)
        coded, onto = self.coded(query).float(), self.coded(keys).float().T
        found, places = nearest(lambda rows: torch.addmm(bias, coded[rows], onto, alpha=T if whole else 1), len(query), T, self.top, distinct=whole)
        return places.masked_fill_(found == NEVER, 0), found > NEVER


@torch.no_grad()
def nearest(
    scores: Callable[[slice], Tensor], n: int, steps: int, top: int, *, distinct: bool = False, held: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """The `top` of T = `steps` events by `scores` of some of `n` rows (b, T), made a part at a time: what they are (n, K) and which (n, K), K = min(top, T).
    Of equals the newest, as of `best`; `distinct`: there are no equals but those at -inf; `held`: scores at once."""
    size = max(held // max(steps, 1), 1)
    parts = [newest_top(scores(slice(start, min(start + size, n))), min(top, steps), distinct=distinct) for start in range(0, max(n, 1), size)]
    found, places = zip(*parts, strict=True)
    return torch.cat(found), torch.cat(places)


@torch.no_grad()
def best(
    relevance: Tensor, items: Tensor, windows: Windows, top: int, bias: Tensor | None = None, *, whole: bool = False
) -> tuple[Tensor, Tensor]:
    """The `top` events of each row's window by relevance (B, n) of their items (E,), plus `bias` (W, T) of their places: places (B, K), mask (B, K).

    K = min(top, T). What has relevance -inf is never chosen; of equals the newest are. `whole`: relevances are whole numbers, up to 2^24 / T, so that
    recency is told in the same number.
    """
    places, there = windows.places()
    if torch.onnx.is_in_onnx_export():
        return _graph_of_best(relevance, items[places], windows, top, bias, places, there)
    T, relevance = there.shape[1], relevance.detach().float()
    recency = torch.arange(T, device=items.device, dtype=torch.float32).expand(there.shape)
    told = recency if whole else torch.zeros_like(recency) if bias is None else bias.float()
    plain = not whole and bias is None and bool(there.all())
    told, at = told.masked_fill(~there, NEVER), items[places]

    def scores(rows: slice) -> Tensor:
        of = windows.of[rows]
        found = _of_events(relevance[rows], at, of)
        return found if plain else torch.add(told if len(told) == 1 else told[of], found, alpha=T if whole else 1)

    found, steps = nearest(scores, len(relevance), T, top, distinct=whole)
    mask = found > NEVER
    return places[windows.of[:, None], steps].masked_fill(~mask, 0), mask


def _graph_of_best(
    relevance: Tensor, at: Tensor, windows: Windows, top: int, bias: Tensor | None, places: Tensor, there: Tensor
) -> tuple[Tensor, Tensor]:
    """`best` in operators that graphs have, for K = `top`: of equals TopK takes those that stand first, so that the newest are put there."""
    scores = relevance.gather(1, at[windows.of])
    scores = (scores if bias is None else scores + bias[windows.of]).masked_fill(~there[windows.of], NEVER)
    found, steps = F.pad(scores.flip(1), (0, top), value=NEVER).topk(top, dim=1)
    mask = found > NEVER
    return places[windows.of].gather(1, (at.shape[1] - 1 - steps).clamp(min=0)).masked_fill(~mask, 0), mask


def newest_top(scores: Tensor, top: int, *, distinct: bool = False) -> tuple[Tensor, Tensor]:
    """The `top` largest of scores (b, T), at most T: what they are and which (b, top); of equals those that stand last, unless all are `distinct`."""
    b, T = scores.shape
    width = T // STRIDE
    if width <= 2 * (top + SPARE):
        return _last_top(scores, None, top, distinct)
    # a score that is among the largest has, among the largest of its stride, one of the largest
    highest = scores[:, : width * STRIDE].unflatten(1, (STRIDE, width)).amax(1)
    tops, which = highest.topk(top + SPARE, dim=1)
    starts = torch.arange(0, width * STRIDE, width, device=scores.device)
    rest = torch.arange(width * STRIDE, T, device=scores.device).expand(b, -1)
    columns = torch.cat([(starts[:, None] + which[:, None]).flatten(1), rest], dim=1)
    found, places = _last_top(scores.gather(1, columns), columns, top, distinct)
    unsure = (tops[:, top - 1] == tops[:, -1]) & (tops[:, -1] > NEVER)  # so many equals that some may stand where nobody looked
    if not distinct and bool(unsure.any()):
        found[unsure], places[unsure] = _last_top(scores[unsure], None, top, distinct)
    return found, places


def _last_top(scores: Tensor, columns: Tensor | None, top: int, distinct: bool) -> tuple[Tensor, Tensor]:
    """`newest_top` of scores (b, C) that stand at `columns` (b, C); none: in order."""
    found, places = scores.topk(top, dim=1)
    edge = found[:, -1:]
    if not distinct and top and bool((tied := ((scores == edge).sum(1) > (found == edge).sum(1)) & (edge[:, 0] > NEVER)).any()):
        bits = (scores[tied] + 0.0).view(torch.int32)  # 0 and -0 are equal
        ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()  # whole numbers in the order of the scores
        recency = torch.arange(scores.shape[1], device=scores.device) if columns is None else columns[tied]
        places[tied] = ((ordered << 32) + recency).topk(top, dim=1).indices
    return found, places if columns is None else columns.gather(1, places)


@torch.no_grad()
def newest_of(asked: Tensor, given: Tensor, windows: Windows, top: int) -> tuple[Tensor, Tensor]:
    """The newest `top` events of each row's window whose category, `given` (E,), is the row's, `asked` (B,): places (B, K), mask (B, K); K = min(top, T),
    T the longest window. Events are sorted by category once, and no row looks at all of them."""
    E = len(given)
    keys, order = (given.long() * (E + 1) + torch.arange(E, device=given.device)).sort()
    row = asked.long() * (E + 1)
    low, high = (torch.searchsorted(keys, row + ends[windows.of]) for ends in (windows.starts, windows.stops))
    K = min(top, max(int(windows.lengths.max()) if len(windows.starts) else 0, 1))
    steps = high[:, None] - 1 - torch.arange(K, device=given.device)
    mask = steps >= low[:, None]
    places = order[steps.clamp(min=0)] if E else torch.zeros_like(steps)
    return places.masked_fill(~mask, 0), mask


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
    counts = torch.zeros(there.shape[0], n, device=items.device)
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
        told = (x @ self.get_buffer("planes") >= 0).view(x.shape[0], self.hashes, self.bits)
        return (told * (1 << torch.arange(self.bits, device=x.device))).sum(-1)

    def table(self, values: Tensor, counts: Tensor) -> Tensor:
        """values (n, H), counts (W, n) -> (W, hashes, 2^bits, H) the sum of the events in each bucket"""
        sums = []
        for bucket in self.buckets(values).unbind(1):
            if torch.onnx.is_in_onnx_export():  # how many events a bucket has differs from batch to batch
                own = bucket == torch.arange(1 << self.bits)[:, None]
                sums.append((counts[:, None] * own) @ values)
                continue
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
        counts = cosines.new_zeros(cosines.shape[0], self.width).scatter_add(1, bins, mask.to(cosines.dtype))
        return torch.log1p(counts) * self.weight
