"""The ranker of a funnel is trained on candidates as they come from retrieval, from the past only.

The cut of the funnel is train < t1 <= valid < t2 <= test. One step earlier, with the same distances: the retrieval systems are fitted on what lies
before t0 (and selected on [t0, t1)), asked in the name of everybody who did something in [t1, t2), with all that came before as history, and what they
find becomes impressions: clicked where the item is among the person's next events (`horizon` of them) before t2. The ranker learns on the older ones
and is selected on the newest. At the test the systems are fitted before t1 (selected on [t1, t2)) and asked from t2 on: the same geometry, one step
later. No event from t2 on is read by anything here. Q requests, K candidates, S sources.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import yaml

from vitrail.data.batches import Sets
from vitrail.data.dataset import Dataset
from vitrail.data.log import Log
from vitrail.data.splits import SplitSettings, Temporal
from vitrail.errors import DataError, SettingError
from vitrail.files import atomic_folder, fingerprint, read_json, sha256, write_json
from vitrail.funnel.file import FunnelFile
from vitrail.funnel.fuse import Fused, fuse
from vitrail.funnel.sources import Ask, Source, block_for
from vitrail.funnel.stages import mixed, signals
from vitrail.systems import registry

Int64 = npt.NDArray[np.int64]
NEWEST = 0.2
"""Share of the ranker's requests on which it is selected: the newest."""
MIXES = (0.0, 0.25, 0.5, 0.75)
"""Weights of the retrieval order that are tried."""
FEWEST = 100
"""Static requests from which a weight is chosen; with fewer, whose NDCG@10 is chance, static asking takes that of rolling."""


def moments(log: Log, settings: Temporal) -> tuple[int, int, int]:
    """t0, t1, t2 in microseconds: as many events lie in [t0, t1) as in [t1, t2). Raises DataError where too little lies before t1."""
    from vitrail.data.splits_labels import by_time

    assert log.times is not None
    labels = by_time(log, settings).labels
    times = np.sort(log.times)
    if not (labels == 1).any():
        raise DataError("The split has no validation part, and the ranker of a funnel is trained on its requests: make the share valid greater than 0.")
    t1, t2 = int(log.times[labels == 1].min()), int(log.times[labels == 1].max()) + 1
    before, between = int(np.searchsorted(times, t1)), int((labels == 1).sum())
    if before < 2 * between:
        raise DataError("Too few events lie before the validation part to fit the retrieval systems one step earlier: make the share valid smaller.")
    return int(times[before - between]), t1, t2


