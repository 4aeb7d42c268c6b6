"""The built-in simulator: a small shop whose truth is known, of any size, written as it is drawn.

People have several interests that drift; items have a category, a price, text and a drawn picture that tell what they are;
what people see depends on popularity, season and release. The truth is kept aside in `truth/` and no system reads it.
Letters: U users, N items, K interests a user, D latent factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import yaml
from pydantic import Field

from vitrail.config import NonNegativeInt, PositiveInt, Settings, Share
from vitrail.data import simulate_words as words
from vitrail.data.dataset import Dataset
from vitrail.data.schema import DatasetInfo, FileRecord
from vitrail.data.simulate_catalogue import START, Catalogue, category_names, category_of, draw_pictures, item_table, make_catalogue, shop_schema
from vitrail.data.simulate_events import APPEAL, BLOCK, EVENTS, PRICE, SHARPNESS, Block, Crowd, make_people
from vitrail.data.vocabulary import Vocabulary
from vitrail.errors import DataError
from vitrail.files import atomic_folder, sha256
from vitrail.resources import afford_disk

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = 262_144
"""Rows written at once: a row group of interactions.parquet."""
ORIGIN = datetime(START.year, START.month, START.day, tzinfo=UTC)


class SimulatorSettings(Settings):
    """The shop. The same settings give the same bytes."""

    users: PositiveInt = 2_000
    """People."""
    items: PositiveInt = 1_000
    """Things on sale."""
    events: PositiveInt = 40_000
    """Events of all users together."""
    categories: Annotated[int, Field(ge=1, le=1_000)] = 12
    """Categories; each has four subcategories."""
    factors: Annotated[int, Field(ge=2, le=512)] = 16
    """Width D of the latent vectors."""
    interests_per_user: Annotated[int, Field(ge=1, le=64)] = 3
    """Interests a person has at any time."""
    drift: Share = 0.3
    """Share of interests that are replaced by another within the time span."""
    popularity_skew: Annotated[float, Field(ge=0.0, le=5.0)] = 1.0
    """Zipf exponent of the appeal of items; 0: all alike."""
    exposure_bias: Annotated[float, Field(ge=0.0, le=5.0)] = 0.7
    """Items are shown in proportion to appeal to this power; 0: blind to popularity."""
    season_strength: Annotated[float, Field(ge=0.0, le=5.0)] = 0.5
    """How far each category rises and falls within a year; 0: not at all."""
    cold_items: Share = 0.05
    """Share of items that are released only in the last tenth of the time span."""
    days: Annotated[int, Field(ge=1, le=3_650)] = 365
    """Time span in days, from 2024-01-01."""
    pictures: bool = True
    """Whether a 64 x 64 picture of every item is drawn (about 1 ms an item)."""
    activity_spread: Annotated[float, Field(ge=0.0, le=5.0)] = 0.9
    """How unlike people are in how much they do: standard deviation of the logarithm of their events; 0: all alike."""
    long_range: Share = 0.0
    """Share of visits in the second half of a person's events that return to an interest of the first half; 0: nothing of long ago comes back."""
    old_interests: Annotated[int, Field(ge=1, le=4_096)] = 40
    """Interests a person has one after another in the first half of their events, where `long_range` is not 0."""
    seed: NonNegativeInt = 0
    """Seed of everything."""


LATER = ("activity_spread", "long_range", "old_interests")
"""Settings that came later: a shop that has their defaults is told as it was before they came."""


