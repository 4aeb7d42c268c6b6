"""Boosted trees as text and as tensors: LightGBM (Ke et al., NIPS 2017) fits and answers, and a walk by torch alone gives the same sums, for graphs that leave
the house. R rows, C columns, T trees."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vitrail.errors import DataError, ResourceError

Float32 = npt.NDArray[np.float32]
MOST_GROUP = 10_000
"""Rows of a group that LightGBM's ranking objective takes."""


def library() -> Any:
    """The module lightgbm. Raises ResourceError where it is not installed."""
    try:
        import lightgbm
    except ImportError:
        raise ResourceError('Boosted trees need lightgbm, which is not installed: pip install "vitrail[gbdt]".') from None
    return lightgbm


def grow(
    params: dict[str, Any], rounds: int, patience: int, columns: Sequence[str], categorical: Sequence[int], train: tuple[Any, ...],
    valid: tuple[Any, ...] | None, measure: Callable[[npt.NDArray[np.float64]], float],
) -> str:  # fmt: skip
    """The text of the trees grown on `train` = (X (R, C), labels (R,), weights (R,) or none, sizes of groups or none).

    With `valid` of the same form, growth stops after `patience` rounds (0: never) without a better `measure` of its raw scores, and the best round is kept.
    """
    lightgbm = library()

    def data(part: tuple[Any, ...], of: Any = None) -> Any:
        X, y, weights, sizes = part
        return lightgbm.Dataset(
            X, y, weight=weights, group=sizes, reference=of, feature_name=plain_names(columns), categorical_feature=list(categorical), free_raw_data=True
        )

    told = {**params, "metric": "None", "deterministic": True, "force_row_wise": True, "num_threads": torch.get_num_threads(), "verbosity": -1}
    first = data(train)
    if valid is None or not patience:
        found = lightgbm.train(told, first, num_boost_round=rounds)
        return str(found.model_to_string())
    stop = lightgbm.early_stopping(patience, verbose=False)
    booster = lightgbm.train(
        told, first, num_boost_round=rounds, valid_sets=[data(valid, first)], callbacks=[stop], feval=lambda scores, _: ("chosen", measure(scores), True)
    )
    return str(booster.model_to_string(num_iteration=booster.best_iteration))


def plain_names(columns: Sequence[str]) -> list[str]:
    """Names that the library accepts, each once."""
    found: list[str] = []
    for place, name in enumerate(columns):
        plain = re.sub(r"\W+", "_", name)
        found.append(plain if plain not in found else f"{plain}_{place}")
    return found


def groups(users: npt.NDArray[np.integer], stops: npt.NDArray[np.integer], moments: npt.NDArray[np.integer] | None, seed: int) -> tuple[Any, Any]:
    """What one person was shown at one moment: (R,) an order that brings groups together, and their sizes.

    Rows of a group come in a random order: the library ranks equal scores by it, and a success that stands first would be found by that. Raises DataError
    where a group has more rows than the library takes.
    """
    when = stops if moments is None else moments
    order = np.lexsort([np.random.default_rng(seed).random(len(users)), when, stops, users])
    keys = np.stack([users[order], stops[order], when[order]])
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (keys[:, 1:] != keys[:, :-1]).any(0)
    sizes = np.diff(np.append(np.flatnonzero(fresh), len(order)))
    if sizes.max(initial=0) > MOST_GROUP:
        raise DataError(f"Somebody was shown {sizes.max():,} items at one moment, and lambdarank takes {MOST_GROUP:,}: use objective=binary.")
    return order, sizes


def as_text(buffer: Tensor) -> str:
    """The text of a (bytes,) uint8 tensor."""
    return bytes(buffer.cpu().numpy()).decode()


def as_buffer(text: str) -> Tensor:
    """(bytes,) uint8: text where tensors are kept."""
    return torch.from_numpy(np.frombuffer(text.encode(), dtype=np.uint8).copy())