def _moment(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def train_rank(
    file: FunnelFile, folder: Path, dataset: Dataset, split: SplitSettings | None, device: str, quiet: bool, say: Any
) -> dict[str, Any]:
    """Fit the system of the rank stage into `folder`/rank -> {mix: weight of the retrieval order that did best on its validation requests, asked as the
    split asks; mixes: {rolling and, from FEWEST requests on, static: the best asked so}; validation: {the same ways: {weight: NDCG@10 there}}}.

    Raises SettingError where the split is not in time, DataError where requests or successes are too few.
    """
    assert file.rank is not None and file.rank.system is not None
    cls = registry.find(file.rank.system)
    if not hasattr(cls, "score"):  # no ranker: a system like any other, fitted as the sources are
        from vitrail.funnel.build import fit_source
        from vitrail.funnel.file import Retrieve

        told = Retrieve(system=file.rank.system, settings=file.rank.settings)
        fit_source(told, dataset, split, folder / "rank", file.seed, device, quiet, say)
        return {"mix": file.rank.mix or 0.0}
    if not isinstance(split, Temporal):
        raise SettingError("The ranker of a funnel is trained from the past only, and this split is not in time: use split: temporal, or rank by a run.")
    if any(source.run is not None for source in file.retrieve):
        raise SettingError("A ranker is trained on retrieval from an earlier cut, and a source that is a finished run has none: name its system and settings.")
    log = dataset.log(ties=split.log_ties, seed=split.seed)
    t0, t1, t2 = moments(log, split)
    earlier = Temporal(valid_from=_moment(t0), test_from=_moment(t1), ties=split.ties, seed=split.seed)
    from vitrail.funnel.build import fit_source, open_sources

    for source in file.retrieve:
        fit_source(source, dataset, earlier, folder / "early" / source.label, file.seed, device, quiet, say, what="fitting, one step earlier,")
    home = folder / "rank-data"
    shaped = [file.rank.horizon, file.rank.negatives, file.rank.requests, file.fuse.model_dump(), file.filter.model_dump()]
    mark = fingerprint([*shaped, dataset.fingerprint, t0, t1, t2, file.seed, "training ends where validation begins", "outcomes are counted once known"])
    if not (home / "made.json").exists() or read_json(home / "made.json") != mark:
        say("asking retrieval in the name of the past")
        sources, base = open_sources(file, folder / "early")
        allowed = None if file.filter.condition is None else base._allow(file.filter.condition)
        requests = _requests(log, t1, t2, file.rank.requests)
        table = impressions(file, dataset, log, sources, base._ties.numpy(), requests, t2, allowed)
        _write(home, dataset, table, t2)
        write_json(home / "made.json", mark)
    say(f"fitting the ranker {file.rank.system}")
    from vitrail.train.fit import fit

    fitted = fit(
        file.rank.system, Dataset(home), split="shown", out=folder / "rank", seed=file.seed, resume=True, settings=file.rank.settings,
        device=device, quiet=quiet,
    )  # fmt: skip
    if file.rank.mix is not None:
        return {"mix": file.rank.mix}
    sources, base = open_sources(file, folder / "early")
    allowed = None if file.filter.condition is None else base._allow(file.filter.condition)
    requests = _requests(log, t1, t2, file.rank.requests)
    newest = requests[-max(int(NEWEST * len(requests)), 1) :]
    model, ties = fitted.recommender.model, base._ties.numpy()
    cut = int(log.times[newest[0]])  # type: ignore[index]
    found = {"rolling": try_mixes(file, model, log, sources, ties, newest, t2, allowed)}
    if len(everybody := _static_requests(log, cut, t2)) >= FEWEST:
        found["static"] = try_mixes(file, model, log, sources, ties, everybody, t2, allowed, at=cut)
    mixes = {way: max(MIXES, key=lambda mix: (values[mix], -mix)) for way, values in found.items()}
    return {
        "mix": mixes["rolling"] if split.rolling else mixes.get("static", mixes["rolling"]),
        "mixes": mixes,
        "validation": {way: {f"{mix:g}": round(value, 6) for mix, value in values.items()} for way, values in found.items()},
    }


def _requests(log: Log, t1: int, t2: int, most: int) -> Int64:
    """Places in the log of the events in [t1, t2) that have a past, oldest first; the newest `most` of them."""
    assert log.times is not None
    events = np.flatnonzero((log.times >= t1) & (log.times < t2))
    events = events[events > log.indptr[log.users[events]]]
    events = events[np.argsort(log.times[events], kind="stable")][-most:]
    if len(events) < 2:
        raise DataError("Fewer than 2 requests with a past lie in the validation part: a ranker cannot be trained from them; leave rank out.")
    return events


def _static_requests(log: Log, moment: int, t2: int) -> Int64:
    """Places in the log of the first event in [moment, t2) of everybody who has one, and a past before it."""
    assert log.times is not None
    events = np.flatnonzero((log.times >= moment) & (log.times < t2))
    _, first = np.unique(log.users[events], return_index=True)
    firsts = events[first]
    return firsts[firsts > log.indptr[log.users[firsts]]]


def _asked(
    file: FunnelFile, log: Log, sources: list[Source], ties: Int64, requests: Int64, t2: int, allowed: Any, edge: int = 0, at: int | None = None
) -> Iterator[tuple[Int64, Sets, Fused, npt.NDArray[np.bool_], Int64, Int64]]:
    """Block by block: places of the requests in the log, histories, candidates, which of these are among the next events, the times, and when that is known:
    at the last of the next events, or at the end where fewer come.

    A request before the moment `edge` knows nothing from then on: else what its person takes afterwards would be learned, and then asked for. With `at`
    all are asked at that moment, before which they have nothing but their pasts, for all that comes until t2.
    """
    assert log.times is not None
    users = log.users
    weights, widths = [told.weight for told in file.retrieve], [told.k for told in file.retrieve]
    # where the events of a user before t2, and before the edge, end
    ends, early = (log.indptr[1:] - np.bincount(users[log.times >= moment], minlength=log.n_users) for moment in (t2, edge))
    horizon = file.rank.horizon if file.rank is not None and at is None else None
    block = block_for(log.n_items)
    for start in range(0, len(requests), block):
        places = requests[start : start + block]
        owner = users[places]
        histories = log.spans(owner, log.indptr[owner], places)
        now = np.asarray(log.times[places]) if at is None else np.full(len(places), at)
        ask = Ask(histories, allowed, histories if file.filter.seen else None, now)
        found = [source.search(ask, k) for source, k in zip(sources, widths, strict=True)]
        fused = fuse(found, weights, log.n_items, ties, file.fuse)
        last = np.where(now < edge, early[owner], ends[owner])
        stops = last if horizon is None else np.minimum(last, places + horizon)
        over = np.zeros(len(places), dtype=bool) if horizon is None else places + horizon <= last
        known = np.where(over, log.times[stops - 1], np.where(now < edge, edge, t2) - 1)
        coming = log.spans(owner, places, stops)
        keys = np.repeat(np.arange(len(places)), coming.lengths.numpy()) * log.n_items + coming.items.numpy()
        taken = np.isin(np.arange(len(places))[:, None] * log.n_items + fused.codes, keys) & (fused.codes >= 0)
        yield places, histories, fused, taken, now, known


def impressions(
    file: FunnelFile, dataset: Dataset, log: Log, sources: list[Source], ties: Int64, requests: Int64, t2: int, allowed: Any
) -> pl.DataFrame:
    """Rows as impressions.parquet has them: user, item, timestamp, outcome_known, clicked, request, part, and what retrieval says of each candidate.

    Of each request with a success among its candidates: all successes, and as many others as asked. Raises DataError where nothing was ever found.
    """
    assert file.rank is not None
    rng = np.random.default_rng((file.seed, 17))
    edge = len(requests) - max(int(NEWEST * len(requests)), 1)
    frames, done = [], 0
    assert log.times is not None
    moment = int(log.times[requests[edge]])
    for places, histories, fused, taken, now, known in _asked(file, log, sources, ties, requests, t2, allowed, moment):
        draw = np.where(taken, -1.0, np.where(fused.codes >= 0, rng.random(taken.shape), np.inf))
        rank = np.argsort(np.argsort(draw, axis=1, kind="stable"), axis=1, kind="stable")
        keep = (taken | ((rank < taken.sum(1, keepdims=True) + file.rank.negatives) & np.isfinite(draw))) & taken.any(1, keepdims=True)
        row, column = np.nonzero(keep)
        columns = {name: values.filter(pl.Series(keep.ravel())).fill_nan(None) for name, values in signals(fused).items()}
        number = done + row
        frames.append(
            pl.DataFrame(
                {
                    "user": dataset.user_ids.decode_series(histories.users.numpy()[row]),
                    "item": dataset.item_ids.decode_series(fused.codes[row, column]),
                    "timestamp": pl.Series(now[row]).cast(pl.Datetime("us", "UTC")),
                    "outcome_known": pl.Series(known[row]).cast(pl.Datetime("us", "UTC")),
                    "clicked": taken[row, column].astype(np.float64),
                    "request": pl.Series(number).cast(pl.String),
                    # a ranker's split wants a test part; the last tenth of the requests it is selected on is that, and nobody reads it
                    "part": np.where(number < edge, "train", np.where(number < edge + 0.9 * (len(requests) - edge), "valid", "test")),
                    **columns,
                }
            )
        )
        done += len(places)
    table = pl.concat(frames)
    lacking = [part for part in ("train", "valid", "test") if part not in table["part"].unique().to_list()]
    if lacking:
        raise DataError(f"Retrieval found none of what people took in the ranker's {lacking[0]} requests: ask for more candidates (k), or leave rank out.")
    return table


def _write(home: Path, dataset: Dataset, table: pl.DataFrame, t2: int) -> None:
    """The data set with these impressions and without any event from t2 on, its codes unchanged."""
    events = dataset.interactions.filter(pl.col("timestamp").dt.epoch("us") < t2)
    with atomic_folder(home, overwrite=True) as folder:
        tables = {"interactions": events, "items": dataset.items, "users": dataset.users, "impressions": table}
        files = {}
        for name, frame in tables.items():
            frame.write_parquet(folder / f"{name}.parquet")
            files[f"{name}.parquet"] = {"sha256": sha256(folder / f"{name}.parquet"), "rows": frame.height}
        pl.DataFrame(schema={"file": pl.String, "line": pl.Int64, "reason": pl.String, "text": pl.String}).write_parquet(folder / "rejects.parquet")
        if (dataset.path / "vectors").is_dir():  # a ranker may read content
            shutil.copytree(dataset.path / "vectors", folder / "vectors")
        info = dataset.info.model_dump(mode="json", exclude_none=True)
        info |= {"files": files, "counts": {**info["counts"], "events": events.height}, "source": [*info["source"], "the candidates of a funnel"]}
        (folder / "dataset.yaml").write_text(yaml.safe_dump(info, sort_keys=False, allow_unicode=True), encoding="utf-8")


def try_mixes(
    file: FunnelFile, model: Any, log: Log, sources: list[Source], ties: Int64, requests: Int64, t2: int, allowed: Any, *, at: int | None = None
) -> dict[float, float]:
    """Weight of the retrieval order -> NDCG@10 on `requests`, whose truth is what the ranker is trained for, or, asked `at` one moment, all that comes; 1 is
    retrieval alone."""
    from vitrail.funnel.stages import Ranking

    ranking = Ranking(model)
    discount = 1.0 / np.log2(np.arange(2, 12))
    tried = (*MIXES, 1.0)
    gained = np.zeros(len(tried))
    for _, histories, fused, taken, now, _ in _asked(file, log, sources, ties, requests, t2, allowed, at=at):
        order = ranking.order(fused, ranking.scores(histories, fused, now))
        ideal = np.cumsum(discount)[np.minimum(np.maximum(taken.sum(1), 1), 10) - 1]
        for place, mix in enumerate(tried):
            chosen = np.take_along_axis(taken, mixed(order, mix) if mix else order, axis=1)[:, :10]
            gained[place] += float((chosen @ discount[: chosen.shape[1]] / ideal).sum())
    return dict(zip(tried, (gained / max(len(requests), 1)).tolist(), strict=True))
