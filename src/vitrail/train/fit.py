"""fit and evaluate: from a data set to a run folder, and from a run folder to numbers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from vitrail.data.batches import Sets
from vitrail.data.dataset import Dataset
from vitrail.data.split import Part, Split
from vitrail.data.splits import SplitSettings, default_split, make_split, parse_split
from vitrail.data.vectors import VectorsInfo, verify_vectors
from vitrail.errors import DataError, ResourceError, SettingError
from vitrail.evaluation import journal
from vitrail.evaluation.evaluator import Evaluation, diversity_vectors, evaluate_part
from vitrail.evaluation.protocol import Protocol, parse_protocol, protocol_for
from vitrail.funnel.recommender import Recommender, load, score_or_popular
from vitrail.resources import afford_disk, afford_memory, free_memory
from vitrail.systems import registry
from vitrail.systems.base import Given, Sizes, System, TrainSettings
from vitrail.train.checkpoint import Checkpoints, Progress
from vitrail.train.loop import Left, Watch, train
from vitrail.train.progress import bar, silent
from vitrail.train.run import Run, write_curves

E = TypeVar("E", bound=Evaluation)


@dataclass
class FitResult:
    """What `fit` made."""

    recommender: Recommender
    run: Path | None
    progress: Progress
    split: Any
    """Split; of a ranker, ImpressionSplit"""

    def summary(self) -> dict[str, Any]:
        """For people and JSON: system, run, epochs, validation metrics, seconds, memory."""
        info = self.recommender.info
        keys = ("system", "data", "fingerprint", "protocol", "epochs", "seconds", "validation", "parameters")
        return {**{key: info.get(key) for key in keys}, "run": None if self.run is None else str(self.run), "leaks": list(self.split.leaks)}


def pick_device(name: str) -> torch.device:
    """auto, cpu, cuda... -> a device. Raises ResourceError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ResourceError("There is no usable CUDA device: leave --device out, or see `vitrail doctor`.")
    try:
        return torch.device(name)
    except RuntimeError:
        raise SettingError(f'There is no device "{name}": use auto, cpu or cuda.') from None


def cut(
    dataset: Dataset, split: str | SplitSettings | None, refit: bool, protocol_name: str | None = None
) -> tuple[Split, SplitSettings, Protocol]:
    """The split of `dataset` and the protocol that goes with it, or the named one."""
    settings = split if isinstance(split, SplitSettings) else parse_split(split or default_split(dataset.info))
    name = "temporal_rolling" if getattr(settings, "rolling", False) else settings.name
    protocol = parse_protocol(protocol_name, settings.name) if protocol_name else protocol_for(name)
    protocol = protocol.model_copy(update={"positive": dataset.info.positive})
    selection = protocol.model_copy(update={"fit_on": "train", "refit": False})
    if refit or protocol.refit:
        protocol = protocol.model_copy(update={"fit_on": "train+valid", "refit": True, "history_at_test": "train+valid"})
    return make_split(dataset, settings, selection), settings, protocol


