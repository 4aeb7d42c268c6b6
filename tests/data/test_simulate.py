"""The simulator: a valid data set, the same bytes for the same settings, and a truth that the events tell."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vitrail.data.dataset import Dataset
from vitrail.data.simulate import SimulatorSettings, simulate, true_utility
from vitrail.data.simulate_catalogue import make_catalogue
from vitrail.data.simulate_events import Crowd, make_people
from vitrail.data.vocabulary import Vocabulary
from vitrail.errors import DataError, ResourceError, SettingError
from vitrail.files import sha256

SMALL = {"users": 300, "items": 200, "events": 4_000, "categories": 6, "seed": 3}


def settings(**values: object) -> SimulatorSettings:
    return SimulatorSettings.of({**SMALL, "pictures": False, **values})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The default shop without pictures: 2,000 users, 1,000 items, 40,000 events."""
    return simulate(tmp_path_factory.mktemp("shop") / "shop", settings=SimulatorSettings(pictures=False))


def files(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file() and "cache" not in file.parts}


def test_folder_is_a_data_set(shop: Dataset) -> None:
    shop.verify()
    events, items, users = shop.interactions, shop.items, shop.users
    assert (events.height, items.height, users.height) == (40_000, 1_000, 2_000)
    assert shop.info.counts == {"users": 2_000, "items": 1_000, "events": 40_000, "rejected": 0, "repaired": 0}
    assert events.schema == {"user": pl.String, "item": pl.String, "timestamp": pl.Datetime("us", "UTC"), "event": pl.String, "value": pl.Float64}
    assert items["item"].to_list() == Vocabulary.of(items["item"]).ids.to_list(), "items must stand in code order"
    assert users["user"].to_list() == Vocabulary.of(users["user"]).ids.to_list(), "users must stand in code order"
    log = shop.log()
    assert len(log) == 40_000
    assert (np.diff(log.times)[np.diff(log.users) == 0] >= 0).all()
    assert set(shop.info.columns["items"]) | {"item"} == set(items.columns)
    assert events.null_count().sum_horizontal()[0] == 0
    assert items.null_count().sum_horizontal()[0] == 0


def test_same_settings_same_bytes_and_another_seed_another_shop(tmp_path: Path) -> None:
    one = simulate(tmp_path / "a" / "shop", settings=settings(pictures=True, items=40))
    two = simulate(tmp_path / "b" / "shop", settings=settings(pictures=True, items=40))
    other = simulate(tmp_path / "c" / "shop", settings=settings(pictures=True, items=40, seed=4))
    assert files(one.path) == files(two.path)
    assert one.fingerprint == two.fingerprint != other.fingerprint


def test_how_much_is_held_at_once_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = settings(users=2_500, events=9_000)
    one = simulate(tmp_path / "a", settings=many)
    monkeypatch.setattr("vitrail.data.simulate.GROUP", 100)
    two = simulate(tmp_path / "b", settings=many)
    assert one.interactions.equals(two.interactions)
    assert pl.read_parquet(one.path / "truth/user_interests.parquet").equals(pl.read_parquet(two.path / "truth/user_interests.parquet"))


def test_a_block_does_not_depend_on_those_before_it() -> None:
    many = settings(users=3_000, events=9_000)
    catalogue = make_catalogue(many)
    one, two = (Crowd(many, catalogue, make_people(many, many.categories)) for _ in range(2))
    one.block(0)
    first, second = one.block(1), two.block(1)
    for field in fields(first):
        assert np.array_equal(getattr(first, field.name), getattr(second, field.name)), field.name