def simulate(
    out: str | Path, *, settings: SimulatorSettings | None = None, overwrite: bool = False, progress: Callable[[int, str], None] | None = None
) -> Dataset:
    """Simulate a shop into the data-set folder `out`, streamed in blocks of users, atomically.

    `progress(events, state)` is called after every block with the events it brought. Raises DataError where `out` is taken,
    ResourceError where the disk is full.
    """
    settings = settings or SimulatorSettings()
    what = f"Simulating {settings.events:,} events"
    afford_disk(11 * settings.events + 4500 * settings.items * settings.pictures + 300 * (settings.users + settings.items), Path(out), what)
    catalogue = make_catalogue(settings)
    people = make_people(settings, settings.categories)
    user_ids = Vocabulary.of([f"u{number:0{len(str(settings.users))}d}" for number in range(1, settings.users + 1)]).ids.rename("user")
    crowd = Crowd(settings, catalogue, people)
    with atomic_folder(out, overwrite=overwrite) as folder:
        (folder / "truth").mkdir()
        rows = _write_events(folder, crowd, user_ids, progress)
        item_table(catalogue, settings).write_parquet(folder / "items.parquet")
        ages, countries = pl.Series("age", words.AGES), pl.Series("country", words.COUNTRIES)
        pl.DataFrame([user_ids, ages.gather(people.age), countries.gather(people.country)]).write_parquet(folder / "users.parquet")
        pl.DataFrame(schema={"file": pl.String, "line": pl.Int64, "reason": pl.String, "text": pl.String}).write_parquet(folder / "rejects.parquet")
        _write_truth(folder / "truth", catalogue)
        pictures = {"count": settings.items, "sha256": draw_pictures(catalogue, settings, folder / "pictures")} if settings.pictures else None
        tables = {"interactions": rows, "items": settings.items, "users": settings.users, "rejects": 0}
        info = DatasetInfo(
            name=Path(out).name,
            source=["vitrail simulator"],
            licence="CC0-1.0",
            roles={role: role for role in ("user", "item", "timestamp", "event", "value")},
            units={"timestamp": "UTC, to the second", "value": "EUR spent", "price": "EUR"},
            order="timestamp",
            counts={"users": settings.users, "items": settings.items, "events": rows, "rejected": 0, "repaired": 0},
            columns=shop_schema(settings.pictures),
            files={f"{name}.parquet": FileRecord(sha256=sha256(folder / f"{name}.parquet"), rows=count) for name, count in tables.items()},
            origin={
                "simulator": settings.model_dump(mode="json", exclude={n for n in LATER if getattr(settings, n) == SimulatorSettings.model_fields[n].default}),
                "truth": {
                    "note": "what the events were drawn from; for tests and judgement only, never read by a system",
                    "files": {file.name: sha256(file) for file in sorted((folder / "truth").iterdir())},
                },
            }
            | ({"pictures": pictures} if pictures else {}),
        )
        text = yaml.safe_dump(info.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)
        (folder / "dataset.yaml").write_text(text, encoding="utf-8")
    return Dataset(out)


