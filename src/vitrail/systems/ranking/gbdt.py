"""Boosted trees over the fields of impressions: LightGBM (Ke et al., NIPS 2017), on the log loss or as LambdaMART (Burges, MSR-TR-2010-82). Columns: numbers
(of the past, of retrieval, of items and users) as one of 255 buckets; categories and lists of few values; how often the item is in the history; of content
vectors the largest, the mean and the newest cosine of the item to the history. Ids are no columns. A group of lambdarank is what one person was shown at one
moment. Differs from the library's early stopping: rounds are chosen by the house's AUC or GAUC, since its NDCG counts a group without a success as 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from vitrail.blocks import trees
from vitrail.blocks.modality import nearness
from vitrail.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from vitrail.data.batchers_rows import gather
from vitrail.data.batches import Impressions
from vitrail.data.fields import UNSEEN
from vitrail.data.impressions import Rows
from vitrail.errors import unknown
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.ranker import ROWS, Ranker, RowSettings


@system("lightgbm", stage="rank", family="ranking", year=2017, status="works")
class LightGBM(Ranker):
    """Boosted trees over what is known of the item, the person and the moment."""

    trained = False
    space = {"lr": {"low": 0.01, "high": 0.2, "log": True}, "leaves": [15, 31, 63, 127], "least": [20, 50, 200], "columns": {"low": 0.4, "high": 1.0}}
    toy = {"least": 2, "leaves": 4, "rounds": 20, "columns": 1.0, "lr": 0.3}

    class Config(RowSettings):
        """Settings of lightgbm."""

        vectors: tuple[str, ...] = ()
        """Content vectors of items whose cosines to the history become columns."""
        objective: Literal["binary", "lambdarank"] = "binary"
        """The log loss of rows, or LambdaMART's pairs inside what was shown together."""
        buckets: int = 255
        """Buckets of numbers, by quantiles of the training rows."""
        most_values: PositiveInt = 64
        """Values up to which a category or a list has columns."""
        rounds: PositiveInt = 2000
        """Trees at most."""
        patience: NonNegativeInt = 100
        """Rounds without improvement on the validation part before growth stops; 0: never."""
        lr: PositiveFloat = 0.05
        """Shrinkage of each tree."""
        leaves: Annotated[int, Field(ge=2)] = 63
        """Leaves of a tree at most."""
        least: PositiveInt = 50
        """Rows of a leaf at least."""
        l2: NonNegativeFloat = 0.0
        """On the values of leaves."""
        columns: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
        """Share of the columns that a tree may split on."""
        rising: list[str] = []
        """Columns with which the score may only rise, as `retrieval score`."""
        truncation: PositiveInt = 30
        """Pairs count where the better placed row is above this rank (lambdarank)."""
        metric: Literal["gauc", "auc"] = "gauc"
        """What is maximised on the validation part."""

    def embed(self, config: Any, given: Given) -> None:
        self.content = {name: (vectors, given.masks[name]) for name, vectors in given.content(config.vectors)[0].items()}

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        trees.library()
        self.register_buffer("text", torch.zeros(0, dtype=torch.uint8))
        single = [f for f in self.spec.fields if f.kind != "categories"]
        self.kept = [place for place, f in enumerate(single) if f.kind == "number" or (f.kind == "category" and f.codes - 2 <= config.most_values)]
        self.names = [single[place].name for place in self.kept]
        self.categorical = [place for place, of in enumerate(self.kept) if single[of].kind == "category"]
        self.lists = [f for f in self.spec.fields if f.kind == "categories" and f.codes - 2 <= config.most_values]
        self.names += [f"{f.name}: {code}" for f in self.lists for code in range(2, f.codes)] + ["times in history"]
        self.names += [f"{name}: {what}" for name in self.content for what in ("nearest", "mean", "newest")]
        if lost := [name for name in config.rising if name not in self.names]:
            raise unknown("column", lost[0], self.names)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.text = tensors["text"]
        self.load_state_dict(tensors)

    def matrix(self, batch: Impressions) -> Tensor:
        """(B, C) float32 columns, NaN where a value is missing or was never seen in training."""
        catalogue = self.source.catalogue
        of_items, of_users = (torch.from_numpy(table)[codes].long() for table, codes in ((catalogue.items, batch.items), (catalogue.users, batch.users)))
        codes = torch.cat([of_items, of_users, batch.fields], dim=1)[:, self.kept]
        parts = [torch.where(codes > UNSEEN, codes.float(), torch.nan)]
        for f in self.lists:
            values = torch.from_numpy(catalogue.lists[f.name])[batch.items]
            there = (values[:, :, None] == torch.arange(2, f.codes, dtype=values.dtype)).any(1).float()
            parts.append(torch.where((values > UNSEEN).any(1, keepdim=True), there, torch.nan))
        parts.append(((batch.history == batch.items[:, None]) & batch.mask).sum(1, keepdim=True).float())
        return torch.cat([*parts, *(nearness(vectors, has, batch.items, batch.history, batch.mask) for vectors, has in self.content.values())], dim=1)

    def learn(self, log: Rows, valid: Rows | None = None, measure: Callable[..., float] | None = None) -> int:  # type: ignore[override]
        c, seed = self.config, int(torch.initial_seed() % 2**31)
        params = {
            "objective": c.objective, "learning_rate": c.lr, "num_leaves": c.leaves, "min_data_in_leaf": c.least, "lambda_l2": c.l2,
            "feature_fraction": c.columns, "seed": seed, "lambdarank_truncation_level": c.truncation,
            **({"monotone_constraints": [int(name in c.rising) for name in self.names]} if c.rising else {}),
        }  # fmt: skip
        train, _ = self._part(log, seed)
        chosen, order = (None, np.empty(0, dtype=np.int64)) if valid is None else self._part(valid, seed)

        def of_scores(scores: Any) -> float:
            assert valid is not None and measure is not None
            more = (valid.weights[order],) if c.position == "weight" and valid.weights is not None else ()
            return measure(valid.labels[order] > 0.5, scores, valid.users[order], *more)

        text = trees.grow(params, c.rounds, c.patience, self.names, self.categorical, train, chosen, of_scores)
        self.text = trees.as_buffer(text)
        return text.count("\nTree=")

    def _part(self, rows: Rows, seed: int) -> tuple[tuple[Any, ...], Any]:
        """What the library takes of `rows`, and the order it has them in."""
        grouped = self.config.objective == "lambdarank"
        order, sizes = trees.groups(rows.users, rows.stops, rows.times, seed) if grouped else (np.arange(len(rows)), None)
        found = [self.matrix(gather(rows, order[start : start + ROWS], self.config.length)).numpy() for start in range(0, len(rows), ROWS)]
        weights = None if rows.weights is None else rows.weights[order]
        return (np.concatenate(found), (rows.labels[order] > 0.5).astype(np.float32), weights, sizes), order

    def logit(self, batch: Impressions) -> Tensor:
        """The sum of the leaves of all trees: by the library, or in a graph that leaves the house by a walk."""
        X = self.matrix(batch)
        if torch.onnx.is_in_onnx_export():
            return self._once("walk", trees.Walk)(X).float()  # type: ignore[no-any-return]
        scores = self._once("booster", lambda text: trees.library().Booster(model_str=text)).predict(X.numpy(), raw_score=True, num_threads=1)
        return torch.from_numpy(np.asarray(scores, dtype=np.float32))

    def _once(self, name: str, make: Any) -> Any:
        """What `make` makes of the text, kept while the text stays the same."""
        kept, text = self.__dict__.setdefault("_made", {}), self.get_buffer("text")
        if name not in kept or kept[name][0] is not text:
            kept[name] = (text, make(trees.as_text(text)))
        return kept[name][1]

    @classmethod
    def memory(cls, config: Any, sizes: Sizes, events: int) -> int:
        columns = 8 + (len(sizes.features.fields) if sizes.features else 0) + 3 * len(config.vectors)
        return 8 * columns * events + 4 * sizes.items * sum(sizes.vectors.values())