def test_nothing_is_sold_before_its_release_and_cold_items_come_last(shop: Dataset) -> None:
    sold = shop.interactions.join(shop.items.select("item", "released"), on="item")
    assert (sold["timestamp"].dt.date() >= sold["released"]).all()
    factors = pl.read_parquet(shop.path / "truth/item_factors.parquet")
    assert factors["cold"].sum() == 50
    first = shop.interactions.group_by("item").agg(pl.col("timestamp").min())
    cold = first.join(factors.filter("cold"), on="item")
    assert cold.height > 10, "cold items must be met, or nothing can be tested on them"
    assert cold["timestamp"].min() >= pl.Series(["2024-11-24"]).str.to_datetime(time_zone="UTC")[0]


def test_repeats_are_rare_and_events_have_depth(shop: Dataset) -> None:
    distinct = shop.interactions.select("user", "item").n_unique()
    assert 0.9 < distinct / 40_000 < 1.0
    share = dict(shop.interactions["event"].value_counts(normalize=True).iter_rows())
    assert share["view"] > share["cart"] > 0.05
    assert share["buy"] > 0.05
    spent = shop.interactions.join(shop.items.select("item", "price"), on="item")
    assert (spent["value"] == pl.select(pl.when(spent["event"] == "buy").then(spent["price"]).otherwise(0.0)).to_series()).all()


def test_time_has_a_rhythm_and_sessions(shop: Dataset) -> None:
    hours = np.bincount(shop.interactions["timestamp"].dt.hour().to_numpy(), minlength=24)
    assert hours[18:22].mean() > 4 * hours[1:5].mean()
    weekdays = np.bincount(shop.interactions["timestamp"].dt.weekday().to_numpy(), minlength=8)[1:]
    assert weekdays[5:].mean() > 1.15 * weekdays[:5].mean()
    log = shop.log()
    gap = np.diff(log.times)[np.diff(log.users) == 0] / 1e6
    assert 0.5 < (gap < 3_600).mean() < 0.9, "most events follow another within the hour, many open a session"


def test_popularity_and_exposure_settings_act(tmp_path: Path) -> None:
    def top_share(**values: object) -> float:
        shop = simulate(tmp_path / "shop", settings=settings(cold_items=0.0, users=1_500, events=15_000, **values), overwrite=True)
        counts = np.sort(shop.log().item_counts)[::-1]
        return float(counts[:10].sum() / counts.sum())

    blind, biased = top_share(exposure_bias=0.0), top_share(exposure_bias=1.5)
    assert top_share(exposure_bias=0.0, popularity_skew=0.0) < blind < biased
    assert biased > 2 * blind


def test_season_setting_acts(tmp_path: Path) -> None:
    def variation(strength: float) -> float:
        shop = simulate(tmp_path / "shop", settings=settings(season_strength=strength, drift=0.0, events=20_000), overwrite=True)
        table = shop.interactions.join(shop.items.select("item", "category"), on="item")
        table = table.group_by("category", table["timestamp"].dt.month().alias("month")).len().pivot("month", index="category", values="len").fill_null(0)
        shares = table.drop("category").to_numpy().astype(float)
        shares = shares / shares.sum(axis=0)
        return float((shares.std(axis=1) / shares.mean(axis=1)).mean())

    assert variation(1.5) > 2 * variation(0.0)


def test_drift_setting_is_the_share_of_interests_that_change(tmp_path: Path) -> None:
    for drift in (0.0, 0.4, 1.0):
        shop = simulate(tmp_path / "shop", settings=settings(drift=drift, interests_per_user=5), overwrite=True)
        truth = pl.read_parquet(shop.path / "truth/user_interests.parquet")
        assert abs((truth.height - 1_500) / 1_500 - drift) < 0.05
        weight = truth.filter(pl.col("to") == truth["to"].max()).group_by("user").agg(pl.col("weight").sum())["weight"]
        assert np.allclose(weight, 1.0)


