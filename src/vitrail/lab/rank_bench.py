"""The bench of rankers: impressions in place of queries, gauc or auc in place of list metrics. Tuning and comparing are the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from vitrail.data.dataset import Dataset
from vitrail.data.fields import FieldSettings
from vitrail.data.impressions import make_impressions, rank_split
from vitrail.data.splits import SplitSettings
from vitrail.errors import SettingError
from vitrail.evaluation import binary
from vitrail.files import fingerprint
from vitrail.lab.bench import Bench, Timing, Tried, epoch_seconds
from vitrail.systems import registry
from vitrail.systems.base import Sizes, System
from vitrail.systems.ranker import Ranker
from vitrail.train.fit import pick_device
from vitrail.train.loop import Left, Watch
from vitrail.train.rank import Prepared, prepare, protocol_of, train_ranker

CHOOSE_BY = ("gauc", "auc")
"""Metrics of rankers that the loop can select by."""


@dataclass
class RankBench(Bench):
    """Impressions cut once; their fields are learned once for all settings that read the same ones."""

    made: dict[str, Prepared] = field(default_factory=dict, repr=False)
    """the rows with their fields, by the settings that shape them; the newest only"""
    preparing: float = 0.0
    """seconds it took to make them"""
    unit: ClassVar[str] = "rows"
    default_metric: ClassVar[str] = "gauc"

    @classmethod
    def open(
        cls,
        data: str | Path | Dataset,
        split: str | SplitSettings | None,
        metric: str | None,
        refit: bool,
        device: str = "auto",
        quiet: bool = False,
        protocol: str | None = None,
    ) -> RankBench:
        """Raises VitrailError: the data or split are absent or bad, or something is asked that rankers do not have."""
        metric = metric or cls.default_metric
        if metric not in CHOOSE_BY:
            raise SettingError(f'Rankers are chosen by gauc or auc and "{metric}" is neither: leave --metric out; logloss and ece are reported beside it.')
        if refit:
            raise SettingError("A ranker is calibrated on its validation part and cannot be fitted on it again: leave --refit out.")
        if protocol is not None:
            raise SettingError("The numbers of rankers have the protocol of their split: leave --protocol out.")
        dataset = data if isinstance(data, Dataset) else Dataset(data)
        settings = rank_split(dataset.info, split)
        made = make_impressions(dataset, settings)
        return cls(dataset, made, settings, protocol_of(dataset, made), metric, str(pick_device(device)), quiet)

    @property
    def metrics(self) -> list[str] | None:
        return None

    @property
    def events(self) -> int:
        return len(self.split.train.log)

    def test_users(self) -> npt.NDArray[np.int64]:
        return np.unique(self.split.test.users)

    def prepared(self, cls: type[System], config: Any) -> Prepared:
        """Rows with the fields and the content that these settings ask for."""
        names = cls.wants(config).vectors
        key = fingerprint([{name: getattr(config, name, None) for name in (*FieldSettings.model_fields, "length", "searched", "store")}, list(names)])
        if key not in self.made:
            began = time.perf_counter()
            self.made = {key: prepare(self.dataset, self.settings, config, names, self.split)}
            self.preparing = time.perf_counter() - began
        return self.made[key]

    def sizes(self, cls: type[System], config: Any) -> Sizes:
        return self.prepared(cls, config).sizes

    def attempt(
        self, cls: type[System], config: Any, seed: int, folder: Path | None = None, watch: Watch | None = None, left: Left | None = None
    ) -> Tried:
        started = time.perf_counter()
        made = self.prepared(cls, config)
        model = self._built(cls, config, seed)
        progress = train_ranker(
            model, made, config, seed, folder, folder is not None, pick_device(self.device), True, watch=watch, left=left
        )
        epochs = progress.best_epoch if progress.best_epoch > 0 else progress.epoch
        value = progress.best_value if cls.trained else self._value(model, made)
        return Tried(value, epochs, time.perf_counter() - started, progress.cut, progress.curve)

    def timing(self, cls: type[System], config: Any) -> Timing:
        clock = time.perf_counter
        made = self.prepared(cls, config)
        began = clock()
        model = self._built(cls, config, 0)
        start = clock() - began
        if cls.trained:
            epoch = epoch_seconds(model, made.train, config, pick_device(self.device))
        else:
            epoch = train_ranker(model, made, config, 0, None, False, pick_device(self.device), True).seconds
        began = clock()
        if made.valid is not None:
            model.eval().predict(made.valid)
        validation = clock() - began
        test = 3 * validation * len(self.split.test) / max(len(made.valid or ()), 1)
        return Timing(start, epoch, validation, 0.5 + 2 * self.preparing + test)  # a seed's fit and test prepare rows of their own

    def _value(self, model: Ranker, made: Prepared) -> float | None:
        """What a ranker that is fitted at once reaches on the validation rows."""
        rows = made.valid
        return None if rows is None else binary.chosen_by(self.metric, rows.labels > 0.5, model.eval().predict(rows).numpy(), rows.users)

    def _built(self, cls: type[System], config: Any, seed: int) -> Ranker:
        torch.manual_seed(seed)
        made = self.prepared(cls, config)
        model = cls(config, made.sizes, made.given)
        assert isinstance(model, Ranker)
        return model


def open_bench(
    systems: Sequence[str],
    data: str | Path | Dataset,
    split: str | SplitSettings | None,
    metric: str | None,
    refit: bool,
    device: str = "auto",
    quiet: bool = False,
    protocol: str | None = None,
) -> Bench:
    """The bench that goes with the stage of `systems`. Raises SettingError where they are of several stages, else what `open` raises."""
    ranks = [name for name in systems if registry.card(name).stage == "rank"]
    others = [name for name in systems if name not in ranks]
    if ranks and others:
        raise SettingError(
            f'"{ranks[0]}" ranks what was shown and "{others[0]}" retrieves from the whole catalogue, and no number measures both: compare those of one stage.'
        )
    return (RankBench if ranks else Bench).open(data, split, metric, refit, device, quiet, protocol)
