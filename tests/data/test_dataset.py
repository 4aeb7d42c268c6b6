"""The data-set folder: round trip, the log and its cache, what counts, and folders that are missing, damaged or newer."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

import vitrail.data.dataset as module
from vitrail.data.dataset import Dataset, complete, write_dataset
from vitrail.data.schema import FORMAT, DatasetInfo, Needs
from vitrail.errors import ArtifactError, DataError, ResourceError, VitrailError

EVENTS = pl.DataFrame(
    {
        "user": ["u1", "u2", "u1", "u1", "u3", "u1"],
        "item": ["007", "b", "b", "007", "é f", "c"],
        "timestamp": pl.Series([30, 10, 20, 40, 5, 20]).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        "event": ["view", "buy", "view", "buy", "cart", "share"],
        "value": [1.0, 5.0, 3.0, 4.0, 2.0, 5.0],
    }
)
ITEMS = pl.DataFrame({"item": ["007", "never seen", "b"], "price": [1.5, 2.5, None]})


def shop(path: Path, **info: object) -> Dataset:
    return write_dataset(path, DatasetInfo(**{"name": "shop", "order": "timestamp", **info}), EVENTS, ITEMS, overwrite=True)


def told(data: Dataset, **log: object) -> dict[str, list[str]]:
    """user -> items in order."""
    made = data.log(**log)
    sets = made.histories(np.arange(made.n_users))
    return {str(data.user_ids.ids[u]): data.item_ids.decode(sets.items[sets.indptr[u] : sets.indptr[u + 1]].numpy()) for u in range(made.n_users)}


class TestRoundTrip:
    def test_tables_vocabularies_and_counts(self, tmp_path: Path) -> None:
        shop(tmp_path / "d")
        data = Dataset(tmp_path / "d")
        assert data.interactions.equals(EVENTS), "rows stay as they came, in file order"
        assert set(data.items["item"]) == {"007", "never seen", "b", "é f", "c"} and data.items.filter(pl.col("item") == "007")["price"].to_list() == [1.5]
        assert data.items["item"].to_list() == data.item_ids.ids.to_list() and data.users["user"].to_list() == data.user_ids.ids.to_list()
        assert data.info.counts == {"users": 3, "items": 5, "events": 6, "rejected": 0}
        assert data._table("rejects").columns == ["file", "line", "reason", "text"]
        assert repr(data) == "Dataset('shop': 3 users, 5 items, 6 events)"
        data.verify()

    def test_yaml_is_readable_and_closed(self, tmp_path: Path) -> None:
        data = shop(tmp_path / "d", licence="CC0", positive="value >= 4", origin={"note": "ü"})
        values = yaml.safe_load((data.path / "dataset.yaml").read_text(encoding="utf-8"))
        assert values["licence"] == "CC0" and values["origin"] == {"note": "ü"} and values["format"] == FORMAT
        assert DatasetInfo.of(values) == data.info

    def test_extra_files_and_overwrite(self, tmp_path: Path) -> None:
        info = DatasetInfo(name="x", order="timestamp")
        data = write_dataset(tmp_path / "d", info, EVENTS, extra={"vectors/text.ids": b"007\n"})
        assert (data.path / "vectors" / "text.ids").read_bytes() == b"007\n"
        with pytest.raises(DataError, match="exists already"):
            write_dataset(tmp_path / "d", info, EVENTS)
        assert not (write_dataset(tmp_path / "d", info, EVENTS, overwrite=True).path / "vectors").exists()
        assert [p.name for p in tmp_path.iterdir()] == ["d"]

    def test_fingerprint_is_that_of_the_content(self, tmp_path: Path) -> None:
        one, same = shop(tmp_path / "a"), shop(tmp_path / "b", licence="other", name="other")
        other = write_dataset(tmp_path / "c", one.info, EVENTS.with_columns(value=pl.lit(1.0)), ITEMS)
        declared = shop(tmp_path / "e", positive="value >= 4")
        assert one.fingerprint == same.fingerprint and len({one.fingerprint, other.fingerprint, declared.fingerprint}) == 3

    def test_code_order_is_that_of_the_hash_whatever_the_files_say(self, tmp_path: Path) -> None:
        one = write_dataset(tmp_path / "a", DatasetInfo(name="x", order="timestamp"), EVENTS, ITEMS)
        other = write_dataset(tmp_path / "b", DatasetInfo(name="x", order="timestamp"), EVENTS[::-1], ITEMS[::-1])
        assert one.item_ids.ids.to_list() == other.item_ids.ids.to_list() and one.items.equals(other.items)

    def test_complete_keeps_attributes_and_adds_the_unlisted(self) -> None:
        table, vocabulary = complete(ITEMS, "item", pl.Series(["c", "c", "b"]))
        assert sorted(table["item"]) == ["007", "b", "c", "never seen"] and table["item"].to_list() == vocabulary.ids.to_list()
        assert table.filter(pl.col("item") == "c")["price"].to_list() == [None]


class TestLog:
    def test_events_are_in_time_order_with_ties_by_file_or_hash(self, tmp_path: Path) -> None:
        data = shop(tmp_path / "d")
        assert told(data, ties="file") == {"u1": ["b", "c", "007", "007"], "u2": ["b"], "u3": ["é f"]}
        seeded = {tuple(told(data, seed=seed)["u1"]) for seed in range(12)}
        assert seeded == {("b", "c", "007", "007"), ("c", "b", "007", "007")}
        log = data.log(ties="file")
        assert log.rows[log.indptr[data.user_ids.code("u1")] :][:4].tolist() == [2, 5, 0, 3]
        assert log.n_items == 5 and log.n_users == 3 and log.weights is None and sorted(log.times.tolist()) == [5, 10, 20, 20, 30, 40]

    def test_what_counts_is_declared(self, tmp_path: Path) -> None:
        assert told(shop(tmp_path / "a", positive="value >= 4"), ties="file") == {"u1": ["c", "007"], "u2": ["b"], "u3": []}
        assert told(shop(tmp_path / "b", repeats="first"), ties="file")["u1"] == ["b", "c", "007"]
        last = shop(tmp_path / "c", repeats="last").log(ties="file")
        assert sorted(last.times.tolist()) == [5, 10, 20, 20, 40]
        weighted = shop(tmp_path / "d", weights={"view": 1, "buy": 5}).log(ties="file")
        assert sorted(weighted.weights.tolist()) == [1, 1, 5, 5] and len(weighted) == 4

    def test_an_event_that_does_not_count_is_nobodys_first(self, tmp_path: Path) -> None:
        data = shop(tmp_path / "d", weights={"buy": 5}, repeats="first")
        assert told(data)["u1"] == ["007"], "the view of 007 came before the purchase, but views do not count"

    def test_items_and_users_without_events_have_codes(self, tmp_path: Path) -> None:
        data = write_dataset(tmp_path / "d", DatasetInfo(name="x", order="timestamp"), EVENTS, ITEMS, pl.DataFrame({"user": ["quiet"]}))
        log = data.log()
        assert log.lengths[data.user_ids.code("quiet")] == 0 and log.item_counts[data.item_ids.code("never seen")] == 0

    def test_no_events_at_all(self, tmp_path: Path) -> None:
        data = write_dataset(tmp_path / "d", DatasetInfo(name="x", order="timestamp"), EVENTS.clear(), ITEMS)
        for _ in range(2):
            assert len(Dataset(data.path).log()) == 0 and data.log().n_items == 3 and data.log().n_users == 0


class TestCache:
    def test_second_reading_is_mapped_and_equal(self, tmp_path: Path) -> None:
        first = shop(tmp_path / "d", weights={"view": 1, "buy": 5}).log()
        again = Dataset(tmp_path / "d")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            log = again.log()
            log.histories(np.arange(log.n_users)), log.window(np.array([0]), log.indptr[1:2], 2), log.matrix()
        assert isinstance(log.items, np.memmap) and "interactions" not in vars(again), "the tables are not read again"
        for name in ("indptr", "items", "times", "weights", "rows"):
            assert (getattr(first, name) == getattr(log, name)).all()
            assert getattr(first, name).dtype == getattr(log, name).dtype

    def test_each_order_has_its_own(self, tmp_path: Path) -> None:
        data = shop(tmp_path / "d")
        data.log(), data.log(seed=1), data.log(ties="file"), data.log()
        assert len(list((data.path / "cache").iterdir())) == 3

    @pytest.mark.parametrize("name", ["items", "times", "indptr"])
    @pytest.mark.parametrize("damage", ["truncate", "empty", "remove", "junk"])
    def test_a_damaged_cache_is_made_again(self, tmp_path: Path, damage: str, name: str) -> None:
        data = shop(tmp_path / "d")
        expected = told(data)
        file = next((data.path / "cache").iterdir()) / f"{name}.npy"
        content = file.read_bytes()
        file.unlink()
        if damage != "remove":
            file.write_bytes({"truncate": content[:-2], "empty": b"", "junk": b"junk" * 50}[damage])
        assert told(Dataset(data.path)) == expected and len(Dataset(data.path).log().times) == 6
        assert isinstance(Dataset(data.path).log().items, np.memmap)

    def test_a_cache_that_cannot_be_written_costs_nothing_but_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = shop(tmp_path / "d")

        def refuse(*args: object, **kwargs: object) -> None:
            raise ResourceError("The disk is full.")

        monkeypatch.setattr(module, "atomic_folder", refuse)
        assert told(data)["u2"] == ["b"] and not (data.path / "cache").exists()


class TestRefusals:
    def refuses(self, path: Path, kind: type[VitrailError], sentence: str) -> None:
        with pytest.raises(kind, match=sentence) as caught:
            Dataset(path).log()
        assert "\n" not in str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        self.refuses(tmp_path / "none", DataError, "There is no data set at .*vitrail data ingest")
        self.refuses(tmp_path, DataError, r"not a data set \(no dataset.yaml")

    def test_newer(self, tmp_path: Path) -> None:
        data = shop(tmp_path / "d")
        file = data.path / "dataset.yaml"
        file.write_text(file.read_text().replace("format: 1", "format: 99").replace("order:", "odour:"))
        self.refuses(data.path, ArtifactError, r"newer Vitrail \(data format 99.*upgrade")

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("{", "not YAML"),
            ("- a\n", "holds no mapping"),
            ("", "holds no mapping"),
            ("name: x\norder: sideways\n", "damaged"),
            ("name: x\n", '"order" is missing.*damaged'),
        ],
    )
    def test_damaged_record(self, tmp_path: Path, text: str, sentence: str) -> None:
        data = shop(tmp_path / "d")
        (data.path / "dataset.yaml").write_text(text)
        self.refuses(data.path, ArtifactError, sentence)

    @pytest.mark.parametrize("name", ["interactions", "items", "users"])
    def test_damaged_or_missing_table(self, tmp_path: Path, name: str) -> None:
        data = shop(tmp_path / "d")
        file = data.path / f"{name}.parquet"
        content = file.read_bytes()
        for damage in (content[: len(content) // 2], b"", b"PAR1" * 20):
            file.write_bytes(damage)
            self.refuses(data.path, ArtifactError, f"{name}.parquet is damaged: it is not readable Parquet")
        file.unlink()
        self.refuses(data.path, ArtifactError, f"{name}.parquet is missing")

    def test_tables_that_do_not_belong_together(self, tmp_path: Path) -> None:
        data = shop(tmp_path / "d")
        data.items.head(2).write_parquet(data.path / "items.parquet")
        self.refuses(data.path, ArtifactError, "changed or damaged")

    def test_verify_finds_a_changed_byte_and_a_missing_file(self, tmp_path: Path) -> None:
        data = shop(tmp_path / "d")
        file = data.path / "users.parquet"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"users.parquet does not have its recorded checksum"):
            data.verify()
        file.unlink()
        with pytest.raises(ArtifactError, match=r"users.parquet"):
            data.verify()

    def test_parts_of_data_that_did_not_come_split(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="did not come split"):
            shop(tmp_path / "d").parts()

    def test_an_interrupted_write_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(path: object) -> str:
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "sha256", interrupt)
        with pytest.raises(KeyboardInterrupt):
            shop(tmp_path / "d")
        assert list(tmp_path.iterdir()) == []


class TestNeeds:
    def test_one_sentence_that_says_what_to_add(self) -> None:
        ordered, plain = DatasetInfo(name="o", order="position"), DatasetInfo(name="p", order="none")
        Needs(order="sequence").check(ordered, "sasrec")
        with pytest.raises(DataError, match=r'"sasrec" needs ordered events.*"p".*--ordered'):
            Needs(order="sequence").check(plain, "sasrec")
        with pytest.raises(DataError, match=r"needs clock times.*--timestamp"):
            Needs(timestamp=True).check(ordered, "decayed")
        with pytest.raises(DataError, match=r'needs the vectors "text".*it has none.*content encode DATA --text'):
            Needs(vectors=("text",)).check(ordered, "hybrid")
        with pytest.raises(DataError, match=r"it has plot, text.*--name audio"):
            Needs(vectors=("text", "audio")).check(ordered, "hybrid", ["text", "plot"])
        Needs(vectors=("text",), timestamp=True).check(DatasetInfo(name="t", order="timestamp"), "hybrid", ["text"])


def test_image_root(tmp_path: Path) -> None:
    assert shop(tmp_path / "a").image_root == tmp_path / "a"
    assert shop(tmp_path / "b", image_root="pictures").image_root == tmp_path / "b" / "pictures"
    assert shop(tmp_path / "c", image_root="/far").image_root == Path("/far")


def test_times_are_microseconds_in_utc(tmp_path: Path) -> None:
    table = EVENTS.head(1).with_columns(timestamp=pl.Series([datetime(2014, 7, 23, tzinfo=UTC)]).cast(pl.Datetime("us", "UTC")))
    log = write_dataset(tmp_path / "d", DatasetInfo(name="x", order="timestamp"), table).log()
    assert log.times.tolist() == [1_406_073_600_000_000]