class Walk(nn.Module):
    """The trees of a text as tensors: every row goes down all trees at once, as many steps as the deepest has."""

    def __init__(self, text: str) -> None:
        """Raises ValueError where a tree has what this walk lacks (linear leaves)."""
        super().__init__()
        trees = [_tree(block) for block in text.split("\nTree=")[1:]]
        width = max(len(tree["left"]) for tree in trees)
        leaves = max(len(tree["leaf"]) for tree in trees)
        codes = max(int(tree["allowed"].shape[1]) for tree in trees)
        shape, n = (len(trees), width), len(trees)
        tables: dict[str, npt.NDArray[Any]] = {
            "column": np.zeros(shape, np.int64), "threshold": np.zeros(shape, np.float64), "left": np.full(shape, -1), "right": np.full(shape, -1),
            "category": np.zeros(shape, bool), "missing": np.zeros(shape, bool), "zero": np.zeros(shape, bool), "default": np.zeros(shape, bool),
            "leaf": np.zeros((n, leaves), np.float64), "allowed": np.zeros((n, width, codes), bool),
        }  # fmt: skip
        for place, tree in enumerate(trees):
            for name, values in tree.items():
                if name == "allowed":
                    tables[name][place, : values.shape[0], : values.shape[1]] = values
                else:
                    tables[name][place, : len(values)] = values
        self.depth = max(_depth(tree["left"], tree["right"]) for tree in trees)
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(table.reshape(-1, codes) if name == "allowed" else table.reshape(-1)), persistent=False)
        self.register_buffer("starts", torch.arange(n) * width, persistent=False)
        self.register_buffer("leaves", torch.arange(n) * leaves, persistent=False)

    def forward(self, X: Tensor) -> Tensor:
        """X (R, C) with NaN where missing -> (R,) sums of leaves"""
        of = self.get_buffer
        node = torch.zeros(X.shape[0], len(of("starts")), dtype=torch.int64, device=X.device)
        for _ in range(self.depth):
            at = of("starts") + node.clamp(min=0)
            x = X.gather(1, of("column")[at]).double()
            lost = x.isnan()
            known = torch.where(lost, 0.0, x)
            # runtimes choose between numbers, not between truths
            nothing = (of("missing")[at] & lost) | (of("zero")[at] & (known.abs() <= 1e-35))
            left = (nothing & of("default")[at]) | (~nothing & (known <= of("threshold")[at]))
            code = known.clamp(0, of("allowed").shape[1] - 1).long()
            member = of("allowed").flatten()[at * of("allowed").shape[1] + code] & ~lost & (known == code) & (known >= 0)
            kind = of("category")[at]
            node = torch.where(node < 0, node, torch.where((kind & member) | (~kind & left), of("left")[at], of("right")[at]))
        return of("leaf")[of("leaves") - node - 1].sum(1)


def _tree(block: str) -> dict[str, npt.NDArray[Any]]:
    """The tables of one tree; children below 0 are leaves: -1 - place."""
    lines = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    if lines.get("is_linear", "0") != "0":
        raise ValueError("trees with linear leaves")

    def of(name: str, kind: Any) -> npt.NDArray[Any]:
        return np.array(lines.get(name, "").split(), dtype=kind)

    if not lines.get("split_feature"):  # one leaf: both ways lead to it
        none = np.zeros(1, dtype=bool)
        leaf = np.full(1, -1)
        return {"column": np.zeros(1, np.int64), "threshold": np.zeros(1), "left": leaf, "right": leaf, "category": none, "missing": none, "zero": none,
                "default": none, "leaf": of("leaf_value", np.float64), "allowed": np.zeros((1, 1), dtype=bool)}  # fmt: skip
    kinds, thresholds = of("decision_type", np.int64), of("threshold", np.float64)
    category = (kinds & 1) > 0
    bounds, words = of("cat_boundaries", np.int64), of("cat_threshold", np.uint64)
    sets = [words[a:b] for a, b in pairwise(bounds)]
    allowed = np.zeros((len(kinds), 32 * max((len(s) for s in sets), default=0) + 1), dtype=bool)
    for node in np.flatnonzero(category):
        bits = np.unpackbits(sets[int(thresholds[node])].astype("<u4").view(np.uint8), bitorder="little")
        allowed[node, : len(bits)] = bits
    handling = (kinds >> 2) & 3  # 0 nothing is missing, 1 zero is, 2 NaN is
    return {"column": of("split_feature", np.int64), "threshold": thresholds, "left": of("left_child", np.int64), "right": of("right_child", np.int64),
            "category": category, "missing": handling == 2, "zero": handling == 1, "default": (kinds & 2) > 0, "leaf": of("leaf_value", np.float64),
            "allowed": allowed}  # fmt: skip


def _depth(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> int:
    """Steps from the root to the farthest leaf."""
    steps, front = 0, np.zeros(1, dtype=np.int64)
    while len(front):
        steps, front = steps + 1, np.concatenate([left[front], right[front]])
        front = front[front >= 0]
    return steps
