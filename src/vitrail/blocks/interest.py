"""What a person wants in view of a target: weights over the history, and the weighted sum. B batch, T time steps, E events, H width.

Padding is told by an explicit mask and costs nothing: scores are computed for the E real events alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.activation import Activation, activation
from vitrail.blocks.drop import Dropout
from vitrail.blocks.interact import Tower, linear

Scorer = Literal["mlp", "dot", "bilinear", "multihead", "mean"]
Weights = Literal["raw", "softmax", "relu"]
INTERVALS = 32
"""Powers of 2 of seconds that are told apart: 2^31 seconds are 68 years."""
HELD = 1 << 18
"""Numbers of a hidden layer that are held at once where one history is scored for many targets: they stay in the cache."""
FAR = -1e30
"""The score of padding under a softmax: its weight is exactly 0, and a row of padding alone stays finite."""


class PairScorer(nn.Module):
    """MLP over [q ; k ; q - k ; q * k] -> a score.

    The first layer is linear in its input, so [q ; k ; q - k ; q * k] is never formed: q is multiplied once a query, k and q * k once an event.
    """

    def __init__(self, width: int, hidden: Sequence[int], act: Activation, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = linear(4 * width, hidden[0])
        self.act = activation(act, hidden[0])
        self.dropout = Dropout(dropout)
        self.rest = Tower(hidden[0], hidden[1:], act, dropout=dropout, out=1)

    def forward(self, query: Tensor, keys: Tensor, rows: Tensor | None = None) -> Tensor:
        """query (B, H), keys (E, H), rows (E,) the query of each key (none: each has equally many, in order) -> (E,)"""
        q, k, difference, product = self.first.weight.chunk(4, dim=1)
        of_query = F.linear(query, q + difference, self.first.bias)
        steps = len(keys) // max(len(query), 1)
        if rows is None and 2 * steps >= keys.shape[1]:
            # k W + (q * k) P = k (W + diag(q) P): a matrix a query, and nothing of the size of the pairs; it pays for long histories
            each = torch.addcmul((k - difference).T, query[:, :, None], product.T)
            hidden = torch.baddbmm(of_query[:, None], keys.view(len(query), steps, -1), each).flatten(0, 1)
        else:
            rows = torch.arange(len(query), device=keys.device).repeat_interleave(steps) if rows is None else rows
            pairs = torch.cat([keys, query.index_select(0, rows) * keys], dim=1)
            hidden = F.linear(pairs, torch.cat([k - difference, product], dim=1)) + of_query.index_select(0, rows)
        return self.rest(self.dropout(self.act(hidden))).squeeze(-1)  # type: ignore[no-any-return]

    def shared(self, query: Tensor, keys: Tensor) -> Tensor:
        """query (B, H), one history keys (T, H) -> (B, T): all that hangs on the keys is worked out once, and the queries go through one product."""
        q, k, difference, product = self.first.weight.chunk(4, dim=1)
        each = torch.addcmul((q + difference).T[:, None], keys.T[:, :, None], product.T[:, None])  # (H, T, C): a key's map of any query
        of_keys = F.linear(keys, k - difference, self.first.bias)
        found = []
        for part in query.split(max(HELD // of_keys.numel(), 1)):
            hidden = torch.addmm(of_keys.flatten(), part, each.flatten(1)).view(len(part) * len(keys), -1)
            found.append(self.rest(self.dropout(self.act(hidden))).view(len(part), len(keys)))
        return torch.cat(found)


class TargetAttention(nn.Module):
    """Attention of a target over a history: DIN's local activation unit and its relatives as slots.

    `scorer`: mlp over [q ; k ; q - k ; q * k]; dot q.k; bilinear q W k; multihead, a dot product a head after projections of q and k; mean, the mean
    of the history whatever the target. `weights`: raw scores (no softmax, so that the length of the sum carries the strength of interest), softmax, or
    relu. `scale` divides scores by sqrt(H) (of a head). `inner` A > 0 (multihead): q, k and values are projected to A, and the sum of values back to H.
    """

    def __init__(
        self,
        width: int,
        scorer: Scorer = "mlp",
        weights: Weights = "raw",
        *,
        hidden: Sequence[int] = (64,),
        act: Activation = "dice",
        dropout: float = 0.0,
        heads: int = 1,
        scale: bool = False,
        inner: int = 0,
    ) -> None:
        """`width` H, or `inner` where it is given, must be a multiple of `heads` (multihead only)."""
        super().__init__()
        self.scorer, self.weights = scorer, weights
        self.heads, self.inner = (heads, inner) if scorer == "multihead" else (1, 0)
        wide = self.inner or width
        self.scale = (wide // self.heads) ** -0.5 if scale else 1.0
        if scorer == "mlp":
            self.score = PairScorer(width, hidden, act, dropout)
        elif scorer == "bilinear":
            self.of_query = nn.Linear(width, width, bias=False)
        elif scorer == "multihead":
            self.of_query, self.of_key = nn.Linear(width, wide, bias=False), nn.Linear(width, wide, bias=False)
        if self.inner:
            self.of_value, self.out = nn.Linear(width, wide, bias=False), nn.Linear(wide, width, bias=False)
            for layer in (self.of_query, self.of_key, self.of_value, self.out):  # as click-through libraries do; torch's own starts make a third of a value
                nn.init.xavier_normal_(layer.weight)

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """query (B, H), keys (B, T, H), mask (B, T) true where an event is -> (B, H); 0 for an empty history."""
        if self.inner:
            return self.folded(query, keys, mask)
        if torch.onnx.is_in_onnx_export():
            return self.padded(query, keys, mask)
        if bool(mask.all()):
            return self.packed(query, keys.flatten(0, 1), mask)
        places = mask.flatten().nonzero().squeeze(1)
        return self.packed(query, keys.flatten(0, 1).index_select(0, places), mask)

    def packed(self, query: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        """The same with the events (E, H) alone, in the order in which `mask` (B, T) has them; with a mask (1, T) they are one history for all queries."""
        if torch.onnx.is_in_onnx_export():  # graphs have no sums by place, and batches of theirs may be without a single event
            return self.padded(query, events.new_zeros((*mask.shape, events.shape[1])).masked_scatter(mask[:, :, None], events), mask)
        if not len(events):
            return torch.zeros_like(query)
        if len(mask) != len(query):
            return self.shared(query, events)
        full = len(events) == mask.numel()
        if full and self.inner:
            return self.folded(query, events.view(*mask.shape, -1), mask)
        rows = mask.nonzero()[:, 0]
        weights = self.weigh(query, events, mask, rows, full)
        values = self.of_value(events) if self.inner else events
        if full and self.heads == 1:
            summed = torch.bmm(weights.view(len(mask), 1, -1), values.view(*mask.shape, -1)).squeeze(1)
        elif full:
            summed = torch.einsum("bth,bthd->bhd", weights.view(*mask.shape, -1), values.view(*mask.shape, self.heads, -1)).flatten(1)
        else:
            weighted = (values.view(len(values), self.heads, -1) * weights[:, :, None]).flatten(1)
            summed = values.new_zeros(len(query), values.shape[1]).index_add(0, rows, weighted)
        return self.out(summed) if self.inner else summed

    def folded(self, query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """`forward` with `inner`: as there is one query a row, its map of keys is taken to the query, and that of values to their sum; neither is made of
        each event."""
        of_query, of_key, of_value = (layer.weight.unflatten(0, (self.heads, -1)) for layer in (self.of_query, self.of_key, self.of_value))  # (heads, d, H)
        onto = torch.einsum("bi,hdi,hdj->bhj", query, of_query, of_key)
        scores = torch.bmm(onto, keys.transpose(1, 2)) * self.scale  # (B, heads, T)
        if self.weights == "softmax":
            weights = torch.softmax(scores.masked_fill(~mask[:, None], FAR), dim=2) * mask[:, None]
        else:
            weights = (torch.relu(scores) if self.weights == "relu" else scores) * mask[:, None]
        return self.out(torch.einsum("bhi,hdi->bhd", torch.bmm(weights, keys), of_value).flatten(1))  # type: ignore[no-any-return]

    def shared(self, query: Tensor, events: Tensor) -> Tensor:
        """The same of many targets (B, H) and one history (T, H) of at least one event: what hangs on the history alone is made once."""
        if self.scorer == "mean":
            return events.mean(0, keepdim=True).expand(len(query), -1)
        values = self.of_value(events) if self.inner else events
        summed = torch.einsum("hbt,thd->bhd", self.shared_weights(query, events), values.view(len(values), self.heads, -1)).flatten(1)
        return self.out(summed) if self.inner else summed

    def shared_weights(self, query: Tensor, events: Tensor) -> Tensor:
        """(heads, B, T) weights of the events of one history (T, H) for targets (B, H); not of `mean`."""
        if self.scorer == "mlp":
            scores = self.score.shared(query, events)[None]
        else:
            q = query if self.scorer == "dot" else self.of_query(query)
            k = self.of_key(events) if self.scorer == "multihead" else events
            scores = q.view(len(q), self.heads, -1).transpose(0, 1) @ k.view(len(k), self.heads, -1).permute(1, 2, 0)
        scores = scores * self.scale if self.scale != 1.0 else scores
        return torch.softmax(scores, dim=2) if self.weights == "softmax" else torch.relu(scores) if self.weights == "relu" else scores

    def padded(self, query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """The same with scores for the padding too, which then weigh nothing."""
        shape = (mask.shape[0], mask.shape[1], self.heads)
        if self.scorer == "mean":
            weights = (mask / mask.sum(1, keepdim=True).clamp(min=1)).to(keys.dtype)[:, :, None]
        else:
            rows = torch.arange(shape[0], device=mask.device)[:, None].expand(mask.shape).flatten()
            scores = self.scores(query, keys.flatten(0, 1), rows, False).view(shape)
            scores = scores * self.scale if self.scale != 1.0 else scores
            if self.weights == "softmax":
                weights = torch.softmax(scores.masked_fill(~mask[:, :, None], FAR), dim=1) * mask[:, :, None]
            else:
                weights = (torch.relu(scores) if self.weights == "relu" else scores) * mask[:, :, None]
        values = self.of_value(keys) if self.inner else keys
        summed = (values.unflatten(2, (self.heads, -1)) * weights[:, :, :, None]).sum(1).flatten(1)
        return self.out(summed) if self.inner else summed

    def weigh(self, query: Tensor, events: Tensor, mask: Tensor, rows: Tensor, full: bool) -> Tensor:
        """(E, heads) weights of the events; `full`: there is no padding."""
        if self.scorer == "mean":
            return (1.0 / mask.sum(1).clamp(min=1)).to(events.dtype)[rows, None]
        scores = self.scores(query, events, rows, full)
        scores = scores * self.scale if self.scale != 1.0 else scores
        if self.weights == "raw":
            return scores
        if self.weights == "relu":
            return torch.relu(scores)
        if full:
            return torch.softmax(scores.view(*mask.shape, -1), dim=1).flatten(0, 1)
        columns = []
        for head in (scores[:, place] for place in range(self.heads)):
            padded = head.new_full(mask.shape, FAR).masked_scatter(mask, head)
            columns.append(torch.softmax(padded, dim=1)[mask])
        return torch.stack(columns, dim=1)

    def scores(self, query: Tensor, events: Tensor, rows: Tensor, full: bool) -> Tensor:
        """(E, heads) of query (B, H) and events (E, H); rows (E,) the query of each event."""
        if self.scorer == "mlp":
            return self.score(query, events, None if full else rows)[:, None]  # type: ignore[no-any-return]
        if self.scorer == "multihead":
            q, k = self.of_query(query).index_select(0, rows), self.of_key(events)
            return (q * k).unflatten(1, (self.heads, -1)).sum(-1)
        q = self.of_query(query) if self.scorer == "bilinear" else query
        return (q.index_select(0, rows) * events).sum(-1, keepdim=True)


def shares(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of scores (B, K) over what `mask` (B, K) has: padding gets exactly 0, and a row of padding alone is all 0."""
    return torch.softmax(scores.masked_fill(~mask, FAR), dim=1) * mask