def fit(
    system: str,
    data: str | Path | Dataset,
    *,
    split: str | SplitSettings | None = None,
    protocol: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    refit: bool = False,
    device: str = "auto",
    quiet: bool = False,
    start: Callable[[System], None] | None = None,
    left: Left | None = None,
) -> FitResult:
    """Fit `system` on the train part of `data`, selecting on its validation part, and save a run in `out`.

    `split` as in `parse_split` (none: the default of the data), `protocol` as in `parse_protocol` (none: that of the split);
    `settings` are the system's own and those of training; `refit` fits again on train and valid for the chosen number of epochs.
    `start` changes the weights training starts from; `left` tells the seconds until training must stop: the best weights so far are kept, and
    the same call with `resume` goes on from there.
    Raises VitrailError: one sentence.
    """
    cls = registry.find(system)
    config = cls.Config.of(settings or {}, where=f'settings of system "{system}"')
    dataset = data if isinstance(data, Dataset) else Dataset(data)
    content = Content.of(cls, config, dataset)
    if cls.card.stage == "rank":
        from vitrail.train.rank import fit_ranker

        if protocol is not None:
            raise SettingError(f'System "{system}" is a ranker, and its numbers have the protocol of its split: leave --protocol out.')
        return fit_ranker(  # type: ignore[no-any-return]
            cls, config, dataset, split=split, out=out, seed=seed, resume=resume, overwrite=overwrite, refit=refit, device=device, quiet=quiet,
            content=content, left=left,
        )  # fmt: skip
    split_made, split_settings, chosen = cut(dataset, split, refit, protocol)
    fingerprint = chosen.fingerprint(dataset.fingerprint, split_made.settings)
    where = pick_device(device)
    run = Run(
        system=system, config=config.model_dump(mode="json"), data=str(dataset.path.resolve()), data_fingerprint=dataset.fingerprint,
        split=split_settings.model_dump(mode="json"), protocol=chosen.name, seed=seed, refit=refit, device=str(where),
        vectors=content.identities,
    )  # fmt: skip
    sizes, done = content.sizes(dataset), _finished(out, resume)
    if not done:  # before a folder is made, or an old run overwritten
        _check_memory(cls, config, sizes, len(split_made.train), quiet)
    folder = _open_run(out, run, resume, overwrite)
    if folder is not None and done:
        return FitResult(load(folder), folder, Progress(finished=True), split_made)
    fitter = Fitter(dataset, split_made, chosen, seed, where, quiet, folder, resume, start=start, left=left)
    model, given, progress = fitter.fit(cls, config, sizes)
    counts = torch.from_numpy(split_made.train.item_counts)
    info = manifest(run, cls, dataset, split_made.settings, chosen, fingerprint, progress, model, content)
    recommender = Recommender(model.cpu(), given, split_made.known, counts, dataset.items, dataset.users, info)
    if fitter.validation is not None:
        info["validation"] = fitter.validation
    if folder is not None:
        write_curves(folder, progress)
        recommender.save(folder / "artifact", overwrite=True)
        if not progress.cut:
            Checkpoints(folder).clear()
    return FitResult(recommender, folder, progress, split_made)


@dataclass(frozen=True)
class Content:
    """What is known, before a row is read, of the content vectors a system with these settings asks for."""

    infos: dict[str, VectorsInfo]

    @classmethod
    def of(cls, system: type[System], config: Any, dataset: Dataset) -> Content:
        """Raises DataError where the data set lacks what the system needs, ArtifactError where a file of vectors was changed."""
        needs = system.wants(config)
        needs.check(dataset.info, system.card.name, dataset.vector_names())
        return cls({name: verify_vectors(dataset.path, name) for name in needs.vectors})

    @property
    def identities(self) -> dict[str, str]:
        """name -> identity: what a resumed run must find again."""
        return {name: info.identity for name, info in self.infos.items()}

    def sizes(self, dataset: Dataset) -> Sizes:
        """U, N, and D of each name."""
        return Sizes(len(dataset.users), len(dataset.items), {name: info.dim for name, info in self.infos.items()})


def manifest(
    run: Run,
    cls: type[System],
    dataset: Dataset,
    split: Mapping[str, object],
    protocol: Protocol,
    fingerprint: str,
    progress: Progress,
    model: System,
    content: Content | None = None,
) -> dict[str, Any]:
    """What the artifact says of a fit, but for what was measured."""
    return {
        "system": run.system,
        "stage": cls.card.stage,
        "family": cls.card.family,
        "config": run.config,
        "seed": run.seed,
        "data": {"name": dataset.info.name, "fingerprint": dataset.fingerprint, "path": run.data},
        "split": dict(split),
        "protocol": protocol.model_dump(mode="json"),
        "fingerprint": fingerprint,
        "columns": dataset.info.columns.get("items", {}),
        "image_root": str(dataset.image_root),
        "vectors": {name: info.model_dump(mode="json") for name, info in (content.infos if content else {}).items()},
        "epochs": progress.best_epoch if progress.best_epoch > 0 else progress.epoch,
        "seconds": round(progress.seconds, 3),
        "parameters": sum(p.numel() for p in model.parameters()) or sum(b.numel() for b in model.buffers()),
        **({"cut": True} if progress.cut else {}),
    }


def _finished(out: str | Path | None, resume: bool) -> bool:
    """Whether the run that is gone on with has nothing left to do."""
    return resume and out is not None and (Path(out) / "artifact" / "manifest.json").exists()


