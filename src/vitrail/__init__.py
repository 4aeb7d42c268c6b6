"""Vitrail: from a catalogue and an event log to measured, served recommendations.

data = vitrail.read("shop")                       # a folder made by `vitrail data ingest`
model = vitrail.fit("sasrec", data, dim=64)       # -> Recommender
model.recommend(users=["u17"], k=10)              # -> a polars table with your ids
vitrail.evaluate(model)                           # -> Evaluation: metrics with intervals
model.save("model"); vitrail.load("model")        # no data set needed
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vitrail.data.dataset import Dataset
    from vitrail.evaluation.evaluator import Evaluation
    from vitrail.funnel.recommender import Recommender

__version__ = "0.1.0"
__all__ = ["evaluate", "fit", "load", "read", "systems"]


def read(path: str | Path) -> Dataset:
    """Open a data-set folder. Raises DataError where there is none, ArtifactError where it is damaged."""
    from vitrail.data.dataset import Dataset

    return Dataset(path)


def fit(
    system: str,
    data: str | Path | Dataset,
    *,
    split: str | None = None,
    protocol: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    refit: bool = False,
    device: str = "auto",
    quiet: bool = True,
    **settings: Any,
) -> Recommender:
    """Fit a system and return what answers. `settings` are checked against the system's typed settings
    (`vitrail systems NAME` lists them); a misspelt one is a SettingError. See `vitrail.train.fit.fit`."""
    from vitrail.train.fit import fit as run

    return run(
        system, data, split=split, protocol=protocol, out=out, seed=seed, resume=resume, overwrite=overwrite, settings=settings, refit=refit,
        device=device, quiet=quiet,
    ).recommender  # fmt: skip


def load(path: str | Path, *, dim: int | None = None) -> Recommender:
    """Open a run or a saved model; no data set is needed. `dim`: answer by so many numbers of each vector, where it was trained for it.

    Raises ArtifactError where it is damaged, newer or absent, SettingError where its vectors cannot be cut.
    """
    from vitrail.funnel.recommender import load as open_artifact

    return open_artifact(path, dim=dim)


def evaluate(
    run: str | Path | Recommender, *, part: str = "test", data: str | Path | Dataset | None = None, metrics: Sequence[str] | None = None
) -> Evaluation:
    """Measure a run or a fitted system. See `vitrail.train.fit.evaluate_run`."""
    from vitrail.train.fit import evaluate_run

    return evaluate_run(run, part=part, data=data, metrics=metrics)


def systems() -> list[str]:
    """Names of all systems."""
    from vitrail.systems.registry import names

    return names()
