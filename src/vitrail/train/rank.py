"""fit and evaluate for rankers: from impressions to a run folder, and from it to numbers. The loop, the run and the artifact are those of all systems."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vitrail.blocks.modality import to_int8
from vitrail.data.dataset import Dataset
from vitrail.data.declare import chosen
from vitrail.data.features import Features, debiased, learn
from vitrail.data.impressions import CLICKED, ImpressionSplit, Rows, make_impressions, rank_split
from vitrail.data.splits import SplitSettings
from vitrail.errors import DataError, SettingError
from vitrail.evaluation import binary
from vitrail.evaluation.binary import RankEvaluation
from vitrail.evaluation.metrics import check_metric
from vitrail.evaluation.protocol import PROTOCOLS, RankProtocol
from vitrail.evaluation.slices import rank_slices
from vitrail.funnel.recommender import Recommender, load
from vitrail.systems.base import Given, Sizes, System
from vitrail.systems.ranker import Ranker
from vitrail.train.checkpoint import Checkpoints, Progress
from vitrail.train.importance import importance as worth
from vitrail.train.loop import Left, Watch, train
from vitrail.train.progress import bar, silent
from vitrail.train.run import Run, write_curves

if TYPE_CHECKING:
    from vitrail.train.fit import Content

FEW_ROWS = 2_000


@dataclass(frozen=True)
class Prepared:
    """Impressions with their fields, and what a ranker is built from."""

    split: ImpressionSplit
    features: Features
    sizes: Sizes
    given: Given
    protocol: RankProtocol
    train: Rows
    valid: Rows | None


def protocol_of(dataset: Dataset, split: ImpressionSplit) -> RankProtocol:
    """How the rows of `split` are asked."""
    protocol = PROTOCOLS[f"rank_{split.name}"].model_copy(update={"settings": split.settings, "positive": dataset.info.positive})
    assert isinstance(protocol, RankProtocol)
    return protocol


def prepare(dataset: Dataset, settings: SplitSettings, config: Any, names: Sequence[str] = (), split: ImpressionSplit | None = None) -> Prepared:
    """Cut `dataset` into impressions (none where `split` has them), learn the fields on the training rows and code train and valid, which tell where items
    were shown, since they are what is learned and selected from; `names` of content vectors that the system reads."""
    assert settings.name in ("pairs", "rated", "shown")
    whole = split or make_impressions(dataset, settings)  # type: ignore[arg-type]
    split = whole.with_outcomes(_objectives(config))
    features, occurs = learn(dataset, split, config, length=max(config.length, config.searched))
    # what is counted never holds the test part
    saved = features.at(split.known, dataset.interactions).showing([part for part in (whole.train, whole.valid) if part is not None])
    tables = {name: torch.from_numpy(np.array(array)) for name, array in saved.arrays().items()} | {"occurrences": torch.from_numpy(occurs)}
    given, vectors = _content(dataset, config, names)

    def filled(part: Rows) -> Rows:
        return debiased(features.fill(part, learning=True), config, dataset)

    return Prepared(
        split, features, Sizes(len(dataset.users), len(dataset.items), vectors, features.spec), replace(given, tables=tables), protocol_of(dataset, split),
        filled(split.train), None if split.valid is None else filled(split.valid),
    )  # fmt: skip


def _content(dataset: Dataset, config: Any, names: Sequence[str]) -> tuple[Given, dict[str, int]]:
    """The content of items by name, read where it lies or as int8 where the settings say so, and its widths."""
    read = {name: dataset.vectors(name) for name in names}
    vectors = {name: torch.from_numpy(found.values) for name, found in read.items()}
    if getattr(config, "store", "float32") == "int8":
        vectors = {name: to_int8(values) for name, values in vectors.items()}
    masks = {name: torch.from_numpy(found.mask.copy()) for name, found in read.items()}
    return Given(vectors=vectors, masks=masks), {name: values.shape[1] for name, values in vectors.items()}


def _objectives(config: Any) -> dict[str, str]:
    """What a ranker of several objectives learns beside `clicked`: name -> condition."""
    return getattr(config, "objectives", {})


def fit_ranker(
    cls: type[System],
    config: Any,
    dataset: Dataset,
    *,
    split: str | SplitSettings | None,
    out: str | Path | None,
    seed: int,
    resume: bool,
    overwrite: bool,
    refit: bool,
    device: str,
    quiet: bool,
    content: Content,
    left: Left | None = None,
) -> Any:
    """`train.fit.fit` for a system of the stage `rank`: a FitResult. Raises VitrailError: one sentence."""
    from vitrail.train import fit as house

    if refit:
        raise SettingError("A ranker is calibrated on its validation part and cannot be fitted on it again: leave --refit out.")
    system = cls.card.name
    settings = rank_split(dataset.info, split)
    if declared := chosen(config.features, dataset.info.features):
        config = config.but({"features": declared})  # a run says what its features are, whatever becomes of their file
    made = prepare(dataset, settings, config, cls.wants(config).vectors)
    where = house.pick_device(device)
    run = Run(
        system=system, config=config.model_dump(mode="json"), data=str(dataset.path.resolve()), data_fingerprint=dataset.fingerprint,
        split=settings.model_dump(mode="json"), protocol=made.protocol.name, seed=seed, refit=False, device=str(where), vectors=content.identities,
    )  # fmt: skip
    done = house._finished(out, resume)
    if not done:
        house._check_memory(cls, config, made.sizes, len(made.train.log), quiet)
    folder = house._open_run(out, run, resume, overwrite)
    if folder is not None and done:
        return house.FitResult(load(folder), folder, Progress(finished=True), made.split)
    torch.manual_seed(seed)
    model = cls(config, made.sizes, made.given)
    assert isinstance(model, Ranker)
    progress = train_ranker(model, made, config, seed, folder, resume, where, quiet, left=left)
    model.eval().cpu()
    fingerprint = made.protocol.fingerprint(dataset.fingerprint, made.split.settings)
    info = house.manifest(run, cls, dataset, made.split.settings, made.protocol, fingerprint, progress, model, content)
    if made.valid is not None:
        info["validation"] = calibrate(model, made.valid)
    counts = torch.from_numpy(made.split.known.item_counts)
    recommender = Recommender(model, made.given, made.split.known, counts, dataset.items, dataset.users, info)
    if folder is not None:
        write_curves(folder, progress)
        recommender.save(folder / "artifact", overwrite=True)
        if not progress.cut:
            Checkpoints(folder).clear()
    return house.FitResult(recommender, folder, progress, made.split)


def train_ranker(
    model: Ranker, made: Prepared, config: Any, seed: int, folder: Path | None, resume: bool, where: torch.device, quiet: bool, *,
    watch: Watch | None = None, left: Left | None = None,
) -> Progress:  # fmt: skip
    """Train on the rows of `made`, selecting on its validation rows; `folder` keeps checkpoints. Raises DataError where they hold one class only."""
    if not model.trained:
        started = time.perf_counter()
        steps = model.learn(made.train, made.valid, partial(binary.chosen_by, config.metric))
        return Progress(epoch=steps, finished=True, seconds=time.perf_counter() - started)
    validate = None
    if (valid := made.valid) is not None:
        weights = valid.weights if config.position == "weight" else None

        def validate(model: System) -> float:
            assert isinstance(model, Ranker)
            value = binary.chosen_by(config.metric, valid.labels > 0.5, model.eval().predict(valid).numpy(), valid.users, weights)
            if np.isnan(value):
                raise DataError(f"The validation part has no {'user' if config.metric == 'gauc' else 'rows'} with both successes and failures: choose another "
                                f"split{', or --set metric=auc' if config.metric == 'gauc' else ''}.")  # fmt: skip
            return value

    done = train(
        model, made.train, config, seed=seed, validate=validate, checkpoints=None if folder is None else Checkpoints(folder), resume=resume, device=where,
        bar=silent if quiet else bar(f"fit {model.card.name}"), watch=watch, left=left,
    )  # fmt: skip
    return done.progress


def calibrate(model: Ranker, rows: Rows) -> dict[str, Any]:
    """Fit the calibrator on validation rows; the record of the validation part, before (`_raw`) and after."""
    logits = model.predict(rows)
    model.calibrator.fit(logits.double().numpy(), (rows.labels > 0.5).astype(np.float64))
    metrics, _, _, _ = _measured(model, rows, logits, intervals=False)
    return {"users": len(np.unique(rows.users)), "rows": len(rows), "metrics": metrics}


def _measured(model: Ranker, rows: Rows, logits: torch.Tensor, *, intervals: bool, cuts: Mapping[str, Any] | None = None) -> Any:
    probabilities = model.calibrator(logits).double().numpy()
    return binary.measure(rows.labels, logits.double().numpy(), probabilities, rows.users, rows.stops - rows.starts, intervals=intervals, cuts=cuts)


def part_rows(model: Ranker, info: Mapping[str, Any], dataset: Dataset, part: str = "test") -> tuple[Rows, ImpressionSplit]:
    """The rows of a part of the split a ranker was fitted with, their fields as the ranker codes them: each counts all that was strictly before it.

    Raises DataError where the split has no such part.
    """
    from vitrail.train.fit import recorded_split

    whole = make_impressions(dataset, recorded_split(info["split"]))  # type: ignore[arg-type]
    split = whole.with_outcomes(_objectives(model.config))
    asked = split.test if part == "test" else split.valid
    if asked is None:
        raise DataError(f"This run has no {part} part: it was fitted with the split {info['split'].get('name')}; fit with another --split.")
    full = model.source.at(asked.log, dataset.interactions).showing([] if whole.shown is None else [whole.shown])
    return full.fill(asked), split


def of_objectives(model: Ranker, rows: Rows) -> dict[str, dict[str, float]]:
    """Objective -> rows that tell of it, rate, AUC, GAUC and log loss of its own chances, entropy of its gate; empty for a ranker of one."""
    if rows.outcomes is None or not hasattr(model, "chances"):
        return {}
    labels = dict(zip(_objectives(model.config), rows.outcomes.T, strict=True)) | {CLICKED: rows.labels}
    found, gates = {}, model.gates(rows)  # type: ignore[operator]
    for name, chances in model.chances(rows).items():  # type: ignore[operator]
        known = ~np.isnan(labels[name])
        y, p, users = labels[name][known] > 0.5, chances[known].astype(np.float64), rows.users[known]
        values = {"auc": binary.auc(y, p), "gauc": binary.gauc(y, p, users)[0], "logloss": float(binary.log_losses(y, p).mean()), "rate": float(y.mean())}
        values |= {"gate_entropy": gates[name]} if name in gates else {}
        found[name] = {"rows": float(known.sum())} | {key: value for key, value in values.items() if np.isfinite(value)}
    return found


def evaluate_ranker(
    recommender: Recommender, dataset: Dataset, *, part: str, metrics: Sequence[str] | None, quiet: bool, importance: bool = False
) -> RankEvaluation:
    """Measure a fitted ranker on rows of the `test` or `valid` part; `importance`: say too what each field is worth.

    Raises SettingError for an unknown metric, DataError for an absent part.
    """
    for name in metrics or ():
        check_metric(name, "rank")
    info, model = recommender.info, recommender.model
    assert isinstance(model, Ranker)
    rows, split = part_rows(model, info, dataset, part)
    started = time.perf_counter()
    with (silent if quiet else bar("evaluate", "rows"))(len(rows), 0) as advance:
        logits = model.predict(rows)
        advance(len(rows), "")
    train = split.train
    cuts = rank_slices(rows.users, rows.items, train.users, train.items[train.labels > 0.5], len(dataset.items))
    found, ci, slices, values = _measured(model, rows, logits, intervals=True, cuts=cuts)
    seconds = time.perf_counter() - started
    _, _, dropped = binary.gauc(rows.labels > 0.5, logits.numpy(), rows.users)
    kept = list(metrics) if metrics is not None else list(found)
    warnings = list(split.leaks)
    if len(rows) < FEW_ROWS:
        warnings.append(f"Only {len(rows):,} {part} rows (fewer than {FEW_ROWS:,}): read the intervals, not the third digit.")
    probabilities = model.calibrator(logits).double().numpy()
    evaluation = RankEvaluation(
        system=recommender.name, data=dataset.info.name, fingerprint=info["fingerprint"], part=part, protocol=RankProtocol.of(info["protocol"]),
        users=len(np.unique(rows.users)), rows=len(rows), successes=int((rows.labels > 0.5).sum()), dropped_groups=dropped,
        metrics={name: found[name] for name in kept if name in found}, ci={name: ci[name] for name in kept if name in ci}, slices=slices,
        seconds=round(seconds, 4), users_per_second=round(len(rows) / max(seconds, 1e-9), 1), warnings=warnings,
        lift=[(p.rate, p.lift, p.caught, p.rows) for p in binary.lift(rows.labels > 0.5, logits.numpy())], importance=worth(model, rows) if importance else {},
        objectives=of_objectives(model, rows), curve=[(b.probability, b.rate, b.rows) for b in binary.calibration_curve(rows.labels > 0.5, probabilities)],
    )  # fmt: skip
    evaluation._values.update(values)
    evaluation._user_codes = rows.users
    return evaluation
