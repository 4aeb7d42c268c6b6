"""Vitrail's side of every row: the loop, the loaders and the evaluator that `vitrail fit` and `vitrail evaluate` use, driven by orders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import _desk
import _lists
import numpy as np
import torch

from vitrail.data.dataset import Dataset
from vitrail.evaluation import ranking
from vitrail.evaluation.evaluator import evaluate_part, rank_part
from vitrail.funnel.recommender import score_or_popular
from vitrail.systems import registry
from vitrail.systems.base import Sizes
from vitrail.train.checkpoint import Best
from vitrail.train.fit import Fitter, cut
from vitrail.train.loop import train

METRICS = ["recall@10", "mrr@10", "ndcg@10", "hit_rate@10", "precision@10"]
"""RecBole's default."""


def targets(config: Any, lengths: Any) -> int:
    """Positions that an epoch asks for, from the training events of each user (U,); for a cloze the expected number."""
    kind = getattr(config, "target", None)
    if kind is None:
        return int(lengths.sum())
    kept = lengths[lengths >= 2]
    if kind != "cloze":
        return int((kept - 1).sum() if kind == "prefix" else np.minimum(kept - 1, config.length).sum())
    masked = np.rint(np.minimum(kept, config.length) * config.cloze_share).clip(1, config.cloze_most or config.length)
    return int(((1 - config.cloze_last) * masked + config.cloze_last).sum())


class Side:
    """The state between orders."""

    def __init__(self, job: dict[str, Any]) -> None:
        torch.set_num_threads(job["threads"])
        self.job = job
        self.cls = registry.find(job["model"])
        settings = dict(job["settings"])
        if self.cls.trained:
            settings |= {"epochs": 100_000, "patience": 0, "validate_every": 1}
        self.config = self.cls.Config.of(settings)
        actions = {"load": self.load, "build": self.build, "fit": self.fit, "evaluate": self.evaluate, "lists": self.lists}
        self.desk = _desk.Desk(actions, self.train, self.validate, self.keep, self.back)
        self.best = Best()

    def load(self, order: dict[str, Any]) -> None:
        self.fitter: Any = None  # a second load must not hold the first
        data = Dataset(self.job["data"])
        split, _, protocol = cut(data, self.job["cut"], False)
        self.fitter = Fitter(data, split, protocol, self.job["seed"], torch.device("cpu"), True, None, False)
        self.hashes = data.item_ids.hashes
        self.sizes = Sizes(len(data.user_ids), len(data.item_ids))

    def build(self, order: dict[str, Any]) -> dict[str, Any]:
        self.model = self.fitter.build(self.cls, self.config, self.sizes, self.fitter.split.train)[0]
        batches, log = 1, self.fitter.split.train
        if self.cls.trained:
            batches = self.model.batcher(log, self.job["seed"], 0, 1).steps()
        return {"batches": batches, "targets": targets(self.config, log.lengths), "parameters": sum(p.numel() for p in self.model.parameters())}

    def train(self) -> None:
        def hook(model: Any) -> float:
            self.desk.epoch_done()
            return 0.0

        @contextmanager
        def counting(total: int, done: int = 0) -> Iterator[Any]:
            yield lambda steps, state: self.desk.batch_done()

        train(self.model, self.fitter.split.train, self.config, seed=self.job["seed"], validate=hook, bar=counting)

    def fit(self, order: dict[str, Any]) -> None:
        """A new model, fitted from its start."""
        self.model = self.fitter.build(self.cls, self.config, self.sizes, self.fitter.split.train)[0]
        if self.cls.trained:
            train(self.model, self.fitter.split.train, self.config, seed=self.job["seed"], validate=None, epochs=self.job["epochs"])
        else:
            self.model.learn(self.fitter.split.train)

    def validate(self) -> float:
        return float(self.fitter.measure(self.model, self.fitter.split.valid, ["ndcg@10"]).metrics["ndcg@10"])

    def keep(self) -> None:
        self.best.keep(self.model.state_dict())

    def back(self) -> None:
        self.model.load_state_dict(self.best.tensors())

    def ready(self) -> Any:
        """The model made ready to answer, as a function of histories."""
        self.model.eval()
        with torch.no_grad():
            self.model.prepare()
        return lambda histories: score_or_popular(self.model, self.fitter.popularity, histories)[0]

    def evaluate(self, order: dict[str, Any]) -> dict[str, Any]:
        found = evaluate_part(
            self.fitter.split.test, self.ready(), protocol=self.fitter.protocol, item_hashes=self.hashes, train_counts=self.fitter.counts,
            metrics=METRICS, intervals=False, slices=False,
        )  # fmt: skip
        return {"metrics": found.metrics}

    def lists(self, order: dict[str, Any]) -> None:
        codes, _ = rank_part(self.fitter.split.test, self.ready(), k=10, tie_ranks=ranking.tie_ranks(self.hashes))
        _lists.write_lists(order["path"], codes)


if __name__ == "__main__":
    _desk.main(lambda job: Side(job).desk, set(registry.names()))
