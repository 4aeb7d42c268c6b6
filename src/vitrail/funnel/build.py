"""From a funnel file to a folder that answers: fits what is missing, trains the ranker on what retrieval finds, and can be stopped and gone on with.

    OUT/funnel.json            the file as it was read, and what was chosen while building
    OUT/data/                  the data set, where the file says how to ingest it
    OUT/retrieve/SOURCE/       a run of each source
    OUT/early/SOURCE/          the same systems on an earlier cut, for the ranker's training requests
    OUT/rank-data/, OUT/rank/  the ranker's impressions and its run
    OUT/similarity.npy         (N, D) vectors by which a slate tells items alike

How the ranker is trained, and why from an earlier cut: docs/funnel.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrail.data.dataset import Dataset, data_home
from vitrail.data.splits import SplitSettings, default_split, parse_split
from vitrail.errors import ArtifactError, DataError, SettingError
from vitrail.files import atomic_file, fingerprint, read_json, write_json
from vitrail.funnel.file import FunnelFile, Retrieve, read_funnel
from vitrail.funnel.funnel import Funnel
from vitrail.funnel.recommender import Recommender, load
from vitrail.funnel.rules import Ruling
from vitrail.funnel.sources import DateSource, IndexSource, Source, SystemSource
from vitrail.funnel.stages import Layout, Ranking
from vitrail.systems.policy import find_policy
from vitrail.systems.slate import find_slate

RECORD = "funnel.json"
FORMAT = 1
Say = Callable[[str], None]


def _quietly(_: str) -> None:
    pass


def _aloud(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def run_funnel(path: str | Path | FunnelFile, out: str | Path, *, data: str | Path | Dataset | None = None, device: str = "auto", quiet: bool = True) -> Funnel:
    """Build the funnel of the file `path` in the folder `out`, or go on where it was stopped; what is there already is kept.

    `data`: where the data set is, if not where the file says. Raises VitrailError: one sentence.
    """
    say = _quietly if quiet else _aloud
    file = path if isinstance(path, FunnelFile) else read_funnel(path)
    folder = Path(out)
    _claim(folder, file)
    dataset = _dataset(file, folder, data, say)
    if file.split is None and not all(source.run for source in file.retrieve):
        file = file.model_copy(update={"split": default_split(dataset.info)})
    settings = parse_split(file.split) if file.split is not None else None
    for source in file.retrieve:
        if source.system is not None:
            fit_source(source, dataset, settings, folder / "retrieve" / source.label, file.seed, device, quiet, say)
    _similarity(file, folder, dataset)
    chosen: dict[str, Any] = {"mix": 0.0 if file.rank is None or file.rank.mix is None else file.rank.mix}
    if file.rank is not None and file.rank.system is not None:
        from vitrail.funnel.training import train_rank

        chosen = train_rank(file, folder, dataset, settings, device, quiet, say)
    record = {"format": FORMAT, "file": file.model_dump(mode="json"), "data": str(dataset.path.resolve()), "chosen": chosen, "complete": True}
    write_json(folder / RECORD, record)
    return load_funnel(folder)


def _claim(folder: Path, file: FunnelFile) -> None:
    """Raises DataError where the folder holds something else: runs of two files must not mix."""
    wanted = file.model_dump(mode="json")
    if (folder / RECORD).exists():
        there = read_json(folder / RECORD)["file"]
        # what shapes answers alone can change without a new fit; what is fitted or trained cannot
        fitted = ("funnel", "data", "split", "seed", "retrieve", "fuse", "filter", "rank")
        changed = [key for key in fitted if there.get(key) != wanted.get(key) and not (key == "split" and wanted.get(key) is None)]
        if changed:
            raise DataError(f'{folder} holds a funnel with another "{changed[0]}": choose another place, or put the file back as it was.')
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists already and is no funnel: choose another place.")
    write_json(folder / RECORD, {"format": FORMAT, "file": wanted, "complete": False})


def _dataset(file: FunnelFile, folder: Path, data: str | Path | Dataset | None, say: Say) -> Dataset:
    if isinstance(data, Dataset):
        return data
    if data is not None:
        return Dataset(data)
    if isinstance(file.data, str):
        return Dataset(file.data)
    if file.data is not None:
        from vitrail.recipes_data import prepare

        return prepare(file.data, data_root=data_home(), work=folder, say=say)
    run = next((source.run for source in file.retrieve if source.run is not None), None)
    if run is None:
        raise SettingError(f'The funnel "{file.funnel}" has systems to fit and names no data: add data, the data-set folder, to the file, or pass --data.')
    return Dataset(load(run).info["data"]["path"])


def fit_source(
    source: Retrieve, dataset: Dataset, split: SplitSettings | None, out: Path, seed: int, device: str, quiet: bool, say: Say, *, what: str = "fitting"
) -> None:
    """Fit the system of a source into `out`, or go on with it; nothing where it is done."""
    from vitrail.train.fit import fit

    if not (out / "artifact" / "manifest.json").exists():
        say(f"{what} {source.label}")
    assert source.system is not None
    fit(source.system, dataset, split=split, out=out, seed=seed, resume=True, settings=source.settings, device=device, quiet=quiet)


def _similarity(file: FunnelFile, folder: Path, dataset: Dataset) -> None:
    """Write the vectors of the slate: content vectors by name, else categories or who has an item in training."""
    from vitrail.evaluation.evaluator import diversity_vectors

    if file.arrange is not None and file.arrange.vectors is not None:
        if not hasattr(dataset, "vectors"):
            raise SettingError(f'arrange names the vectors "{file.arrange.vectors}", and this installation reads none: leave vectors out.')
        found: Any = dataset.vectors(file.arrange.vectors)
        values = np.asarray(getattr(found, "values", found), dtype=np.float32)
        vectors = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.float32(1e-12))
    else:
        first = load(_run_of(file.retrieve[0], folder / "retrieve"))
        vectors = diversity_vectors(first.known, dataset.items, dict(dataset.info.columns.get("items", {})))
    with atomic_file(folder / "similarity.npy") as temporary, temporary.open("wb") as handle:
        np.save(handle, vectors.astype(np.float32), allow_pickle=False)


def _run_of(source: Retrieve, folder: Path) -> Path:
    return Path(source.run) if source.run is not None else folder / source.label


def open_sources(file: FunnelFile, folder: Path) -> tuple[list[Source], Recommender]:
    """The sources of a file whose systems are fitted in `folder`, and the first of them, whose catalogue is that of the funnel.

    Raises ArtifactError where one is absent or damaged, DataError where they were fitted on different data or splits.
    """
    recommenders: list[Recommender] = [load(_run_of(source, folder)) for source in file.retrieve]
    base = recommenders[0]
    sources: list[Source] = []
    for told, recommender in zip(file.retrieve, recommenders, strict=True):
        if not recommender.item_ids.ids.equals(base.item_ids.ids) or not recommender.user_ids.ids.equals(base.user_ids.ids):
            raise DataError(f'The sources "{file.retrieve[0].label}" and "{told.label}" know different items or users: fit both on one data set.')
        if recommender.info.get("fingerprint") != base.info.get("fingerprint"):
            raise DataError(f'The sources "{file.retrieve[0].label}" and "{told.label}" were fitted on different data, splits or protocols: fit both alike.')
        if told.date is not None:
            sources.append(DateSource(told.label, recommender.items, told.date, base._ties))
        elif told.index is not None:
            sources.append(IndexSource(told.label, recommender, told.index))
        else:
            sources.append(SystemSource(told.label, recommender, base._ties, above=told.above))
    return sources, base


def load_funnel(path: str | Path, *, seed: int | None = None) -> Funnel:
    """Open a folder that `run_funnel` made; no data set is needed. `seed` of exploration, none: never the same.

    Raises ArtifactError where it is absent, unfinished or damaged.
    """
    folder = Path(path)
    if not (folder / RECORD).exists():
        raise ArtifactError(f"There is no funnel at {folder}: make one with `vitrail funnel run FILE --out {folder}`.")
    record = read_json(folder / RECORD)
    if not record.get("complete"):
        raise ArtifactError(f"The funnel at {folder} is not finished: go on with the `vitrail funnel run FILE --out {folder}` that began it.")
    if record["format"] > FORMAT:
        raise ArtifactError(f"{folder} was written by a newer Vitrail (funnel format {record['format']}, this one reads {FORMAT}): upgrade Vitrail.")
    file = FunnelFile.of(record["file"], where=str(folder / RECORD))
    sources, base = open_sources(file, folder / "retrieve")
    ranking = None
    if file.rank is not None:
        ranker = load(file.rank.run or folder / "rank")
        ranking = Ranking(ranker.model, mix=record["chosen"]["mix"], budget_ms=file.rank.budget_ms, given=ranker.given)
    info = {
        **base.info,
        "chosen": record["chosen"],
        "system": file.funnel,
        "stage": "funnel",
        "family": "funnel",
        "data": {**base.info.get("data", {}), "path": record["data"]},
        "funnel": record["file"],
        "files": {RECORD: fingerprint(record), **base.info.get("files", {})},
        "config": {},
    }
    vectors = _vectors(folder / "similarity.npy", len(base.item_ids))
    policy = None
    if file.explore is not None:
        chosen = find_policy(file.explore.policy)
        policy = chosen(chosen.Config.of(file.explore.settings, where=str(folder / RECORD)))
    return Funnel(file, sources, base, ranking, layout(file, base, vectors), policy, info, seed=seed)


def open_answerer(path: str | Path) -> Funnel | Recommender:
    """Whatever answers at `path`: a funnel, or a run or saved model. Raises ArtifactError where there is neither."""
    return load_funnel(path) if (Path(path) / RECORD).exists() else load(path)


def layout(file: FunnelFile, base: Recommender, vectors: npt.NDArray[np.float32]) -> Layout:
    """The slate and the rules of a file over the catalogue of `base`."""
    if file.arrange is None:
        return Layout(None, None, vectors)
    slate = None
    if file.arrange.system is not None:
        cls = find_slate(file.arrange.system)
        slate = cls(cls.Config.of(file.arrange.settings, where="arrange"))
    rules = file.arrange.rules
    plain = not (rules.exclude or rules.bury or rules.caps or rules.quotas or rules.pin)
    return Layout(slate, None if plain else Ruling(rules, base.items, base._users), vectors)


def _vectors(path: Path, n_items: int) -> npt.NDArray[np.float32]:
    try:
        vectors: npt.NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise ArtifactError(f"{path} is missing or damaged: run the funnel again.") from None
    if vectors.ndim != 2 or len(vectors) != n_items:
        raise ArtifactError(f"{path} has vectors for {len(vectors):,} items, and the catalogue has {n_items:,}: run the funnel again.")
    return vectors