def _open_run(out: str | Path | None, run: Run, resume: bool, overwrite: bool) -> Path | None:
    if out is None:
        if resume:
            raise SettingError("--resume goes on with the run in a folder: say which with --out RUN.")
        return None
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if resume:
            run.same_as(Run.read(folder))
            return folder
        if not overwrite:
            raise DataError(f"{folder} exists already: choose another place, go on with --resume, or pass --overwrite.")
        if not folder.is_dir() or not (folder / "run.yaml").exists():
            raise DataError(f"{folder} is not a run of Vitrail and will not be overwritten: choose another place.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run.write(folder)
    return folder


def _check_memory(cls: type[System], config: Any, sizes: Sizes, events: int, quiet: bool) -> None:
    smaller = f"a batch below {config.batch:,}, " if getattr(config, "batch", 1) > 1 else ""
    advice = f"use {smaller}a smaller catalogue (k-core at ingest) or another system"
    afford_memory(cls.memory(config, sizes, events), free_memory(), "This fit", advice, quiet=quiet)


class Fitter:
    """Builds, trains and measures a model on one split."""

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        protocol: Protocol,
        seed: int,
        device: torch.device,
        quiet: bool,
        folder: Path | None,
        resume: bool,
        *,
        watch: Watch | None = None,
        start: Callable[[System], None] | None = None,
        left: Left | None = None,
    ) -> None:
        """`folder` keeps checkpoints (none: nothing is written); `watch` is told each validation and may end the fit by raising; `start`
        changes the weights training starts from; `left` tells the seconds until training must stop, half of them for a refit."""
        self.dataset, self.split, self.protocol, self.seed, self.device = dataset, split, protocol, seed, device
        self.quiet, self.folder, self.resume = quiet, folder, resume
        self.counts = split.train.item_counts
        self.popularity = torch.from_numpy(self.counts).float()
        self.watch, self.start, self.left = watch, start, left
        self.validation: dict[str, Any] | None = None

    def fit(self, cls: type[System], config: Any, sizes: Sizes) -> tuple[System, Given, Progress]:
        """The fitted model, what it was given, and how it went; fitted again on train and valid where the protocol says so."""
        model, given = self.build(cls, config, sizes, self.split.train)
        if self.folder is not None:
            # weights, their two moments and the best of them in a checkpoint, the best beside it, and the artifact with what is known of the users
            weights = sum(p.numel() for p in model.parameters())
            afford_disk(24 * weights + 16 * len(self.split.known), self.folder, "This run")
        progress = self._train(model, config, self.split.train, "artifact", None, self._half() if self.protocol.refit else self.left)
        model.eval()
        if self.split.valid is not None:
            evaluation = self.measure(model, self.split.valid, None)
            self.validation = {"users": evaluation.users, "metrics": evaluation.metrics}
        if not self.protocol.refit:
            return model, given, progress
        both = self.split.known if self.protocol.history_at_test == "train+valid" else self.split.train
        model, given = self.build(cls, config, sizes, both)
        again = self._train(model, config, both, "refit", progress.best_epoch if progress.best_epoch > 0 else None, self.left)
        again.best_epoch, again.curve, again.cut = progress.best_epoch, progress.curve, progress.cut or again.cut
        again.seconds += progress.seconds
        return model.eval(), given, again

    def build(self, cls: type[System], config: Any, sizes: Sizes, log: Any) -> tuple[System, Given]:
        """A model with its starting weights, as the seed draws them."""
        torch.manual_seed(self.seed)
        needs = cls.wants(config)
        kinds = dict(self.dataset.info.columns.get("items", {}))
        given = Given.of(log, needs, {name: self.dataset.vectors(name) for name in needs.vectors}, self.dataset.items, kinds)
        model = cls(config, sizes, given)
        if self.start is not None:
            self.start(model)
        return model, given

    def _half(self) -> Left | None:
        if self.left is None:
            return None
        left, kept = self.left, self.left() / 2
        return lambda: left() - kept

    def _train(self, model: System, config: Any, log: Any, stage: str, epochs: int | None, left: Left | None) -> Progress:
        if not model.trained:
            started = time.perf_counter()
            model.learn(log)
            return Progress(epoch=1, finished=True, seconds=time.perf_counter() - started)
        assert isinstance(config, TrainSettings)
        checkpoints = None
        if self.folder is not None:
            home = self.folder if stage == "artifact" else self.folder / "refit"
            home.mkdir(exist_ok=True)
            checkpoints = Checkpoints(home)
        validate = None
        if self.split.valid is not None and epochs is None:
            part = self.split.valid

            def validate(model: System) -> float:
                return self.measure(model, part, [config.metric]).metrics[config.metric]

        show = silent if self.quiet else bar(f"fit {model.card.name}" + (" (refit)" if stage == "refit" else ""))
        done = train(
            model, log, config, seed=self.seed, validate=validate, checkpoints=checkpoints, resume=self.resume, device=self.device, bar=show, epochs=epochs,
            watch=self.watch, left=left,
        )  # fmt: skip
        return done.progress

    @torch.no_grad()
    def measure(self, model: System, part: Part, metrics: Sequence[str] | None) -> Evaluation:
        """The validation part, as the test part will be measured."""
        model.eval()
        model.prepare()
        hashes = self.dataset.item_ids.hashes

        def score(histories: Sets) -> torch.Tensor:
            return score_or_popular(model, self.popularity, histories)[0]

        return evaluate_part(part, score, protocol=self.protocol, item_hashes=hashes, train_counts=self.counts, metrics=metrics, intervals=False, slices=False)


