"""Splits: exact small cases, the counts of the papers, invariance to file order, refusals, and the real data sets."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vitrail.data import splits_queries
from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.schema import DatasetInfo
from vitrail.data.split import Histories, Part, Split
from vitrail.data.splits import SPLITS, check_leaks, default_split, make_split, parse_split
from vitrail.data.splits_labels import lattice_counts, mmrec_counts, ngcf_counts, ratio_counts, recbole_counts
from vitrail.errors import DataError, ResourceError, SettingError

HOME = Path(os.environ.get("VITRAIL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


@dataclass(frozen=True)
class Asked:
    fit_on: str = "train"
    history_at_test: str = "train+valid"
    mask: str = "train+valid"
    candidates: str = "all"


def build(path: Path, rows: list[tuple], order: str = "timestamp", **info: object) -> Dataset:
    """`rows` of (user, item) or (user, item, time in seconds or position or part)."""
    columns: dict[str, object] = {"user": [row[0] for row in rows], "item": [row[1] for row in rows]}
    if order == "timestamp":
        columns["timestamp"] = pl.Series([int(row[2] * 1_000_000) for row in rows]).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    elif order == "position":
        columns["position"] = [row[2] for row in rows]
    if info.get("predefined"):
        columns["part"] = [row[-1] for row in rows]
    return write_dataset(path, DatasetInfo(name="tiny", order=order, **info), pl.DataFrame(columns), overwrite=True)


def split(data: Dataset, text: str, **asked: str) -> Split:
    return make_split(data, parse_split(text), Asked(**asked))


def ask(data: Dataset, part: Part | None) -> dict[str, tuple[list[str], set[str], set[str]]]:
    """user -> (history, mask, targets), in outside ids."""
    assert part is not None
    items = data.item_ids.ids.to_list()
    users = data.user_ids.decode(part.histories.users.numpy())
    history = np.split(part.histories.items.numpy(), part.histories.indptr.numpy()[1:-1])
    mask, targets = np.split(part.mask_items, part.mask_indptr[1:-1]), np.split(part.target_items, part.target_indptr[1:-1])
    assert len(users) == len(history) == len(mask) == len(targets) == len(part)
    return {str(u): ([items[i] for i in h], {items[i] for i in m}, {items[i] for i in t}) for u, h, m, t in zip(users, history, mask, targets, strict=True)}


def events(data: Dataset, log: object) -> set[tuple[str, str]]:
    return set(zip(data.user_ids.decode(log.users), data.item_ids.decode(log.items), strict=True))


SHOP = [
    ("a", "i1", 1), ("a", "i2", 2), ("a", "i3", 12), ("a", "i4", 21), ("a", "i5", 22),
    ("b", "i1", 3), ("b", "i2", 4), ("b", "i1", 23),
    ("c", "i3", 24),
    ("d", "i5", 5), ("d", "i1", 13), ("d", "i5", 14), ("d", "i2", 25), ("d", "i1", 26),
]  # fmt: skip
CUTS = "temporal:valid_from=1970-01-01T00:00:10,test_from=1970-01-01T00:00:20"


class TestTemporal:
    def test_static_queries_by_hand(self, tmp_path: Path) -> None:
        data = build(tmp_path / "d", SHOP)
        made = split(data, CUTS)
        assert events(data, made.train) == {("a", "i1"), ("a", "i2"), ("b", "i1"), ("b", "i2"), ("d", "i5")}
        assert ask(data, made.valid) == {"a": (["i1", "i2"], {"i1", "i2"}, {"i3"}), "d": (["i5"], {"i5"}, {"i1"})}
        assert ask(data, made.test) == {
            "a": (["i1", "i2", "i3"], {"i1", "i2", "i3"}, {"i4", "i5"}),
            "d": (["i5", "i1", "i5"], {"i5", "i1"}, {"i2"}),
        }
        assert made.test.left_out == {"no history": 1, "all targets seen before": 1}
        assert made.valid.left_out == {}
        assert made.leaks == ()
        assert made.settings["cut_valid"] == "1970-01-01T00:00:10.000000Z"
        assert set(data.item_ids.decode(np.flatnonzero(made.cold_items))) == {"i3", "i4"}

    def test_protocol_says_what_is_known_and_what_is_masked(self, tmp_path: Path) -> None:
        data = build(tmp_path / "d", SHOP)
        made = split(data, CUTS, history_at_test="train", mask="train")
        assert ask(data, made.test)["d"] == (["i5"], {"i5"}, {"i1", "i2"})
        assert len(made.known) == 5
        bare = split(data, CUTS, mask="none")
        assert ask(data, bare.test)["b"] == (["i1", "i2"], set(), {"i1"})
        assert ask(data, bare.test)["d"][2] == {"i2", "i1"}
        assert any("repeating is rewarded" in sentence for sentence in bare.leaks)
        refit = split(data, CUTS, fit_on="train+valid")
        assert refit.valid is None and len(refit.train) == 8
        assert ask(data, refit.test) == ask(data, split(data, CUTS).test)

    def test_rolling_asks_for_each_event_with_all_before_it(self, tmp_path: Path) -> None:
        data = build(tmp_path / "d", SHOP)
        made = split(data, CUTS + ",rolling=true")
        test = made.test
        assert len(test) == 3 and test.left_out == {"no history": 1, "all targets seen before": 2}
        users, items = data.user_ids.decode(test.histories.users.numpy()), data.item_ids.ids.to_list()
        lengths = test.histories.lengths.tolist()
        asked = {(u, n, items[t]) for u, n, t in zip(users, lengths, test.target_items, strict=True)}
        assert asked == {("a", 3, "i4"), ("a", 4, "i5"), ("d", 3, "i2")}
        assert made.leaks == ()
        every = split(data, CUTS + ",rolling=true", mask="none").test
        assert len(every) == 5 and len(every.mask_items) == 0
        assert split(data, "temporal_rolling:valid=0.2,test=0.3").settings["rolling"] is True

    def test_shares_fall_on_events_and_an_instant_stays_together(self, tmp_path: Path) -> None:
        rows = [(f"u{n % 5}", f"i{n}", n) for n in range(100)]
        made = split(build(tmp_path / "a", rows), "temporal:valid=0.2,test=0.1")
        assert (len(made.train), len(made.known)) == (70, 90)
        tied = [(f"u{n % 5}", f"i{n}", n // 25) for n in range(100)]
        made = split(build(tmp_path / "b", tied), "temporal:valid=0.2,test=0.1")
        assert (len(made.train), len(made.known)) == (50, 75)
        assert made.train.times.max() < made.valid.target_times.min() <= made.valid.target_times.max() < made.test.target_times.min()
        assert split(build(tmp_path / "c", rows), "temporal:valid=0,test=0.1").valid is None

    def test_dates(self) -> None:
        plain = parse_split("temporal:valid_from=2024-01-31,test_from=2024-02-28T12:30")
        assert plain.valid_from == datetime(2024, 1, 31, tzinfo=UTC) and plain.test_from == datetime(2024, 2, 28, 12, 30, tzinfo=UTC)
        with pytest.raises(SettingError, match=r"soon.*not a date"):
            parse_split("temporal:test_from=soon")
        with pytest.raises(SettingError, match="valid_from must be before"):
            parse_split("temporal:valid_from=2024-02-01,test_from=2024-01-01")


class TestLeaveLastOut:
    def test_by_position(self, tmp_path: Path) -> None:
        rows = [("a", "x", 2), ("a", "y", 0), ("a", "z", 1), ("b", "x", 0), ("b", "y", 1), ("c", "z", 0), ("c", "y", 1), ("c", "x", 2), ("c", "w", 3)]
        data = build(tmp_path / "d", rows, "position")
        made = split(data, "leave-last-out")
        assert ask(data, made.test) == {"a": (["y", "z"], {"y", "z"}, {"x"}), "c": (["z", "y", "x"], {"z", "y", "x"}, {"w"})}
        assert ask(data, made.valid) == {"a": (["y"], {"y"}, {"z"}), "c": (["z", "y"], {"z", "y"}, {"x"})}
        assert events(data, made.train) == {("a", "y"), ("b", "x"), ("b", "y"), ("c", "z"), ("c", "y")}
        assert made.leaks == ()

    def test_ties_in_file_order_or_by_seed(self, tmp_path: Path) -> None:
        rows = [(f"u{u}", f"i{i}", 7) for u in range(40) for i in range(5)]
        data = build(tmp_path / "d", rows)
        targets = {key: ask(data, split(data, f"leave-last-out:{key}").test) for key in ("ties=file", "seed=0", "seed=1", "ties=seeded")}
        assert all(asked == {"i4"} for _, _, asked in targets["ties=file"].values())
        assert targets["seed=0"] == targets["ties=seeded"] != targets["seed=1"]

    def test_a_repeated_last_item_is_no_target(self, tmp_path: Path) -> None:
        rows = [("a", "x", 0), ("a", "y", 1), ("a", "x", 2), ("b", "x", 0), ("b", "y", 1), ("b", "z", 2)]
        data = build(tmp_path / "d", rows, "position")
        assert set(ask(data, split(data, "leave-last-out").test)) == {"b"}
        assert split(data, "leave-last-out").test.left_out == {"all targets seen before": 1}
        assert set(ask(data, split(data, "leave-last-out", mask="none").test)) == {"a", "b"}

    def test_says_how_much_of_training_is_later_than_the_test(self, tmp_path: Path) -> None:
        early = [("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("b", "x", 1), ("b", "z", 2), ("b", "y", 4)]
        late = [("c", f"i{n}", 100 + n) for n in range(8)]
        made = split(build(tmp_path / "d", early + late), "leave-last-out")
        assert made.leaks == ("By design 75.0 % of the training events happen after the median test event: a system may learn from the future.",)


class TestRandom:
    def test_counts_of_the_papers(self) -> None:
        n = np.arange(5, 21)
        valid, test = mmrec_counts(n)
        assert test.tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
        assert valid.tolist() == [1] * 15 + [2]
        assert (valid[10], test[10]) == (1, 2), "the published example: 15 gives 12/1/2"
        assert [part.tolist() for part in lattice_counts(n)] == [test.tolist(), valid.tolist()]
        assert ngcf_counts(n, 0.0)[1].tolist() == [1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4]
        assert ngcf_counts(n, 0.1)[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2]

    def test_counts_of_recbole(self) -> None:
        n = np.array([1, 2, 3, 4, 9, 10, 11, 19, 20, 29, 30, 100])
        valid, test = recbole_counts(n)
        assert valid.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 3, 10]
        assert test.tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 10]

    def test_counts_of_ratio_always_leave_one_to_train_on(self) -> None:
        n = np.arange(0, 60)
        for valid_share, test_share in ((0.1, 0.1), (0.3, 0.4), (0.0, 0.2), (0.45, 0.5)):
            valid, test = ratio_counts(n, valid_share, test_share)
            assert (valid + test <= np.maximum(n - 1, 0)).all()
            roomy = n >= 30
            assert (abs(valid - valid_share * n) <= 1)[roomy].all() and (abs(test - test_share * n) <= 0.5 + 1e-9)[roomy].all()
        assert ratio_counts(np.array([5]), 0.1, 0.1) == (1, 1)

    @pytest.mark.parametrize(("name", "counts"), [("mmrec_random", mmrec_counts), ("lattice_random", lattice_counts), ("recbole_rs", recbole_counts)])
    def test_every_user_gets_exactly_those_counts(self, tmp_path: Path, name: str, counts: object) -> None:
        lengths = range(3, 24)
        rows = [(f"u{n:02}", f"i{i}") for n in lengths for i in range(n)]
        made = split(build(tmp_path / "d", rows, "none"), name, mask="train", history_at_test="train")
        data = build(tmp_path / "d", rows, "none")
        for part, held in zip((made.valid, made.test), counts(np.array(lengths)), strict=True):
            assert {user: len(asked) for user, (_, _, asked) in ask(data, part).items()} == {f"u{n:02}": h for n, h in zip(lengths, held, strict=True) if h}

    def test_ngcf_holds_out_part_of_the_training_data_and_gives_it_back(self, tmp_path: Path) -> None:
        data = build(tmp_path / "d", [(f"u{u}", f"i{i}") for u in range(4) for i in range(20)], "none")
        made, refit, published = split(data, "ngcf"), split(data, "ngcf", fit_on="train+valid"), split(data, "ngcf_80_20:valid=0")
        assert (len(made.train), len(made.valid.target_items), len(made.test.target_items)) == (4 * 14, 4 * 2, 4 * 4)
        assert len(refit.train) == 4 * 16 and refit.valid is None and published.valid is None
        assert ask(data, made.test) == ask(data, refit.test) == ask(data, published.test)

    def test_recbole_permutation_is_the_reference(self, tmp_path: Path) -> None:
        """Against a plain loop over the permuted rows, on rows whose users are mixed."""
        import torch

        rows = [(f"u{(n * 7) % 11}", f"i{n}") for n in range(150)]
        data = build(tmp_path / "d", rows, "none")
        torch.manual_seed(2020)
        groups: dict[str, list[int]] = {}
        for row in torch.randperm(150).tolist():
            groups.setdefault(rows[row][0], []).append(row)
        held = {user: (own[-2 * (len(own) // 10) : -(len(own) // 10)], own[-(len(own) // 10) :]) for user, own in groups.items()}
        made = split(data, "recbole_rs")
        for part, place in ((made.valid, 0), (made.test, 1)):
            assert sorted(part.target_rows.tolist()) == sorted(row for pair in held.values() for row in pair[place])

    def test_cold_items_take_all_their_events_and_are_the_only_candidates(self, tmp_path: Path) -> None:
        data = build(tmp_path / "d", [(f"u{u}", f"i{(u + 3 * n) % 20}") for u in range(30) for n in range(8)], "none")
        made = split(data, "cold-items:valid=0.1,test=0.2")
        for part, count in ((made.valid, 2), (made.test, 4)):
            assert part.candidates.sum() == count
            assert part.candidates[part.target_items].all()
            assert not np.isin(made.train.items, np.flatnonzero(part.candidates)).any()
        assert not (made.valid.candidates & made.test.candidates).any()
        assert (made.cold_items == (made.valid.candidates | made.test.candidates)).all()

    def test_a_cold_protocol_asks_only_for_items_without_training_events(self, tmp_path: Path) -> None:
        data = build(tmp_path / "d", SHOP)
        made = split(data, CUTS, candidates="cold")
        assert ask(data, made.test) == {"a": (["i1", "i2", "i3"], {"i1", "i2", "i3"}, {"i4"})}
        assert made.test.left_out == {"no history": 1, "no cold target": 2}
        assert set(data.item_ids.decode(np.flatnonzero(made.test.candidates))) == {"i3", "i4"}


class TestPredefined:
    ROWS = (
        ("a", "x", "train"), ("a", "y", "valid"), ("a", "w", "valid"), ("a", "z", "test"), ("a", "x", "test"),
        ("b", "x", "train"), ("b", "z", "test"),
        ("c", "z", "test"),
    )  # fmt: skip

    def test_parts_may_hold_several_targets(self, tmp_path: Path) -> None:
        data = build(tmp_path / "d", list(self.ROWS), "none", predefined=True)
        made = split(data, "predefined")
        assert ask(data, made.valid) == {"a": (["x"], {"x"}, {"y", "w"})}
        history, mask, asked = ask(data, made.test)["a"]
        assert (set(history), mask, asked) == ({"x", "y", "w"}, {"x", "y", "w"}, {"z"})
        assert made.test.left_out == {"no history": 1} and default_split(data.info) == "predefined"

    def test_parts_order_the_events_where_only_some_are_timed(self, tmp_path: Path) -> None:
        table = pl.DataFrame(
            {
                "user": ["a"] * 4,
                "item": ["late", "early", "held", "last"],
                "timestamp": pl.Series([9, 1, None, None], dtype=pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
                "part": ["train", "train", "valid", "test"],
            }
        )
        table = pl.concat([table, table.with_columns(user=pl.lit("b"))])[::-1]
        data = write_dataset(tmp_path / "d", DatasetInfo(name="tiny", order="timestamp", timed_parts=["train"], predefined=True), table)
        assert ask(data, split(data, "predefined").test)["b"][0] == ["early", "late", "held"]
        assert ask(data, split(data, "leave-last-out").test)["a"] == (["early", "late", "held"], {"early", "late", "held"}, {"last"})
        assert split(data, "predefined").train.times is None
        with pytest.raises(DataError, match=r"temporal.*times only in train.*--split predefined"):
            split(data, "temporal")

    def test_a_missing_validation_part_can_be_held_out(self, tmp_path: Path) -> None:
        rows = [("a", f"i{n}", "train") for n in range(10)] + [("b", f"i{n}", "train") for n in range(20)] + [("a", "z", "test"), ("b", "z", "test")]
        data = build(tmp_path / "d", rows, "none", predefined=True)
        assert split(data, "predefined").valid is None
        made = split(data, "predefined:valid=0.1")
        assert {user: len(asked) for user, (_, _, asked) in ask(data, made.valid).items()} == {"a": 1, "b": 2}
        assert len(made.train) == 27 and len(made.test.target_items) == 2 and made.leaks == ()

    def test_a_strange_part_is_refused(self, tmp_path: Path) -> None:
        data = build(tmp_path / "d", [("a", "x", "train"), ("b", "y", "dev")], "none", predefined=True)
        with pytest.raises(DataError, match="has 'dev'"):
            split(data, "predefined")


def test_none_asks_nothing(tmp_path: Path) -> None:
    data = build(tmp_path / "d", [("a", "x", 1)])
    made = split(data, "none")
    assert made.valid is None and made.test is None and len(made.train) == len(made.known) == 1


@pytest.mark.parametrize("text", ["temporal:valid=0.2,test=0.2", "temporal_rolling", "leave-last-out", "ratio", "cold-items", "mmrec", "lattice", "ngcf"])
def test_the_order_of_rows_in_the_file_changes_nothing(tmp_path: Path, text: str) -> None:
    rng = np.random.default_rng(3)
    rows = [(f"u{u}", f"i{i}", int(t)) for u in range(25) for i, t in zip(rng.permutation(30)[:12], rng.integers(0, 9, 12), strict=True)]
    made = []
    for place, order in (("a", range(len(rows))), ("b", rng.permutation(len(rows)))):
        made.append(split(build(tmp_path / place, [rows[n] for n in order]), text))
    first, second = made
    assert (first.train.items == second.train.items).all() and (first.known.indptr == second.known.indptr).all()
    for one, other in ((first.valid, second.valid), (first.test, second.test)):
        assert (one.target_items == other.target_items).all() and (one.target_indptr == other.target_indptr).all()
        assert (one.histories.items == other.histories.items).all() and (one.mask_items == other.mask_items).all()


def test_unordered_sets_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    rows = [(f"u{u}", f"i{(u * 5 + n * 7) % 31}") for u in range(10) for n in range(12)]
    logs = [build(tmp_path / name, order, "none").log() for name, order in (("a", rows), ("b", rows[::-1]))]
    assert (logs[0].items == logs[1].items).all()


@pytest.mark.parametrize("text", [CUTS, CUTS + ",rolling=true", "leave-last-out"])
def test_renaming_ids_renames_the_answer(tmp_path: Path, text: str) -> None:
    rows = [(user, item, time + place / 100) for place, (user, item, time) in enumerate(SHOP)]
    renamed = [(f"{9 - ord(user) % 10}{user}", f"{9 - int(item[1])}{item}", time) for user, item, time in rows]
    one, other = build(tmp_path / "a", rows), build(tmp_path / "b", renamed)
    assert one.item_ids.ids.to_list() != [name[1:] for name in other.item_ids.ids.to_list()], "the codes must differ for the test to say something"
    parts = [{user[-1]: ask(data, split(data, text).test)[user] for user in ask(data, split(data, text).test)} for data in (one, other)]
    back = {user: ([i[1:] for i in h], {i[1:] for i in m}, {i[1:] for i in t}) for user, (h, m, t) in parts[1].items()}
    assert parts[0] == back


class TestLeaks:
    def test_shared_events_are_found(self, tmp_path: Path) -> None:
        made = split(build(tmp_path / "d", SHOP), CUTS)
        whole = build(tmp_path / "d", SHOP).log()
        sentences = check_leaks(replace(made, train=whole))
        assert any("test events are also among the training events" in s for s in sentences)
        assert any("not after the newest training event" in s for s in sentences)
        assert any("what is known at the test" in s for s in check_leaks(replace(made, known=whole)))
        assert any("also validation events" in s for s in check_leaks(replace(made, valid=replace(made.test, name="valid"))))

    def test_masked_targets_are_found(self, tmp_path: Path) -> None:
        made = split(build(tmp_path / "d", SHOP), CUTS)
        wrong = replace(made.test, mask_indptr=made.test.target_indptr, mask_items=made.test.target_items)
        assert any("3 test targets are masked" in s for s in check_leaks(replace(made, test=wrong)))


class TestText:
    @pytest.mark.parametrize(
        "text",
        ["temporal", "leave-last-out:ties=file", "temporal:test=0.2,rolling=true", "ratio:seed=3", "recbole_rs", "temporal:test_from=2024-01-31T10:00:00Z"],
    )
    def test_round_trip(self, text: str) -> None:
        settings = parse_split(text)
        assert parse_split(settings.text) == settings and settings.name == text.partition(":")[0]

    def test_every_name_parses_in_both_spellings(self) -> None:
        for name in SPLITS:
            assert parse_split(name) == parse_split(name.replace("-", "_")) == parse_split(name.replace("_", "-"))
        assert parse_split("leave_one_out").name == "leave-last-out" and parse_split("global_time").name == "temporal"
        assert parse_split("ngcf").name == "ngcf_80_20" and parse_split("mmrec").name == "mmrec_random"
        assert parse_split("temporal_rolling:rolling=false") == parse_split("temporal")

    def test_file(self, tmp_path: Path) -> None:
        file = tmp_path / "split.yaml"
        file.write_text("name: temporal\nvalid: 0.2\nrolling: true\ntest_from: 2024-01-31\n")
        assert parse_split(str(file)).text == "temporal:valid=0.2,test_from=2024-01-31T00:00:00Z,rolling=true"
        file.write_text("valid: 0.2\n")
        with pytest.raises(SettingError, match='must have a "name"'):
            parse_split(str(file))
        file.write_text("name: temporal\nvalide: 0.2\n")
        with pytest.raises(SettingError, match=r'"valide" in .*split.yaml.*mean "valid"'):
            parse_split(str(file))
        with pytest.raises(SettingError, match="There is no file"):
            parse_split(str(tmp_path / "none.yaml"))

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("tempral", r'no split "tempral".*Did you mean "temporal"'),
            ("", r'no split "".*Known: '),
            ("temporal:vaild=0.1", r'Unknown key "vaild" in split "temporal".*mean "valid"'),
            ("leave-last-out:rolling=true", r'Unknown key "rolling" in split "leave-last-out"'),
            ("leave-last-out:ties=random", r"'seeded' or 'file'"),
            ("ratio:test=1.5", r"less than or equal to 1.*1\.5"),
            ("ratio:test=.nan", r'"test"'),
            ("ratio:valid=0.6,test=0.4", r"valid=0\.6 and test=0\.4 leave nothing to train on"),
            ("temporal:rolling", r"not of the form key=value"),
            ("predefined:valid=1", r"less than 1"),
        ],
    )
    def test_mistakes_are_one_sentence(self, text: str, sentence: str) -> None:
        with pytest.raises(SettingError, match=sentence) as caught:
            parse_split(text)
        assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)

    def test_default(self) -> None:
        assert [default_split(DatasetInfo(name="x", order=order)) for order in ("timestamp", "position", "none")] == ["temporal", "leave-last-out", "ratio"]
        assert default_split(DatasetInfo(name="x", order="timestamp", predefined=True, timed_parts=["train"])) == "predefined"


class TestRefusals:
    @pytest.mark.parametrize(
        ("rows", "order", "text", "sentence"),
        [
            ([("a", "x"), ("b", "x")], "none", "temporal", r"needs clock times.*no timestamps.*--split ratio.*--timestamp"),
            ([("a", "x", 0), ("b", "x", 1)], "position", "temporal", r"--split leave-last-out"),
            ([("a", "x"), ("b", "x")], "none", "leave-last-out", r"needs ordered events.*--ordered"),
            ([("a", "x"), ("b", "x")], "none", "predefined", r"did not come split.*--train"),
            ([("a", "x"), ("a", "y"), ("a", "z")], "none", "ratio", r"events of 1 user, and a split needs at least 2"),
            ([("a", "x", 1), ("b", "y", 1)], "timestamp", "temporal", r"leaves no event to train on"),
            ([("a", "x", 1), ("b", "y", 2)], "timestamp", "temporal:valid=0,test=0", r"leaves no test query \(0 test events\)"),
            ([("a", "x", 1), ("a", "x", 2), ("b", "x", 3)], "timestamp", "temporal:valid=0,test=0.5", r"leaves no test query.*left out"),
            ([("a", "x", 1), ("a", "y", 2), ("b", "x", 3)], "timestamp", "temporal:test_from=2030-01-01", r"leaves no test query"),
            ([("a", "x", 1), ("a", "y", 2), ("b", "x", 3)], "timestamp", "temporal:valid_from=1960-01-01,test_from=1960-02-01", r"leaves no event to train on"),
            ([("a", "x", 1), ("a", "y", 2), ("b", "x", 3)], "timestamp", "leave-last-out", r"leaves no test query"),
            ([(u, "x", t) for u in "ab" for t in range(5)], "timestamp", "leave-last-out", r"2 left out: all targets seen before"),
            ([(u, "x") for u in "abc"], "none", "cold-items", r"leaves no event to train on"),
        ],
    )
    def test_one_sentence(self, tmp_path: Path, rows: list[tuple], order: str, text: str, sentence: str) -> None:
        data = build(tmp_path / "d", rows, order)
        with pytest.raises(DataError, match=sentence) as caught:
            split(data, text)
        assert "\n" not in str(caught.value)

    def test_rolling_that_cannot_fit_is_refused_before_it_is_built(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = build(tmp_path / "d", SHOP)
        monkeypatch.setattr("vitrail.data.splits_queries.free_memory", lambda: 1)
        with pytest.raises(ResourceError, match="rolling=false"):
            split(data, CUTS + ",rolling=true")


def needs(*names: str) -> Path:
    folder = HOME / names[0]
    if not folder.exists():
        pytest.skip(f"no {names[0]} under VITRAIL_DATA")
    return folder


@pytest.mark.data
class TestRealData:
    def test_beauty(self, tmp_path: Path) -> None:
        lines = pl.Series("line", (needs("amazon-beauty-2014") / "sequences.txt").read_text().splitlines()).str.split(" ")
        table = pl.DataFrame({"user": lines.list.first(), "item": lines.list.slice(1)})
        table = table.with_columns(position=pl.int_ranges(0, pl.col("item").list.len())).explode("item", "position")
        data = write_dataset(tmp_path / "beauty", DatasetInfo(name="beauty", order="position"), table)
        assert default_split(data.info) == "leave-last-out"
        made = split(data, "leave-last-out")
        assert len(made.valid) == len(made.test) == 22_363 and len(made.train) == 198_502 - 2 * 22_363
        assert made.cold_items[made.test.target_items].sum() == 138, "targets that no training part holds"
        seen_at_test = np.isin(made.test.target_items, made.known.items)
        assert (~seen_at_test).sum() < 138 and made.test.left_out == {} and made.leaks == ()

    def test_ml_100k(self, tmp_path: Path) -> None:
        file = needs("ml-100k") / "ml-100k.inter"
        table = pl.read_csv(file, separator="\t", infer_schema=False, new_columns=["user", "item", "value", "time"])
        when = pl.from_epoch(pl.col("time").cast(pl.Float64).cast(pl.Int64)).cast(pl.Datetime("us", "UTC"))
        table = table.with_columns(timestamp=when, value=pl.col("value").cast(pl.Float64))
        data = write_dataset(tmp_path / "ml", DatasetInfo(name="ml-100k", order="timestamp"), table.drop("time"))
        made = split(data, "temporal")
        assert abs(len(made.train) - 80_000) < 50 and abs(len(made.known) - 90_000) < 50
        assert made.leaks == () and len(made.test) == 90 and made.test.left_out == {"no history": 76}
        rolling = split(data, "temporal_rolling")
        assert len(rolling.test) > 9_000 and rolling.leaks == ()
        held = split(data, "recbole_rs")
        assert (len(held.train), len(held.valid.target_items), len(held.test.target_items)) == (80_808, 9_596, 9_596)
        assert len(held.leaks) == 1 and held.leaks[0].startswith("By design 50.")
        recall, ndcg = ease(held)
        assert abs(ndcg - 0.3255) < 5e-4 and abs(recall - 0.278) < 5e-4

    def test_phones(self, tmp_path: Path) -> None:
        folder = needs("amazon-phones-text")
        parts = [pl.read_csv(folder / f"{part}.csv", infer_schema=False).with_columns(part=pl.lit(part)) for part in ("train", "valid", "test")]
        table = pl.concat(parts, how="diagonal").rename({"user_id": "user", "item_id": "item"})
        table = table.with_columns(timestamp=pl.from_epoch(pl.col("time").cast(pl.Int64)).cast(pl.Datetime("us", "UTC"))).drop("time")
        data = write_dataset(tmp_path / "phones", DatasetInfo(name="phones", order="timestamp", timed_parts=["train"], predefined=True), table)
        made = split(data, "predefined")
        assert len(made.train) == 137_277 and len(made.known) == 137_277 + 28_581
        assert len(made.valid.target_items) == len(made.test.target_items) == 28_581 and len(made.test) == 27_879
        assert np.diff(made.test.target_indptr).max() == 15 and made.leaks == ()

    @pytest.mark.parametrize("name", ["baby", "sports"])
    def test_mmrec_counts_are_those_of_the_published_files(self, name: str) -> None:
        folder = needs("amazon-mm-splits") / name
        parts = [pl.read_csv(folder / f"{part}.tsv", separator="\t", columns=["user"])["user"].to_numpy() for part in ("train", "valid", "test")]
        train, valid, test = (np.bincount(users, minlength=max(map(max, parts)) + 1) for users in parts)
        expected_valid, expected_test = mmrec_counts(train + valid + test)
        assert (valid == expected_valid).all() and (test == expected_test).all()


def ease(made: Split) -> tuple[float, float]:
    """Recall@10 and NDCG@10 of EASE with lambda 200, written out: the acceptance value of this split."""
    X = made.train.matrix().toarray()
    inverse = np.linalg.inv(X.T @ X + 200 * np.eye(X.shape[1]))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    users = made.test.histories.users.numpy()
    scores, truth, queries = (X @ weights)[users], np.zeros((len(users), X.shape[1]), dtype=bool), np.arange(len(users))
    scores[np.repeat(queries, np.diff(made.test.mask_indptr)), made.test.mask_items] = -np.inf
    truth[np.repeat(queries, np.diff(made.test.target_indptr)), made.test.target_items] = True
    hits = np.take_along_axis(truth, np.argsort(-scores, axis=1)[:, :10], axis=1)
    gains, targets = 1 / np.log2(np.arange(2, 12)), truth.sum(1)
    ideal = np.cumsum(gains)[np.minimum(targets, 10) - 1]
    return float((hits.sum(1) / targets).mean()), float((hits @ gains / ideal).mean())


def test_the_histories_of_a_large_part_are_gathered_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = build(tmp_path / "d", SHOP)
    held = split(data, CUTS).test
    monkeypatch.setattr("vitrail.data.split.HELD", 0)
    monkeypatch.setattr("vitrail.data.log.blocks.__defaults__", (1,))  # every user is a block
    lazy = split(data, CUTS).test
    assert isinstance(lazy.histories, Histories) and not isinstance(held.histories, Histories)
    for name in ("users", "indptr", "items", "lengths"):
        assert getattr(lazy.histories, name).equal(getattr(held.histories, name)), name
    for start in range(len(held)):
        assert lazy.histories.slice(start, len(held)).items.equal(held.histories.slice(start, len(held)).items)
    for name in ("mask_indptr", "mask_items", "target_indptr", "target_items", "target_rows", "target_times"):
        assert (getattr(lazy, name) == getattr(held, name)).all(), name
    assert lazy.left_out == held.left_out and [start for start, _ in lazy.history_blocks()] == list(range(len(held)))


def test_a_split_that_cannot_fit_is_refused_before_a_row_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = build(tmp_path / "d", SHOP)
    monkeypatch.setattr("vitrail.data.splits.free_memory", lambda: 1)
    with pytest.raises(ResourceError, match=r'Splitting data set ".*" needs about .* of memory'):
        split(data, CUTS)
    assert "interactions" not in vars(data) and not (data.path / "cache").exists()


@pytest.mark.parametrize("most", [0, 1 << 24])
def test_keys_are_found_by_marks_as_by_search(most, monkeypatch):
    monkeypatch.setattr("vitrail.data.splits_queries.MARKS", most)
    keys = np.random.default_rng(0).integers(-50, 150, 400)
    wanted = np.unique(np.random.default_rng(1).integers(0, 100, 30))
    assert np.array_equal(splits_queries._contains(wanted, keys), np.isin(keys, wanted))
    assert not splits_queries._contains(wanted[:0], keys).any()
