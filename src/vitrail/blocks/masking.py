"""Which features of an item are hidden from a view of it (Yao et al., CIKM 2021, arXiv:2007.12865). Letters: B rows, F features, N items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Masking = Literal["correlated", "random"]


def mutual_information(a: npt.NDArray[np.integer], b: npt.NDArray[np.integer]) -> float:
    """Mutual information of two features in nats: a (N,), b (N,) codes; the entropy where they are one, 0 where they are independent."""
    _, rows = np.unique(a, return_inverse=True)
    _, columns = np.unique(b, return_inverse=True)
    if not len(rows):
        return 0.0
    wide = int(columns.max()) + 1
    joint = np.bincount(rows * wide + columns, minlength=(int(rows.max()) + 1) * wide).reshape(-1, wide) / len(rows)
    expected = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / expected[there])).sum())


def correlations(features: Sequence[npt.NDArray[np.integer]]) -> Tensor:
    """F features, each (N,) codes -> (F, F) their mutual information."""
    count = len(features)
    table = torch.zeros(count, count)
    for a in range(count):
        for b in range(a, count):
            table[a, b] = table[b, a] = mutual_information(features[a], features[b])
    return table


def hidden(rows: int, correlation: Tensor, how: Masking) -> Tensor:
    """(B, F) true where the first view of a row hides a feature; the second hides the others. The draw is torch's.

    `random`: half of the features. `correlated`: a feature drawn uniformly with the floor of F / 2 that tell most of it, so that neither view holds
    what tells the other away.
    """
    count, device = len(correlation), correlation.device
    if how == "random":
        return torch.rand(rows, count, device=device).argsort(1).argsort(1) < (count + 1) // 2
    seeds = torch.randint(count, (rows,), device=device)
    others = correlation.clone().fill_diagonal_(torch.inf)
    together = min(count // 2, max(count - 2, 0))  # something must be left to be told apart by
    near = others.argsort(dim=1, descending=True, stable=True)[:, : together + 1]
    return torch.zeros(rows, count, dtype=torch.bool, device=device).scatter_(1, near[seeds], True)