def evaluate_run(
    run: str | Path | Recommender,
    *,
    part: str = "test",
    data: str | Path | Dataset | None = None,
    metrics: Sequence[str] | None = None,
    protocol: Protocol | None = None,
    tie_seed: int = 0,
    quiet: bool = True,
    importance: bool = False,
) -> Evaluation:
    """Measure a fitted system on the `test` or `valid` part of the split it was fitted with.

    `data`: where the data set is now, if it moved; `protocol`: how the part is asked, where not as the run was fitted for (another mask);
    `importance`: say of a ranker what each field is worth. Evaluations of a test part are written to the data set's journal.
    Raises DataError where the data set is absent or has changed since the fit, SettingError for an unknown part or metric, and for a protocol with a ranker.
    """
    if part not in ("test", "valid"):
        raise SettingError(f'There is no part "{part}": evaluate "test" or "valid".')
    recommender = run if isinstance(run, Recommender) else load(run)
    info = recommender.info
    dataset = data if isinstance(data, Dataset) else Dataset(data or info["data"]["path"])
    if dataset.fingerprint != info["data"]["fingerprint"]:
        raise DataError(f"{dataset.path} has changed since this system was fitted (its fingerprint differs): fit again, or name the old data with --data.")
    if info.get("stage") == "rank":
        from vitrail.train.rank import evaluate_ranker

        if protocol is not None:
            raise SettingError(f'System "{info["system"]}" is a ranker, and its numbers have the protocol of its split: leave the protocol out.')
        ranked = evaluate_ranker(recommender, dataset, part=part, metrics=metrics, quiet=quiet, importance=importance)
        return ranked if part == "valid" else _journal(ranked, run, info, dataset)
    if importance:
        raise SettingError(f'System "{recommender.name}" is no ranker and has no fields to weigh: leave --importance out.')
    fingerprint = info["fingerprint"] if protocol is None else protocol.fingerprint(dataset.fingerprint, info["split"])
    protocol, settings = protocol or Protocol.of(info["protocol"], where="the manifest"), recorded_split(info["split"])
    chosen = make_split(dataset, settings, protocol if part == "test" else protocol.model_copy(update={"fit_on": "train", "refit": False}))
    asked = chosen.test if part == "test" else chosen.valid
    if asked is None:
        raise DataError(f"This run has no {part} part: it was fitted with the split {info['split'].get('name')}; fit with another --split.")
    if part == "valid" and protocol.refit:
        raise DataError("This run was refitted on train and valid, so its validation part is no longer unseen: evaluate the test part.")
    train = chosen.train
    vectors = diversity_vectors(train, dataset.items, dict(dataset.info.columns.get("items", {})))

    with (silent if quiet else bar("evaluate", "users"))(len(asked), 0) as advance:
        evaluation = evaluate_part(
            asked, lambda histories: recommender.score(histories)[0], protocol=protocol, item_hashes=dataset.item_ids.hashes,
            train_counts=train.item_counts, metrics=metrics, diversity_vectors=vectors, tie_seed=tie_seed,
            system=recommender.name, data=dataset.info.name, fingerprint=fingerprint, progress=lambda n: advance(n, ""),
        )  # fmt: skip
    return _journal(evaluation, run, info, dataset) if part == "test" else evaluation


def _journal(evaluation: E, run: str | Path | Recommender, info: Mapping[str, Any], dataset: Dataset) -> E:
    """Write an evaluation of a test part to the data set's journal; where that fails, it says so."""
    where = None if isinstance(run, Recommender) else str(run)
    note = journal.append(dataset.path, {**evaluation.as_json(), "config": info["config"], "seed": info["seed"], "run": where})
    return evaluation.model_copy(update={"warnings": [*evaluation.warnings, note]}) if note else evaluation


def recorded_split(values: Mapping[str, Any]) -> SplitSettings:
    """The settings of a split as the manifest recorded them (facts drawn from the data left aside)."""
    from vitrail.data.splits import SPLITS

    cls = SPLITS[str(values["name"])]
    return cls.of({key: value for key, value in values.items() if key in cls.model_fields}, where="the manifest")
