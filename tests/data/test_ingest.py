"""Files in, a data set out: counts of real data, every form of input, every row accounted for."""

import json
import os
from pathlib import Path

import polars as pl
import pytest

from vitrail.data.dataset import Dataset
from vitrail.data.ingest import IngestSettings, ingest, inspect

HOME = Path(os.environ.get("VITRAIL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def real(name):
    if not (HOME / name).exists():
        pytest.skip(f"no {name} under VITRAIL_DATA")
    return HOME / name


def put(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def csv(rows, header=("user", "item", "timestamp")):
    return "\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n"


def parts(dataset):
    return dict(dataset.interactions["part"].value_counts().iter_rows())


# ---- real data


@pytest.mark.data
def test_ml_100k_folder(tmp_path):
    report = ingest([real("ml-100k")], out=tmp_path / "ml")
    data, info = report.dataset, report.dataset.info
    assert (report.kept, info.counts["users"], info.counts["items"]) == (100_000, 943, 1_682)
    assert info.order == "timestamp" and not report.rejected and not report.repaired
    assert info.roles == {"user": "user_id", "item": "item_id", "timestamp": "timestamp", "value": "rating"}
    times = data.interactions["timestamp"]
    assert times.dtype == pl.Datetime("us", "UTC") and (str(times.min())[:10], str(times.max())[:10]) == ("1997-09-20", "1998-04-22")
    kinds = info.columns["items"]
    assert kinds["plot"] == "text" and kinds["genres"] == "categories" and kinds["class"] == "categories" and kinds["image"] == "image"
    assert data.items["plot"].is_not_null().sum() == 1_671 and data.items["image"].is_not_null().sum() == 1_193
    assert all((data.image_root / path).is_file() for path in data.items["image"].drop_nulls().head(20))
    assert data.users.row(by_predicate=pl.col("user") == "1", named=True)["occupation"] == "technician"
    data.verify()


@pytest.mark.data
def test_beauty_in_file_order(tmp_path):
    folder = real("amazon-beauty-2014")
    report = ingest([folder / "sequences.txt"], items=[folder / "items.tsv"], out=tmp_path / "beauty", settings=IngestSettings(ordered=True))
    data = report.dataset
    assert (report.kept, data.info.counts["users"], data.info.counts["items"]) == (198_502, 22_363, 12_101)
    assert data.info.order == "position" and data.items["title"].is_not_null().sum() == 12_094
    second = data.interactions.filter(pl.col("user") == "2")
    assert second["item"].to_list() == ["6", "7", "8", "9", "10", "4", "11"] and second["position"].to_list() == list(range(7))
    sets = ingest([folder / "sequences.txt"], out=tmp_path / "sets")
    assert sets.dataset.info.order == "none" and any("--ordered" in note for note in sets.guess.notes)


@pytest.mark.data
def test_phones_timed_train_and_untimed_parts(tmp_path):
    data = ingest([real("amazon-phones-text")], out=tmp_path / "phones").dataset
    assert parts(data) == {"train": 137_277, "valid": 28_581, "test": 28_581}
    assert (data.info.order, data.info.timed_parts, data.info.predefined) == ("timestamp", ["train"], True)
    assert (data.info.counts["users"], data.info.counts["items"]) == (27_879, 10_429)
    assert data.interactions.filter(pl.col("part") != "train")["timestamp"].null_count() == 2 * 28_581
    assert data.interactions.filter(pl.col("part") == "train")["timestamp"].null_count() == 0
    assert data.items["text"].null_count() == 0 and data.info.columns["items"]["text"] == "text"


@pytest.mark.data
def test_gowalla_and_baby_split_files(tmp_path):
    data = ingest([real("gowalla-lightgcn")], out=tmp_path / "gowalla").dataset
    assert parts(data) == {"train": 810_128, "test": 217_242} and data.info.order == "none"
    assert (data.info.counts["users"], data.info.counts["items"]) == (29_858, 40_981)
    baby = real("amazon-mm-splits") / "baby"
    data = ingest(train=baby / "train.tsv", valid=baby / "valid.tsv", test=baby / "test.tsv", items=[baby / "baby_url.csv"], out=tmp_path / "baby").dataset
    assert parts(data) == {"train": 118_551, "valid": 20_559, "test": 21_682}
    assert (data.info.counts["users"], data.info.counts["items"]) == (19_445, 7_050)
    assert data.items.filter(pl.col("item") == "0")["asin"].to_list() == ["097293751X"]


@pytest.mark.data
def test_tmall_events_by_file(tmp_path):
    folder = real("tmall-mb")
    events = {name: folder / f"{name}.tsv" for name in ("buy", "cart", "fav")}
    told = IngestSettings(part_event="buy", weights={"cart": 3, "buy": 5, "fav": 1})
    report = ingest(events=events, test=folder / "test.tsv", out=tmp_path / "tmall", settings=told)
    data = report.dataset
    train = data.interactions.filter(pl.col("part") == "train")
    assert dict(train["event"].value_counts().iter_rows()) == {"buy": 167_862, "cart": 140_068, "fav": 49_482}
    assert parts(data)["test"] == 10_000 and data.info.counts["users"] == 31_882
    assert (str(train["timestamp"].min())[:10], str(train["timestamp"].max())[:10]) == ("2017-11-24", "2017-12-03")
    assert data.info.timed_parts == ["train"] and sum(report.repaired.values()) == 10_000
    assert data.info.weights == {"cart": 3, "buy": 5, "fav": 1}


@pytest.mark.data
def test_sessions_with_fractions_of_seconds(tmp_path):
    folder = real("yoochoose-100k")
    data = ingest(train=folder / "train_full.tsv", test=folder / "test.tsv", out=tmp_path / "y", settings=IngestSettings(keep_duplicates=True)).dataset
    assert parts(data) == {"train": 70_278, "test": 13_568} and data.info.roles["user"] == "SessionId"
    assert data.interactions["timestamp"][0].microsecond == 940_000


# ---- forms of input

ROWS = [("u1", "i1", 1400000000), ("u1", "i2", 1400000005), ("u2", "i1", 1400000009)]


def test_the_same_rows_in_every_format_are_the_same_data_set(tmp_path):
    frame = pl.DataFrame(ROWS, schema=["user", "item", "timestamp"], orient="row")
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")
    files = [
        put(tmp_path, "a.csv", csv(ROWS)),
        put(tmp_path, "a.tsv", csv(ROWS).replace(",", "\t")),
        put(tmp_path, "a.inter", "user:token\titem:token\ttimestamp:float\n" + csv(ROWS).split("\n", 1)[1].replace(",", "\t")),
        tmp_path / "a.parquet",
        tmp_path / "a.jsonl",
    ]
    prints = {ingest([file], out=tmp_path / f"out{number}").dataset.fingerprint for number, file in enumerate(files)}
    assert len(prints) == 1


def test_inspect_shows_what_ingest_does_and_writes_nothing(tmp_path):
    log = put(tmp_path, "log.csv", "customer,sku,when,device\nc1,0012,2020-01-01,phone\nc2,0013,2020-01-02,desk\n")
    items = put(tmp_path, "meta.csv", "sku,price,tags\n0012,1.5,a|b\n0013,2,b|a\n")
    before = sorted(tmp_path.iterdir())
    guess = inspect([log], items=[items])
    assert sorted(tmp_path.iterdir()) == before
    assert {role: (g.column, g.examples) for role, g in guess.files[0].roles.items()} == {
        "user": ("customer", ("c1", "c2")), "item": ("sku", ("0012", "0013")), "timestamp": ("when", ("2020-01-01", "2020-01-02")),
    }  # fmt: skip
    assert guess.order == "timestamp" and guess.columns["interactions"]["device"].kind == "category" and guess.columns["items"]["price"].kind == "number"
    report = ingest([log], items=[items], out=tmp_path / "out")
    assert report.guess.files == guess.files and report.guess.columns == guess.columns
    json.dumps([guess.to_dict(), report.to_dict()])


def test_flags_correct_the_guess(tmp_path):
    log = put(tmp_path, "log.csv", "a,b,c,year\nu1,i1,1.5,1995\nu2,i2,2.5,1996\n")
    told = IngestSettings(user="b", item="a", value="c", columns={"year": "category"}, name="swapped", licence="CC0")
    data = ingest([log], out=tmp_path / "out", settings=told).dataset
    assert data.interactions["user"].to_list() == ["i1", "i2"] and data.interactions["value"].to_list() == [1.5, 2.5]
    assert data.interactions["year"].to_list() == ["1995", "1996"] and data.info.columns["interactions"] == {"year": "category"}
    assert (data.info.name, data.info.licence) == ("swapped", "CC0")


def test_context_columns_are_kept_typed_and_never_shadow_a_role(tmp_path):
    log = put(tmp_path, "log.csv", "user,item,score,value,hour\nu,a,1,x y,3.5\nu,b,2,z,4\n")
    data = ingest([log], out=tmp_path / "out", settings=IngestSettings(value="score")).dataset
    assert data.interactions["value"].to_list() == [1.0, 2.0] and data.interactions["value_column"].to_list() == ["x y", "z"]
    assert data.interactions["hour"].to_list() == [3.5, 4.0]


def test_headerless_pairs(tmp_path):
    report = ingest([put(tmp_path, "pairs.tsv", "1\t5\n1\t6\n2\t5\n")], out=tmp_path / "out")
    assert report.dataset.interactions.rows() == [("1", "5"), ("1", "6"), ("2", "5")] and not report.guess.files[0].header
    assert report.dataset.info.order == "none"


def test_order_of_the_file_on_request(tmp_path):
    log = put(tmp_path, "log.csv", csv([("u", "b"), ("v", "a"), ("u", "a"), ("u", "b")], ("user", "item")))
    data = ingest([log], out=tmp_path / "out", settings=IngestSettings(ordered=True)).dataset
    assert data.info.order == "position" and data.interactions["position"].to_list() == [0, 0, 1, 2]


def test_ordered_parts_go_on_counting(tmp_path):
    train, test = put(tmp_path, "train.txt", "1 4 5\n2 4 7 8\n"), put(tmp_path, "test.txt", "1 9\n2 9\n")
    data = ingest(train=train, test=test, out=tmp_path / "out", settings=IngestSettings(ordered=True)).dataset
    assert data.interactions.filter(pl.col("user") == "2").select("item", "position", "part").rows() == [
        ("4", 0, "train"), ("7", 1, "train"), ("8", 2, "train"), ("9", 3, "test"),
    ]  # fmt: skip


def test_a_part_column(tmp_path):
    log = put(tmp_path, "log.csv", "user,item,split\nu,a,Train\nu,b,VAL\nu,c,test\n")
    assert parts(ingest([log], out=tmp_path / "out").dataset) == {"train": 1, "valid": 1, "test": 1}


def test_odd_ids_are_text_and_only_outer_white_space_goes(tmp_path):
    ids = ["007", "7", "18446744073709551616", "6f9619ff-8b86-d011-b42d-00cf4fc964ff", "naïve 日本", "a  b", "None", "1e5", "nan"]
    log = put(tmp_path, "log.csv", csv([(name, f" {name} ") for name in ids], ("user", "item")))
    report = ingest([log], out=tmp_path / "out")
    assert report.dataset.interactions["user"].to_list() == ids == report.dataset.interactions["item"].to_list()
    assert report.repaired == {"white space around item ids": len(ids)}


def test_duplicates_are_kept_once_and_recorded(tmp_path):
    rows = [ROWS[0], ROWS[1], ROWS[0], ROWS[2], ROWS[0]]
    log = put(tmp_path, "log.csv", csv(rows))
    report = ingest([log], out=tmp_path / "out")
    assert report.kept == 3 and report.repaired == {"exact duplicate rows": 2} and not report.rejected
    rejects = pl.read_parquet(tmp_path / "out" / "rejects.parquet")
    assert rejects["line"].to_list() == [4, 6] and rejects["text"].to_list() == ["u1,i1,1400000000"] * 2
    assert ingest([log], out=tmp_path / "all", settings=IngestSettings(keep_duplicates=True)).kept == 5


def test_every_row_is_accounted_for(tmp_path):
    bad = [("", "i", 1400000000), ("u", " ", 1400000000), ("u", "i", "soon"), ("u", "i", "NaN"), ("u", "i", "-5")]
    text = csv([*ROWS * 4, *bad, ("u9", "i9", "1400000000000")])
    report = ingest([put(tmp_path, "log.csv", text + "just one field\n")], out=tmp_path / "out", settings=IngestSettings(min_user_events=2))
    assert report.rejected == {
        "a missing user id": 1, "a missing item id": 1, "an unreadable time": 1, "a time that is NaN or infinite": 1, "a negative time": 1,
        "a number of fields other than 3": 1,
    }  # fmt: skip
    assert report.repaired == {"exact duplicate rows": 9, "times in another unit than most": 1}
    assert report.removed["events"] == 2 and report.kept == 2
    assert report.kept + report.removed["events"] + sum(report.rejected.values()) + report.repaired["exact duplicate rows"] == 19
    rejects = pl.read_parquet(tmp_path / "out" / "rejects.parquet")
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert rejects.height == 15 and all(lines[line - 1] == text for line, text in rejects.select("line", "text").iter_rows())
    assert report.dataset.info.counts["rejected"] == 6


def test_k_core_also_cuts_the_tables(tmp_path):
    log = put(tmp_path, "log.csv", csv([("u", "a"), ("u", "b"), ("v", "a"), ("v", "b"), ("w", "c")], ("user", "item")))
    items = put(tmp_path, "items.csv", "item,colour\na,red\nb,blue\nc,red\nd,red\n")
    report = ingest([log], items=[items], out=tmp_path / "out", settings=IngestSettings(min_item_events=2, min_user_events=2))
    assert set(report.dataset.items["item"]) == {"a", "b"} and set(report.dataset.users["user"]) == {"u", "v"}
    assert report.removed == {"users": 1, "items": 1, "events": 1, "items of the items files outside it": 2}


def test_items_without_events_stay_in_the_catalogue(tmp_path):
    log = put(tmp_path, "log.csv", csv(ROWS))
    first = put(tmp_path, "items.json", '{"i1": {"title": "one"}, "i2": {"title": "two"}, "cold": {"title": "three"}}')
    second = put(tmp_path, "prices.csv", "sku,price,title\ni1,3,uno\ncold,4,tres\n")
    report = ingest([log], items=[first, second], out=tmp_path / "out", settings=IngestSettings(columns={"price": "number"}))
    rows = {row["item"]: row for row in report.dataset.items.to_dicts()}
    assert rows["cold"] == {"item": "cold", "title": "three", "price": 4.0, "title_2": "tres"} and rows["i2"]["price"] is None


def test_an_id_column_of_another_name_is_found_by_its_ids(tmp_path):
    log = put(tmp_path, "log.csv", csv(ROWS))
    items = put(tmp_path, "items.csv", "item_id,code,colour\n1,i1,red\n2,i2,blue\n")
    data = ingest([log], items=[items], out=tmp_path / "out").dataset
    assert data.items.filter(pl.col("item") == "i1")["colour"].to_list() == ["red"]


def test_pictures_by_item_id(tmp_path):
    folder = tmp_path / "pics"
    folder.mkdir()
    for name in ("i1.jpg", "other.png", "notes.txt"):
        (folder / name).write_bytes(b"x")
    log = put(tmp_path, "log.csv", csv(ROWS))
    data = ingest([log], out=tmp_path / "out", settings=IngestSettings(images=folder)).dataset
    assert dict(data.items.select("item", "image").iter_rows()) == {"i1": "i1.jpg", "i2": None}
    assert data.image_root == folder.resolve() and data.info.columns["items"] == {"image": "image"}
    data = ingest([log], out=tmp_path / "out2", settings=IngestSettings(images=folder, image_root=tmp_path)).dataset
    assert data.items["image"].drop_nulls().to_list() == ["pics/i1.jpg"] and (data.image_root / "pics/i1.jpg").is_file()


def test_a_folder_of_behaviours(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    put(folder, "view.csv", csv(ROWS))
    put(folder, "buy.csv", csv(ROWS[:1]))
    put(folder, "readme.txt", "hello")
    data = ingest([folder], out=tmp_path / "out").dataset
    assert dict(data.interactions["event"].value_counts().iter_rows()) == {"view": 3, "buy": 1}


def test_one_user_with_one_event_of_a_one_item_catalogue(tmp_path):
    report = ingest([put(tmp_path, "log.csv", csv(ROWS[:1]))], out=tmp_path / "out")
    assert (report.kept, len(report.dataset.items), len(report.dataset.users)) == (1, 1, 1)
    assert Dataset(tmp_path / "out").log().lengths.tolist() == [1]


def test_what_counts_is_checked_and_kept(tmp_path):
    log = put(tmp_path, "log.csv", "user,item,rating\nu,a,5\nu,b,2\n")
    data = ingest([log], out=tmp_path / "out", settings=IngestSettings(positive="value >= 4", repeats="last")).dataset
    assert data.info.positive == "value >= 4" and data.info.repeats == "last" and len(data.log()) == 1


def test_a_context_of_lists_in_one_file_and_text_in_another(tmp_path):
    files = [put(tmp_path, "a.jsonl", '{"user": 1, "item": 2, "x": [1, 2]}\n'), put(tmp_path, "b.jsonl", '{"user": 1, "item": 3, "x": "q"}\n')]
    assert ingest(files, out=tmp_path / "out").dataset.interactions["x"].to_list() == ["1|2", "q"]


def test_overwrite_replaces(tmp_path):
    log = put(tmp_path, "log.csv", csv(ROWS))
    ingest([log], out=tmp_path / "out")
    put(tmp_path, "log.csv", csv(ROWS[:1]))
    assert ingest([log], out=tmp_path / "out", overwrite=True).kept == 1 and len(Dataset(tmp_path / "out").interactions) == 1