def test_attributes_of_users_tell_a_little_of_their_interests(shop: Dataset) -> None:
    truth = pl.read_parquet(shop.path / "truth/user_interests.parquet").join(pl.read_parquet(shop.path / "truth/interests.parquet"), on="interest")
    counts = truth.join(shop.users, on="user").group_by("age", "category").len().pivot("category", index="age", values="len")
    table = counts.fill_null(0).drop("age").to_numpy().astype(float)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    cramer = np.sqrt(((table - expected) ** 2 / expected).sum() / table.sum() / (min(table.shape) - 1))
    assert 0.1 < cramer < 0.5


def test_events_recover_the_categories(shop: Dataset) -> None:
    """Nearest items by cosine of who had them are of the same category and subcategory far above chance."""
    matrix = shop.log().matrix()
    seen = np.flatnonzero(np.bincount(matrix.indices, minlength=1_000) >= 5)
    columns = np.asarray(matrix.tocsc()[:, seen].todense())
    columns /= np.linalg.norm(columns, axis=0)
    cosine = columns.T @ columns
    np.fill_diagonal(cosine, -1)
    nearest = cosine.argsort(axis=1)[:, -10:]
    for column, factor in (("category", 4), ("subcategory", 8)):
        label = shop.items[column].to_numpy()[seen]
        match = (label[nearest] == label[:, None]).mean()
        chance = (label[:, None] == label).mean()
        assert match > factor * chance, (column, match, chance)


def test_truth_ranks_the_last_events_far_better_than_popularity(shop: Dataset) -> None:
    log = shop.log()
    users = np.flatnonzero(log.lengths >= 5)
    last = log.indptr[users + 1] - 1
    target = log.items[last].astype(np.int64)
    scores = true_utility(shop, [str(u) for u in shop.user_ids.decode(users)], shop.items["item"].to_list())
    popular = np.bincount(np.delete(log.items, last), minlength=1_000).astype(float)

    def hits(score: np.ndarray) -> float:
        score = score.copy()
        for row, user in enumerate(users):
            score[row, log.items[log.indptr[user] : log.indptr[user + 1] - 1]] = -np.inf
        own = score[np.arange(len(users)), target][:, None]
        return float(((score > own).sum(axis=1) < 10).mean())

    truth, crowd = hits(scores), hits(np.broadcast_to(popular, scores.shape))
    assert truth > 2 * crowd, (truth, crowd)
    assert truth > 0.08


def test_text_and_pictures_tell_the_category(tmp_path: Path) -> None:
    from PIL import Image

    shop = simulate(tmp_path / "shop", settings=settings(pictures=True, items=60))
    for row in shop.items.iter_rows(named=True):
        assert row["subcategory"] in row["title"]
        assert row["colour"] in row["title"]
        assert row["category"] in row["description"]
        with Image.open(shop.image_root / row["image"]) as picture:
            assert picture.size == (64, 64)
            pixels = np.asarray(picture.convert("RGB"), dtype=float)
        # The strongest pixels of a grey item have no hue; those of the others do.
        spread = float((pixels.max(axis=2) - pixels.min(axis=2)).max())
        assert (spread < 60) == (row["colour"] == "grey")
    assert shop.items["title"].n_unique() > 50


def test_true_utility_asks_by_outside_id_and_time(shop: Dataset) -> None:
    users, items = shop.users["user"].to_list()[:5], shop.items["item"].to_list()[:7]
    table = true_utility(shop, users, items)
    assert table.shape == (5, 7)
    assert table.dtype == np.float32
    assert np.allclose(true_utility(shop, users[::-1] + users[:1], items[::-1])[:5], table[::-1, ::-1], atol=1e-5)
    truth = pl.read_parquet(shop.path / "truth/user_interests.parquet")
    drifter = truth.filter(pl.col("to") < truth["to"].max())["user"][0]
    start = truth["from"].min()
    assert not np.allclose(true_utility(shop, [drifter], items, at=start), true_utility(shop, [drifter], items))
    with pytest.raises(DataError, match='no user "nobody"'):
        true_utility(shop, ["nobody"], items)


