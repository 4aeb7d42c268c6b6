"""Click-through rows that carry their history become a data set that stores each history once."""

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from vitrail.cli import app
from vitrail.data.dataset import Dataset
from vitrail.data.impressions import make_impressions
from vitrail.data.rows import RowSettings, read_rows
from vitrail.data.splits import Shown
from vitrail.errors import DataError

NAMES = RowSettings(item="movie", label="liked", timestamp="time", history="seen", history_label="seen_liked")
TRAIN = """user_id,seen,seen_liked,movie,liked,time
a,"['1', '2']","[1, 0]",3,1,1000
a,"['2', '3']","[0, 1]",4,0,1010
b,"['9', '8']","[0, 0]",1,1,1005
"""
TEST = """user_id,seen,seen_liked,movie,liked,time
a,"['3', '4']","[1, 0]",7,1,1020
a,"['9', '9']","[1, 0]",8,1,1030
c,"['1', '2']","[1, 0]",3,what,1020
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "train.csv").write_text(TRAIN)
    (tmp_path / "test.csv").write_text(TEST)
    (tmp_path / "movies.csv").write_text("movie,genre\n" + "".join(f"{n},{'xy'[n % 2]}\n" for n in range(1, 10)))
    return tmp_path


def test_histories_are_stored_once_and_odd_rows_are_named(files):
    report = read_rows(files / "train.csv", test=files / "test.csv", items=files / "movies.csv", out=files / "d", settings=NAMES)
    assert report.rows == 4 and report.earlier == 4
    assert report.rejected == {"its history is not that of the rows before it": 1, "the label is not between 0 and 1": 1}
    rejects = pl.read_parquet(files / "d" / "rejects.parquet")
    assert sorted(rejects.select("file", "line").rows()) == [("test.csv", 3), ("test.csv", 4)]
    data = Dataset(files / "d")
    assert data.interactions.filter(pl.col("user") == "a")["item"].to_list() == ["1", "2", "3", "4", "7", "8"]
    assert data.interactions.filter(pl.col("user") == "b")["value"].to_list() == [0, 0, 1] and data.info.columns["items"] == {"genre": "category"}
    split = make_impressions(data, Shown())
    assert len(split.train) == 3 and split.valid is None and len(split.test) == 1
    test = split.test
    before = test.log.items[test.starts[0] : test.stops[0]]
    assert data.item_ids.decode(before) == ["1", "2", "3", "4"] and test.log.weights[test.starts[0] : test.stops[0]].tolist() == [1, 0, 1, 0]


def test_without_times_the_order_of_the_file_is_that_of_the_rows(files):
    (files / "plain.csv").write_text("user_id,item_id,label\na,1,1\na,2,0\nb,1,0\na,3,1\n")
    report = read_rows(files / "plain.csv", out=files / "p")
    table = report.dataset.impressions
    assert report.dataset.info.order == "position" and table.filter(pl.col("user") == "a")["before"].to_list() == [0, 1, 2]
    assert report.to_dict()["impressions"] == 4 and report.to_dict()["earlier"] == 0


def test_rows_of_one_instant_do_not_see_each_other(files):
    (files / "same.csv").write_text("user_id,item_id,label,time\na,1,1,1000\na,2,0,1000\na,3,0,1001\n")
    table = read_rows(files / "same.csv", out=files / "s", settings=RowSettings(timestamp="time")).dataset.impressions
    assert table["before"].to_list() == [0, 0, 2]


def test_histories_of_other_shapes(files):
    (files / "lists.csv").write_text("user_id,item_id,label,h\na,3,1,1|2\na,4,1,2 3\n")
    report = read_rows(files / "lists.csv", out=files / "l", settings=RowSettings(history="h"))
    assert report.rows == 2 and report.dataset.interactions["item"].to_list() == ["1", "2", "3", "4"]
    assert report.dataset.interactions["value"].to_list() == [1, 1, 1, 1]


def test_a_wrong_column_is_a_sentence(files):
    with pytest.raises(DataError, match='no column "item_id" for --item'):
        read_rows(files / "train.csv", out=files / "x")
    (files / "bad.csv").write_text("user_id,item_id,label\na,1,maybe\nb,2,7\n")
    with pytest.raises(DataError, match="No row of"):
        read_rows(files / "bad.csv", out=files / "x")


def test_the_verb(files):
    flags = [
        "data",
        "rows",
        "--train",
        str(files / "train.csv"),
        "--test",
        str(files / "test.csv"),
        "--item",
        "movie",
        "--label",
        "liked",
        "--timestamp",
        "time",
    ]
    flags += ["--history", "seen", "--history-label", "seen_liked", "--columns", "genre=category"]
    done = CliRunner().invoke(app, [*flags, "--out", str(files / "v"), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["impressions"] == 4
    done = CliRunner().invoke(app, [*flags, "--out", str(files / "v"), "--overwrite"])
    assert "kept 4 impressions" in done.stdout and "rejected 1: its history" in done.stdout
