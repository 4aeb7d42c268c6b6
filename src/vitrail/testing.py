"""The battery: what every system must pass, found by its name in the registry. A plug-in's tests can call `battery(name, folder)`.

Letters: U users, N items. Data are a checkerboard: users and items of one colour belong together, and each user lacks
one item of the own colour, the only right answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.schema import DatasetInfo
from vitrail.data.vectors import write_vectors
from vitrail.errors import DataError
from vitrail.funnel.recommender import Recommender, load
from vitrail.systems import registry
from vitrail.systems.base import TrainSettings
from vitrail.train.fit import FitResult, fit

CPU_SECONDS = 3.0
"""What the whole battery may cost a system."""
SIDE = 24
CONTENT = {"text": 12, "image": 9}
"""Names and widths of the vectors of the checkerboard, for systems that read content."""


def checkerboard(folder: Path, *, shuffled: bool = False, side: int = SIDE) -> Dataset:
    """User u has every item of its colour but the one opposite, at hourly times in a seeded order. `shuffled` writes the
    same events and items in another order of rows."""
    rng = np.random.default_rng(0)
    rows = []
    for u in range(side):
        own = [i for i in range(side) if i % 2 == u % 2 and i != u]
        rows += [(f"u{u}", f"i {i}", hour) for hour, i in enumerate(rng.permutation(own).tolist())]
    table = pl.DataFrame(rows, schema={"user": pl.String, "item": pl.String, "hour": pl.Int64}, orient="row")
    events = table.with_columns(timestamp=(pl.col("hour") * 3_600_000_000).cast(pl.Datetime("us", "UTC"))).drop("hour")
    items = pl.DataFrame({"item": [f"i {i}" for i in range(side)], "colour": ["white" if i % 2 else "black" for i in range(side)]})
    if shuffled:
        events, items = events.sample(fraction=1.0, shuffle=True, seed=1), items.reverse()
    info = DatasetInfo(name="checkerboard", order="timestamp", columns={"items": {"colour": "category"}})
    data = write_dataset(folder, info, events, items, overwrite=True)
    write_content(data, side, shuffled=shuffled, rng=rng)
    return data


def write_content(data: Dataset, side: int, *, shuffled: bool, rng: np.random.Generator) -> None:
    """Write the vectors of CONTENT for items `i 0` to `i side - 1`: random directions about one of the colour."""
    for n, (name, width) in enumerate(CONTENT.items()):
        values = rng.normal(size=(side, width)).astype(np.float32)
        values[:, 0] += np.where(np.arange(side) % 2, 6.0, -6.0)
        # one item of each kind has no content
        has = np.arange(side) != side - 1 - n
        order = np.flatnonzero(has)[::-1] if shuffled else np.flatnonzero(has)
        write_vectors(data.path, name, values[order], [f"i {i}" for i in order], encoder="random", kind="other")


def quick(name: str, **settings: Any) -> dict[str, Any]:
    """Settings that make a system learn the checkerboard in a moment."""
    cls = registry.find(name)
    fields = cls.Config.model_fields
    wanted = {"dim": 4, "epochs": 40, "batch": 64, "lr": 0.03, "dropout": 0.1} | cls.toy | settings
    return {key: value for key, value in wanted.items() if key in fields}


def right_answers(recommender: Recommender, side: int = SIDE) -> float:
    """Share of users whose first answer is the one item they lack."""
    top = recommender.recommend(users=[f"u{u}" for u in range(side)], k=1)
    return float((top["item"].to_numpy() == np.array([f"i {u}" for u in range(side)])).mean())


def check_overfits(name: str, data: Dataset, folder: Path) -> Recommender:
    """It learns the checkerboard; a system that is not personal gives everybody the same order."""
    recommender = fit(name, data, split="none", settings=quick(name), quiet=True).recommender
    if recommender.model.can.personal:
        assert right_answers(recommender) == 1.0, f"{name} does not learn the checkerboard"
    else:
        lists = recommender.recommend(users=["u0", "u1"], k=5, include_seen=True)
        assert lists.filter(pl.col("user") == "u0")["item"].to_list() == lists.filter(pl.col("user") == "u1")["item"].to_list()
    return recommender


def check_round_trip(recommender: Recommender, folder: Path) -> None:
    """Its settings survive JSON; saved and loaded, it answers the same, bit for bit, without the data set."""
    config = recommender.model.config
    assert type(config).of(config.model_dump(mode="json")) == config
    recommender.save(folder / "saved")
    again = load(folder / "saved")
    users = ["u0", "u1", "u2"]
    assert recommender.recommend(users=users, k=4).equals(again.recommend(users=users, k=4))


def check_batches(recommender: Recommender) -> None:
    """One question alone and among 64: the same list, the same scores to rounding."""
    users = [f"u{u % SIDE}" for u in range(64)]
    together = recommender.recommend(users=users, k=3)
    alone = pl.concat([recommender.recommend(users=[user], k=3) for user in users[:SIDE]])
    first = together.filter(pl.col("query") < SIDE)
    assert first["item"].to_list() == alone["item"].to_list()
    np.testing.assert_allclose(first["score"].to_numpy(), alone["score"].to_numpy(), rtol=1e-4, atol=1e-4)
    plain = recommender.answer(users[0], None, 3)["items"]
    assert [row["item"] for row in plain] == first.filter(pl.col("query") == 0)["item"].to_list()


def check_strangers(recommender: Recommender) -> None:
    """Unknown user, unknown item, empty history: the popular list, and it says so. A filter that leaves nothing: a sentence."""
    for table in (recommender.recommend(users=["nobody"], k=3), recommender.recommend(histories=[[], ["no such item"]], k=3)):
        if recommender.model.can.personal:
            assert set(table["fallback"]) == {"popular"}
        assert table.height % 3 == 0 and table["item"].null_count() == 0
    known = recommender.recommend(histories=[["i 0", "i 2", "i 4", "no such item"]], k=3)
    assert known.height == 3 and not set(known["item"]) & {"i 0", "i 2", "i 4"}
    if recommender.model.can.new_users and recommender.model.can.personal:
        assert known["fallback"].null_count() == 3 and all(int(i[2:]) % 2 == 0 for i in known["item"])
    white = recommender.recommend(users=["u0"], k=50, filter='colour == "white"')
    assert all(int(i[2:]) % 2 == 1 for i in white["item"])
    assert recommender.recommend(users=["u0"], k=1000, include_seen=True).height == SIDE
    try:
        recommender.recommend(users=["u0"], filter='colour == "green"')
        raise AssertionError("a filter that leaves nothing must be refused")
    except DataError:
        pass
    if recommender.model.can.similar:
        near = recommender.similar(["i 0"], k=5)
        assert near.height == 5 and "i 0" not in near["item"].to_list()


def check_dense(recommender: Recommender) -> None:
    """It says truthfully whether its scores are inner products; if so, an exact index of its item vectors gives the same answers."""
    from vitrail.index.exact import ExactIndex

    model, histories = recommender.model, recommender._questions([f"u{u}" for u in range(SIDE)], None)
    with torch.inference_mode():
        queries, items = model.query_vectors(histories), model.item_vectors()
        assert (queries is not None, items is not None) == (model.can.dense, model.can.dense), f"{recommender.name}: can.dense is not the truth"
        if queries is None or items is None:
            return
        torch.testing.assert_close(queries @ items.T, model.scores(histories).float(), rtol=1e-4, atol=1e-4)
    through = recommender.with_index(ExactIndex(recommender.item_ids.ids.to_list(), items))
    asked: dict[str, Any] = {"users": ["u0", "nobody", "u1"], "k": 5, "filter": 'colour == "white"'}
    found, plain = through.recommend(**asked), recommender.recommend(**asked)
    assert found.drop("score", "sources").equals(plain.drop("score", "sources"))
    np.testing.assert_allclose(found["score"].to_numpy(), plain["score"].to_numpy(), rtol=1e-4, atol=1e-4)


def check_item_order(name: str, data: Dataset, folder: Path) -> None:
    """The same events and items in another order of rows: the same answers, bit for bit."""
    settings = quick(name, epochs=2)
    tables = [
        fit(name, d, split="none", settings=settings, quiet=True).recommender.recommend(users=["u0", "u5"], k=6)
        for d in (data, checkerboard(folder / "shuffled", shuffled=True))
    ]
    assert tables[0].equals(tables[1])


class _Stop(Exception):
    pass


def stopped_and_resumed(name: str, data: Dataset, folder: Path, settings: dict[str, Any], *, split: str | None) -> tuple[FitResult, FitResult]:
    """A fit that is not stopped, and one that was stopped after three steps and resumed, in `folder/stopped`."""
    cls = registry.find(name)
    whole = fit(name, data, split=split, settings=settings, quiet=True)
    steps, original = 0, cls.after_step

    def stopping(self: Any, parameters: Iterable[nn.Parameter]) -> None:
        nonlocal steps
        original(self, parameters)
        steps += 1
        if steps == 3:
            raise _Stop

    cls.after_step = stopping  # type: ignore[method-assign]
    try:
        fit(name, data, split=split, out=folder / "stopped", settings=settings, quiet=True)
        raise AssertionError(f"{name} ended before it was stopped")
    except _Stop:
        pass
    finally:
        cls.after_step = original  # type: ignore[method-assign]
    return whole, fit(name, data, split=split, out=folder / "stopped", settings=settings, resume=True, quiet=True)


def check_resume(name: str, data: Dataset, folder: Path) -> None:
    """A run stopped in the middle of an epoch and resumed ends with the weights of a run not stopped, bit for bit."""
    if not issubclass(registry.find(name).Config, TrainSettings):
        return
    settings = quick(name, epochs=3, batch=16) | {"checkpoint_seconds": 0.0}
    whole, resumed = stopped_and_resumed(name, data, folder, settings, split="leave-last-out")
    a, b = whole.recommender.model.state_dict(), resumed.recommender.model.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert [r["loss"] for r in whole.progress.curve] == [r["loss"] for r in resumed.progress.curve]


def battery(name: str, folder: Path, *, limit: float | None = CPU_SECONDS, say: Callable[[str], None] = lambda _: None) -> float:
    """Run every check on the system `name` in `folder`; returns the CPU seconds spent. Raises AssertionError."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data = checkerboard(folder / "data")
        data.log(), data.item_ids.hashes
        ranks = registry.find(name).card.stage == "rank"
        started = time.process_time()
        if ranks:
            from vitrail.testing_rank import ranker_battery

            ranker_battery(name, folder)
        else:
            recommender = check_overfits(name, data, folder)
            check_round_trip(recommender, folder)
            check_batches(recommender)
            check_strangers(recommender)
            check_dense(recommender)
            check_item_order(name, data, folder)
            check_resume(name, data, folder)
        spent = time.process_time() - started
    finally:
        torch.set_num_threads(threads)
    say(f"{name}: {spent:.2f} CPU seconds")
    assert limit is None or spent <= limit, f"the battery took {spent:.1f} CPU seconds for {name}, more than {limit}"
    return spent