def _write_events(folder: Path, crowd: Crowd, user_ids: pl.Series, progress: Callable[[int, str], None] | None) -> int:
    """Writes interactions.parquet and the truth of the users block by block; returns the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    users, items = pa.array(user_ids.to_list(), pa.string()), pa.array(crowd.catalogue.ids.to_list(), pa.string())
    writers: dict[str, Any] = {}
    held: dict[str, list[pa.Table]] = {}
    done = 0

    def flush(name: str, least: int) -> None:
        rows = sum(len(table) for table in held[name])
        if rows >= max(least, 1):
            writers[name].write_table(pa.concat_tables(held[name]).combine_chunks(), row_group_size=GROUP)
            held[name] = []

    try:
        for number in range(crowd.blocks):
            block = crowd.block(number)
            for name, table in _tables(block, crowd.catalogue, users, items, number * BLOCK, crowd.end):
                if name not in writers:
                    writers[name] = pq.ParquetWriter(folder / name, table.schema, compression="zstd")
                    held[name] = []
                held[name].append(table)
                flush(name, GROUP)
            done += len(block.items)
            if progress is not None:
                progress(len(block.items), f"block {number + 1} of {crowd.blocks}")
        for name in writers:
            flush(name, 0)
    finally:
        for writer in writers.values():
            writer.close()
    return done


def _tables(block: Block, catalogue: Catalogue, users: pa.Array, items: pa.Array, first: int, end: int) -> Iterator[tuple[str, pa.Table]]:
    import pyarrow as pa

    stamp = pa.timestamp("us", tz="UTC")

    def moment(seconds: npt.NDArray[np.int64]) -> pa.Array:
        return pa.array((seconds + round(ORIGIN.timestamp())) * 1_000_000).cast(stamp)

    names = pa.array(EVENTS, pa.string())
    spent = np.where(block.event == EVENTS.index("buy"), catalogue.price[block.items], 0.0)
    yield (
        "interactions.parquet",
        pa.table(
            {
                "user": users.take(pa.array(block.users)),
                "item": items.take(pa.array(block.items)),
                "timestamp": moment(block.seconds),
                "event": names.take(pa.array(block.event)),
                "value": pa.array(spent),
            }
        ),
    )
    changes = block.change < end
    people = np.arange(first, first + len(block.weights))[:, None]
    owner, old = np.broadcast_to(people, block.weights.shape), np.broadcast_to(people, block.old.shape)
    rows = np.concatenate([owner.ravel(), owner[changes], old.ravel()])
    since = np.concatenate([np.zeros(owner.size, dtype=np.int64), block.change[changes], np.zeros(old.size, dtype=np.int64)])
    until = np.concatenate([block.change.ravel(), np.full(changes.sum() + old.size, end)])
    interest = np.concatenate([block.interests[:, :, 0].ravel(), block.interests[:, :, 1][changes], block.old.ravel()])
    weights = block.weights * (1 - block.long_range)
    weight = np.concatenate([weights.ravel(), weights[changes], np.full(old.size, block.long_range / max(block.old.shape[1], 1))])
    order = np.lexsort([since, rows])
    truth = {"user": users.take(pa.array(rows[order])), "from": moment(since[order]), "to": moment(until[order])}
    yield "truth/user_interests.parquet", pa.table(truth | {"interest": pa.array(interest[order]), "weight": pa.array(weight[order])})
    levels = {"user": users.slice(first, len(block.weights)), "price_level": pa.array(block.price_level)}
    yield "truth/user_levels.parquet", pa.table(levels)


def _write_truth(folder: Path, catalogue: Catalogue) -> None:
    """item_factors.parquet (N rows, code order) and interests.parquet (one row an interest)."""
    columns = {"item": catalogue.ids, "cold": catalogue.cold, "appeal": catalogue.appeal, "price_level": catalogue.price_level}
    pl.DataFrame(columns | {"vector": catalogue.vectors}).write_parquet(folder / "item_factors.parquet")
    codes = np.arange(len(catalogue.interests))
    names, colours = category_names(catalogue.n_categories), list(words.COLOURS)
    pl.DataFrame(
        {
            "interest": codes,
            "category": [names[c] for c in category_of(codes)],
            "subcategory": codes // len(colours) % words.SUBCATEGORIES,
            "colour": [colours[k] for k in codes % len(colours)],
            "vector": catalogue.interests,
        }
    ).write_parquet(folder / "interests.parquet")


def true_utility(dataset: Dataset, users: Sequence[str], items: Sequence[str], *, at: datetime | None = None) -> npt.NDArray[np.float32]:
    """(U, N) what each of `users` sees in each of `items` (outside ids) at the time `at` (default: the end of the time span):
    the log of the interests' weighted exponential utilities. For tests and judgement; no system may call it.

    Raises DataError where `dataset` was not simulated or an id is unknown.
    """
    folder = dataset.path / "truth"
    if not (folder / "item_factors.parquet").exists():
        raise DataError(f"{dataset.path} holds no simulated truth: true_utility works on data sets made by `vitrail data simulate`.")
    factors, centres = pl.read_parquet(folder / "item_factors.parquet"), pl.read_parquet(folder / "interests.parquet")
    tastes, levels = pl.read_parquet(folder / "user_interests.parquet"), pl.read_parquet(folder / "user_levels.parquet")
    where, who = dataset.item_ids.encode(items), dataset.user_ids.encode(users)
    for kind, names, codes in (("item", items, where), ("user", users, who)):
        if (codes < 0).any():
            raise DataError(f'There is no {kind} "{names[int(np.argmax(codes < 0))]}" in {dataset.path}.')
    end = tastes["to"].max()
    tastes = tastes.filter((pl.col("to") == end) if at is None else (pl.col("from") <= at) & ((pl.col("to") > at) | (pl.col("to") == end)))
    asked = pl.DataFrame({"user": list(users)}).unique().join(tastes, on="user", how="left")
    vectors, interests = factors["vector"].to_numpy()[where], centres["vector"].to_numpy()
    match = np.exp(np.float32(SHARPNESS) * (interests @ vectors.T))
    place = {name: row for row, name in enumerate(asked["user"].unique(maintain_order=True))}
    mixed = np.zeros((len(place), len(items)), dtype=np.float32)
    rows = np.array([place[name] for name in asked["user"]])
    np.add.at(mixed, rows, asked["weight"].to_numpy()[:, None].astype(np.float32) * match[asked["interest"].to_numpy()])
    mixed = mixed[[place[name] for name in users]]
    appeal = APPEAL * np.log(factors["appeal"].to_numpy()[where])
    price = PRICE * np.abs(factors["price_level"].to_numpy()[where][None, :] - levels["price_level"].to_numpy()[who][:, None])
    return np.asarray(np.log(mixed) + appeal - price, dtype=np.float32)
