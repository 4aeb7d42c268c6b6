"""The battery of rankers: the checks of `vitrail.testing` on a checkerboard of impressions. Letters: U users, N items, K candidates.

User u clicked four items of its colour, and was shown items of both; it clicks those of its colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from vitrail.data.batchers_rows import gather
from vitrail.data.batches import Impressions, Sets
from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.fields import Catalogue, FeatureSpec, Field
from vitrail.data.impressions import Rows
from vitrail.data.log import Log
from vitrail.data.schema import DatasetInfo
from vitrail.errors import SettingError
from vitrail.funnel.recommender import Recommender, load
from vitrail.systems import registry
from vitrail.systems.base import Given, Sizes
from vitrail.systems.ranker import Ranker
from vitrail.testing import CONTENT, quick, stopped_and_resumed, write_content
from vitrail.train.fit import evaluate_run, fit

SIDE = 16
HOUR = 3_600_000_000
TOY = 8
"""Items of `toy_ranker`."""


def impressions(folder: Path, *, shuffled: bool = False, side: int = SIDE) -> Dataset:
    """Four clicks a user, then eight items shown, a colour each in turn. `shuffled` writes the same rows in another order."""
    rng = np.random.default_rng(0)
    before, shown = [], []
    for u in range(side):
        own = rng.permutation([i for i in range(side) if i % 2 == u % 2]).tolist()
        other = rng.permutation([i for i in range(side) if i % 2 != u % 2]).tolist()
        before += [(f"u{u}", f"i {i}", hour * HOUR) for hour, i in enumerate(own[:4])]
        mixed = [item for pair in zip(own[4:8], other, strict=False) for item in pair]
        shown += [(f"u{u}", f"i {i}", (10 + n) * HOUR, float(i % 2 == u % 2)) for n, i in enumerate(mixed)]
    schema = {"user": pl.String, "item": pl.String, "timestamp": pl.Int64}
    events = pl.DataFrame(before, schema=schema, orient="row").with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
    table = pl.DataFrame(shown, schema=schema | {"clicked": pl.Float64}, orient="row").with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
    table = table.with_columns(part=pl.Series((["train"] * 4 + ["valid"] * 2 + ["test"] * 2) * side))
    items = pl.DataFrame({"item": [f"i {i}" for i in range(side)], "colour": ["white" if i % 2 else "black" for i in range(side)]})
    if shuffled:
        events, table, items = events.sample(fraction=1.0, shuffle=True, seed=1), table.sample(fraction=1.0, shuffle=True, seed=2), items.reverse()
    info = DatasetInfo(name="impressions", order="timestamp", columns={"items": {"colour": "category"}})
    data = write_dataset(folder, info, events, items, overwrite=True, impressions=table)
    write_content(data, side, shuffled=shuffled, rng=rng)
    return data


def toy_ranker(name: str, signal: bool = False, **settings: Any) -> Ranker:
    """A ranker of TOY items with a category, tags and content each, four users with a city, one field of the impression; nothing is fitted."""
    fields = [
        Field(name="item", whose="item", kind="id", codes=TOY + 2), Field(name="category", whose="item", kind="category", codes=4),
        Field(name="tags", whose="item", kind="categories", codes=5), Field(name="city", whose="user", kind="category", codes=4),
        Field(name="slot", whose="event", kind="category", codes=4, values=["left", "right"]),
    ]  # fmt: skip
    spec = FeatureSpec(fields=fields, signal=signal, signals=[0.5] if signal else [])
    items = np.stack([np.arange(TOY) + 2, np.arange(TOY) % 2 + 2], 1).astype(np.int32)
    tags = np.array([[2, 3], [4, 0]] * (TOY // 2), dtype=np.int32)
    catalogue = Catalogue(items, np.array([[2], [3], [2], [0], [1]], dtype=np.int32), {"tags": tags})
    tables = {key: torch.from_numpy(value) for key, value in catalogue.arrays().items()} | {"occurrences": torch.arange(TOY) + 1}
    torch.manual_seed(0)
    cls = registry.find(name)
    vectors = {name: torch.randn(TOY, width) for name, width in CONTENT.items()}
    masks = {name: torch.arange(TOY) != place for place, name in enumerate(CONTENT)}
    config = cls.Config.of({"dim": 4, "length": 5, "scale": 0.5} | settings)
    model = cls(config, Sizes(4, TOY, dict(CONTENT), spec), Given(tables=tables, vectors=vectors, masks=masks)).eval()
    assert isinstance(model, Ranker)
    return model


def toy_rows(n: int = 12, weights: bool = False) -> Rows:
    """Rows for it, over histories of 5, 4, 1 and no events; with `weights`, what happened at each is known."""
    rng = np.random.default_rng(0)
    log = Log(np.array([0, 5, 9, 10, 10]), rng.integers(0, TOY, 10).astype(np.int32), TOY, None, np.array([0, 1] * 5, dtype=np.float32) if weights else None)
    users, items, labels = rng.integers(0, 4, n), rng.integers(0, TOY, n), rng.integers(0, 2, n).astype(np.float32)
    signals = np.array([1, 2] * 5, dtype=np.int8) if weights else None
    return Rows(users, items, labels, log.indptr[users + 1], log, fields=rng.integers(0, 4, (n, 1)).astype(np.int32), signals=signals)


Tensors = Mapping[str, Tensor]


def tiny(name: str, *, fields: Sequence[Field] = (), vectors: Tensors | None = None, masks: Tensors | None = None, **changed: Any) -> Any:
    """The ranker `name` with its starting weights, in evaluation mode: N = 8 items of two categories and some tags, four users with a city, and `fields` of
    the impression (none given: one, `slot`). `vectors` and `masks` of items by name (none given: drawn ones, where it reads some); `changed` settings."""
    known = [
        Field(name="item", whose="item", kind="id", codes=10), Field(name="category", whose="item", kind="category", codes=4),
        Field(name="tags", whose="item", kind="categories", codes=5), Field(name="city", whose="user", kind="category", codes=4),
        *(fields or [Field(name="slot", whose="event", kind="category", codes=4, values=["left", "right"])]),
    ]  # fmt: skip
    places = np.arange(8)
    tags = np.array([[2, 3], [4, 0]] * 4, dtype=np.int32)
    catalogue = Catalogue(np.stack([places + 2, places % 2 + 2], 1).astype(np.int32), np.array([[2], [3], [2], [0], [1]], dtype=np.int32), {"tags": tags})
    tables = {key: torch.from_numpy(value) for key, value in catalogue.arrays().items()} | {"occurrences": torch.arange(8) + 1}
    torch.manual_seed(0)
    cls = registry.find(name)
    read = changed.get("vectors", cls.Config.model_fields["vectors"].default)
    content = dict(vectors) if vectors is not None else {each: torch.randn(8, 3) for each in read}
    has = dict(masks) if masks is not None else {each: torch.ones(8, dtype=torch.bool) for each in content}
    values = {"dim": 4, "length": 5, "scale": 0.5} | ({"vectors": tuple(content)} if content else {})
    config = cls.Config.of({key: value for key, value in values.items() if key in cls.Config.model_fields} | changed)
    sizes = Sizes(4, 8, {key: value.shape[1] for key, value in content.items()}, FeatureSpec(fields=known))
    return cls(config, sizes, Given(vectors=content, masks=has, tables=tables)).eval()


def tiny_rows(n: int = 12, codes: int = 4, fields: int = 1) -> Rows:
    """Impressions for `tiny`, drawn: histories of 5, 4, 1 and no events; `fields` columns with codes below `codes`."""
    rng = np.random.default_rng(0)
    log = Log(np.array([0, 5, 9, 10, 10]), rng.integers(0, 8, 10).astype(np.int32), 8)
    users = rng.integers(0, 4, n)
    drawn, labels = rng.integers(0, codes, (n, fields)).astype(np.int32), rng.integers(0, 2, n).astype(np.float32)
    return Rows(users, rng.integers(0, 8, n), labels, log.indptr[users + 1], log, fields=drawn)


def tiny_batch(rows: Rows | None = None) -> Impressions:
    """All of `rows` (none: of `tiny_rows`) as a batch."""
    rows = tiny_rows() if rows is None else rows
    return gather(rows, np.arange(len(rows)), 5)


def settings_of(name: str, **changed: Any) -> dict[str, Any]:
    """Settings that make a ranker learn the checkerboard in a moment."""
    wanted = {"epochs": 30, "batch": 16, "lr": 0.02, "metric": "auc", "patience": 0, "activation": "relu", "scale": 0.1, "dropout": 0.0}
    return quick(name, **(wanted | changed))


def _ranker(recommender: Recommender) -> Ranker:
    assert isinstance(recommender.model, Ranker)
    return recommender.model


def asked(recommender: Recommender, users: list[str]) -> Sets:
    """The histories of `users`."""
    return recommender.known.histories(recommender.user_ids.encode(users))


def everything(recommender: Recommender, n: int) -> torch.Tensor:
    """(n, N) all items as candidates."""
    return torch.arange(len(recommender.item_ids)).expand(n, -1)


def check_overfits(name: str, data: Dataset) -> Recommender:
    """It tells successes from failures in training; one that reads the history of a person also of items never shown to them."""
    recommender = fit(name, data, settings=settings_of(name), quiet=True).recommender
    model = _ranker(recommender)
    from vitrail.data.impressions import make_impressions, rank_split
    from vitrail.evaluation.binary import auc

    rows = model.source.fill(make_impressions(data, rank_split(data.info, None)).train)
    value = auc(rows.labels, model.predict(rows).numpy())
    assert value >= (0.99 if model.can.personal else 0.5), f"{name} does not learn the checkerboard: AUC {value:.3f}"
    chances = model.score(asked(recommender, ["u0", "u1"]), everything(recommender, 2))
    assert chances.shape == (2, SIDE) and bool(((chances >= 0) & (chances <= 1)).all())
    return recommender


def check_round_trip(recommender: Recommender, folder: Path) -> None:
    """Settings survive JSON; saved and loaded, it answers the same, bit for bit, calibration included, without the data set."""
    config = recommender.model.config
    assert type(config).of(config.model_dump(mode="json")) == config
    recommender.save(folder / "saved")
    again = load(folder / "saved")
    histories, candidates = asked(recommender, ["u0", "u1", "u2"]), everything(recommender, 3)
    assert torch.equal(_ranker(recommender).score(histories, candidates), _ranker(again).score(histories, candidates))
    assert recommender.recommend(users=["u0", "u1"], k=4).equals(again.recommend(users=["u0", "u1"], k=4))


def check_batches(recommender: Recommender) -> None:
    """One person alone and among 64, one candidate alone and among all: the same chances to rounding."""
    model, users = _ranker(recommender), [f"u{u % SIDE}" for u in range(64)]
    histories, candidates = asked(recommender, users), everything(recommender, 64)
    together = model.score(histories, candidates)
    alone = torch.cat([model.score(histories.slice(u, u + 1), candidates[u : u + 1]) for u in range(SIDE)])
    torch.testing.assert_close(together[:SIDE], alone, rtol=1e-4, atol=1e-5)
    single = model.score(histories.slice(3, 4), candidates[3:4, 5:6])
    torch.testing.assert_close(together[3:4, 5:6], single, rtol=1e-4, atol=1e-5)


def check_strangers(recommender: Recommender) -> None:
    """Unknown user, empty history, an item that training never saw: a chance, not an error; candidates that do not fit: a sentence."""
    model = _ranker(recommender)
    nobody = Sets(torch.tensor([-1, -1]), torch.tensor([0, 0, 2]), torch.tensor([0, 1]))
    assert bool(torch.isfinite(model.score(nobody, everything(recommender, 2))).all())
    assert bool(torch.isfinite(model.score(nobody, everything(recommender, 2), now=0)).all())
    known = recommender.recommend(histories=[["i 0", "no such item"]], k=3)
    assert known.height == 3 and set(recommender.recommend(users=["nobody"], k=3)["fallback"]) == {"popular"}
    try:
        model.score(nobody, torch.arange(4))
        raise AssertionError("candidates that do not fit must be refused")
    except SettingError:
        pass


def check_item_order(name: str, data: Dataset, folder: Path) -> None:
    """The same rows in another order: the same chances, bit for bit."""
    found = []
    for d in (data, impressions(folder / "shuffled", shuffled=True)):
        recommender = fit(name, d, settings=settings_of(name, epochs=2), quiet=True).recommender
        found.append(_ranker(recommender).score(asked(recommender, ["u0", "u5"]), everything(recommender, 2)))
    assert torch.equal(*found)


def check_evaluates(name: str, data: Dataset, folder: Path) -> None:
    """The run is measured: every metric of rankers with its interval; a run stopped and resumed ends as one not stopped, bit for bit."""
    if registry.find(name).trained:
        run, again = stopped_and_resumed(name, data, folder, settings_of(name, epochs=3) | {"checkpoint_seconds": 0.0}, split=None)
    else:
        run, again = (fit(name, data, out=where, settings=settings_of(name), quiet=True) for where in (None, folder / "stopped"))
    a, b = run.recommender.model.state_dict(), again.recommender.model.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[key].nan_to_num(), b[key].nan_to_num()) for key in a)
    evaluation = evaluate_run(folder / "stopped")
    assert {"auc", "logloss", "ece"} <= evaluation.metrics.keys() and evaluation.ci["auc"][0] <= evaluation.metrics["auc"] <= evaluation.ci["auc"][1]


def ranker_battery(name: str, folder: Path) -> None:
    """Every check on the ranker `name`. Raises AssertionError."""
    registry.find(name)
    data = impressions(folder / "data")
    recommender = check_overfits(name, data)
    check_round_trip(recommender, folder)
    check_batches(recommender)
    check_strangers(recommender)
    check_item_order(name, data, folder)
    check_evaluates(name, data, folder)