class RelativeTime(nn.Module):
    """How long ago an event was, seen from the target, as a vector to add: TIN, SIM, DARE.

    `position`: 1 for the newest event, 2 for the one before; `interval`: the logarithm of the seconds between, in powers of 2. 0 is the target itself, and
    the last row an interval that nobody knows.
    """

    def __init__(self, kind: Literal["position", "interval"], rows: int, dim: int, scale: float) -> None:
        """`rows`: positions known beside the target's; those further back share the last (`position` only). Weights start normal(0, `scale`)."""
        super().__init__()
        self.kind, self.rows = kind, rows if kind == "position" else INTERVALS
        self.weight = nn.Parameter(torch.empty(self.rows + 2, dim).normal_(std=scale))
        with torch.no_grad():
            self.weight[-1] = 0.0  # the row of what is not known

    def ids(self, places: Tensor, stops: Tensor, times: Tensor | None, now: Tensor | None) -> Tensor:
        """places (...) of events and stops (...), where their window ends -> (...) rows; times and now (...) microseconds, for intervals"""
        if self.kind == "position":
            return (stops - places).clamp(1, self.rows)
        if times is None or now is None:
            return torch.full_like(places, self.rows + 1)
        return (1 + ((now - times).clamp(min=0) / 1e6 + 1).log2().long()).clamp(1, self.rows)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...) -> (..., D)"""
        return F.embedding(ids, self.weight)