@pytest.mark.parametrize(
    "values",
    [
        {"users": 1, "items": 1, "events": 1, "categories": 1},
        {"users": 1, "items": 1, "events": 30, "days": 1},
        {"users": 50, "items": 3, "events": 10, "categories": 200},
        {"users": 30, "items": 20, "events": 500, "cold_items": 1.0},
        {"users": 30, "items": 20, "events": 500, "cold_items": 1.0, "days": 1},
        {"users": 30, "items": 20, "events": 500, "popularity_skew": 5.0, "exposure_bias": 5.0, "season_strength": 5.0, "drift": 1.0},
    ],
)
def test_extreme_shops(tmp_path: Path, values: dict[str, object]) -> None:
    shop = simulate(tmp_path / "shop", settings=settings(**values))
    assert shop.interactions.height == values["events"]
    assert len(shop.log()) == values["events"]
    sold = shop.interactions.join(shop.items.select("item", "released"), on="item")
    assert (sold["timestamp"].dt.date() >= sold["released"]).all()
    assert sold["timestamp"].dt.year().is_between(2024, 2024).all()


def test_bad_settings_and_taken_places_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"users.*greater than 0"):
        SimulatorSettings.of({"users": 0})
    with pytest.raises(SettingError, match='Did you mean "popularity_skew"'):
        SimulatorSettings.of({"popularity_skw": 1.0})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        simulate(tmp_path / "full", settings=settings())
    assert (tmp_path / "full" / "file").read_text() == "mine"


def test_a_full_disk_or_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def full(events: int, state: str) -> None:
        raise OSError(28, "No space left on device")

    def stop(events: int, state: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(ResourceError, match="disk is full"):
        simulate(tmp_path / "shop", settings=settings(), progress=full)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "shop", settings=settings(), progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_tells_the_events_written(tmp_path: Path) -> None:
    told: list[int] = []
    simulate(tmp_path / "shop", settings=settings(users=2_100), progress=lambda events, state: told.append(events))
    assert len(told) == 3
    assert sum(told) == 4_000


def test_a_disk_too_small_is_one_sentence_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(ResourceError, match=r"Simulating 100,000,000 events needs about 1\.\d GiB of disk .*nothing was written"):
        simulate(tmp_path / "d", settings=SimulatorSettings(events=100_000_000, pictures=False))
    assert not list(tmp_path.iterdir())


def test_long_range_interest_is_planted(tmp_path: Path) -> None:
    """Late events come back to interests of the first half of a person's events, which the newest events do not show."""
    told: dict[str, object] = {"users": 20, "events": 8_000, "items": 2_000, "categories": 40, "activity_spread": 0.0, "old_interests": 20}
    plain, planted = (simulate(tmp_path / f"{share}", settings=settings(long_range=share, **told)) for share in (0.0, 0.8))
    assert set(planted.log().lengths.tolist()) == {400} and planted.verify() is None

    def shares(shop: Dataset) -> tuple[float, float]:
        kinds = (shop.items["category"] + " " + shop.items["subcategory"]).to_physical().rank("dense").to_numpy()
        log = shop.log()
        early = late = 0.0
        for u in range(20):
            mine = kinds[log.items[log.indptr[u] : log.indptr[u + 1]]]
            late += np.isin(mine[-20:], mine[:200]).mean() / 20
            early += np.isin(mine[-20:], mine[-60:-20]).mean() / 20
        return late, early

    (late, near), (old_late, old_near) = shares(planted), shares(plain)
    assert late > old_late + 0.1 and late - near > old_late - old_near + 0.1
    truth = pl.read_parquet(planted.path / "truth" / "user_interests.parquet")
    ends = truth.filter(pl.col("to") == truth["to"].max()).group_by("user").agg(pl.col("weight").sum(), pl.len())
    assert ends["len"].unique().to_list() == [23] and np.allclose(ends["weight"], 1.0)
    assert "long_range" in planted.info.origin["simulator"] and "long_range" not in plain.info.origin["simulator"]
