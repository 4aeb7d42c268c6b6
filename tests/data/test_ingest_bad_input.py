"""Bad input: one sentence that says what, where and how to mend it; nothing is written, nothing is left behind."""

import errno

import polars as pl
import pytest

from vitrail.data import assemble
from vitrail.data.ingest import IngestSettings, ingest, inspect
from vitrail.errors import DataError, ResourceError, SettingError, VitrailError

GOOD = "user,item,timestamp\n" + "".join(f"u{i},i{i % 7},{1400000000 + i}\n" for i in range(40))


def put(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(tmp_path, kind, match, files, **told):
    """`ingest` must refuse with one sentence and leave the folder as it was."""
    before = sorted(tmp_path.rglob("*"))
    settings = told.pop("settings", None)
    with pytest.raises(kind, match=match) as caught:
        ingest(files, out=tmp_path / told.pop("place", "out"), settings=settings, **told)
    assert sorted(tmp_path.rglob("*")) == before
    text = str(caught.value)
    assert isinstance(caught.value, VitrailError) and "\n" not in text and text.endswith((".", "?"))
    return text


def test_missing_file(tmp_path):
    refused(tmp_path, DataError, r"There is no file .*nowhere\.csv", [tmp_path / "nowhere.csv"])
    log = put(tmp_path, "log.csv", GOOD)
    refused(tmp_path, DataError, r"There is no file .*items\.csv", [log], items=[tmp_path / "items.csv"])
    refused(tmp_path, DataError, "No file of events", [])


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "items.json", "log.parquet", "x.inter"])
def test_empty_file(tmp_path, name):
    refused(tmp_path, DataError, "is empty|not readable Parquet", [put(tmp_path, name, "")])


@pytest.mark.parametrize("content", ["\n\n  \n", "\ufeff"])
def test_blank_file(tmp_path, content):
    refused(tmp_path, DataError, "is empty", [put(tmp_path, "log.csv", content)])


@pytest.mark.parametrize(
    ("name", "content"), [("log.csv", "user,item,timestamp\n"), ("x.inter", "user_id:token\titem_id:token\n"), ("log.csv", "user,item\n\n\n")]
)
def test_header_only(tmp_path, name, content):
    refused(tmp_path, DataError, "header and no rows", [put(tmp_path, name, content)])


def test_parquet_without_rows(tmp_path):
    pl.DataFrame({"user": [], "item": []}).write_parquet(tmp_path / "log.parquet")
    refused(tmp_path, DataError, "no rows", [tmp_path / "log.parquet"])


def test_wrong_separator(tmp_path):
    refused(tmp_path, DataError, "one column.*--separator", [put(tmp_path, "log.csv", GOOD)], settings=IngestSettings(separator=";"))
    refused(tmp_path, DataError, "one column.*--separator", [put(tmp_path, "log.csv", GOOD.replace(",", "~"))])


    for separator in ('"', "\n", ""):
        refused(tmp_path, DataError, "--separator", [put(tmp_path, "log.csv", GOOD)], settings=IngestSettings(separator=separator))


def test_absent_and_ambiguous_columns(tmp_path):
    log = put(tmp_path, "log.csv", "foo,bar,ts\na,b,1\nc,d,2\n")
    refused(tmp_path, DataError, r'--user COLUMN and --item COLUMN.*"foo", "bar"', [log])
    refused(tmp_path, DataError, r'no column "usr" for --user', [log], settings=IngestSettings(user="usr"))
    refused(tmp_path, DataError, r'no column "when" for --timestamp', [log], settings=IngestSettings(user="foo", item="bar", timestamp="when"))
    twice = put(tmp_path, "twice.csv", "user,movie_id,book_id\na,b,1\nc,d,2\n")
    refused(tmp_path, DataError, r'"movie_id", "book_id".*--item COLUMN', [twice])
    refused(tmp_path, DataError, 'two columns named "item"', [put(tmp_path, "same.csv", "user,item,item\na,b,1\nc,d,2\n")])


def test_a_told_column_that_no_part_has(tmp_path):
    train, test = put(tmp_path, "train.csv", GOOD), put(tmp_path, "test.csv", "user,item\nu1,i1\n")
    refused(tmp_path, DataError, 'None of the files has a column "when" for --timestamp', [], train=train, test=test, settings=IngestSettings(timestamp="when"))


def test_a_file_without_times_beside_one_with(tmp_path):
    files = [put(tmp_path, "a.csv", GOOD), put(tmp_path, "b.csv", "user,item\nu1,i1\n")]
    refused(tmp_path, DataError, r"b\.csv has no times.*--timestamp", files)


@pytest.mark.parametrize("cell", ["NaN", "inf", "-inf", "-5", "soon", "", "1e300"])
def test_a_bad_time_costs_its_row_and_mostly_bad_times_the_file(tmp_path, cell):
    report = ingest([put(tmp_path, "log.csv", GOOD + f"u,i,{cell}\n")], out=tmp_path / "out")
    assert report.kept == 40 and sum(report.rejected.values()) == 1 and "time" in next(iter(report.rejected))
    row = pl.read_parquet(tmp_path / "out" / "rejects.parquet").row(0, named=True)
    assert (row["file"], row["line"], row["text"]) == (str(tmp_path / "log.csv"), 42, f"u,i,{cell}")
    bad = tmp_path / "bad"
    bad.mkdir()
    text = refused(bad, DataError, "cannot be used", [put(bad, "log.csv", GOOD + f"u,i,{cell}\n" * 60)], settings=IngestSettings(timestamp="timestamp"))
    assert "60 of the 100 rows" in text and "line 42" in text and "--timestamp" in text


@pytest.mark.parametrize(
    ("cell", "reason"), [("NaN", "a value that is NaN or infinite"), ("-Infinity", "a value that is NaN or infinite"), ("good", "an unreadable value")]
)
def test_bad_values(tmp_path, cell, reason):
    text = GOOD.replace("timestamp", "rating").replace("14000000", "") + f"u,i,{cell}\n"
    assert ingest([put(tmp_path, "log.csv", text)], out=tmp_path / "out").rejected == {reason: 1}


def test_seconds_among_milliseconds_are_mended_and_counted(tmp_path):
    text = "user,item,timestamp\n" + "".join(f"u{i},i,{1400000000000 + i}\n" for i in range(10)) + "u,i,1400000000\n"
    report = ingest([put(tmp_path, "log.csv", text)], out=tmp_path / "out")
    assert report.repaired == {"times in another unit than most": 1} and report.dataset.info.units == {"timestamp": "ms"}
    assert report.dataset.interactions["timestamp"].dt.year().unique().to_list() == [2014]


def test_not_utf8(tmp_path):
    report = ingest([put(tmp_path, "log.csv", GOOD.encode() + b"caf\xe9,i1,1400000000\n")], out=tmp_path / "out")
    assert report.rejected == {"text that is not UTF-8": 1} and report.kept == 40
    refused(tmp_path, DataError, "not UTF-8.*--encoding", [put(tmp_path, "bad.csv", b"user,item\n" + b"caf\xe9,\xe91\n" * 5)], place="a")
    refused(tmp_path, DataError, "--encoding utf-16", [put(tmp_path, "wide.csv", GOOD.encode("utf-16"))], place="a")
    refused(tmp_path, DataError, "header.*not UTF-8.*--encoding", [put(tmp_path, "head.csv", b"user,item,caf\xe9\n1,2,3\n")], place="a")
    refused(tmp_path, SettingError, 'no encoding "nope"', [put(tmp_path, "log.csv", GOOD)], settings=IngestSettings(encoding="nope"), place="a")
    wrong = put(tmp_path, "bad.csv", b"user,item\n\xff\xff,1\n")
    refused(tmp_path, DataError, "not shift_jis", [wrong], settings=IngestSettings(encoding="shift_jis"), place="a")


@pytest.mark.parametrize("name", ["log.parquet", "log.bin"])
def test_truncated_parquet(tmp_path, name):
    pl.DataFrame({"user": list(range(5000)), "item": list(range(5000))}).write_parquet(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    refused(tmp_path, DataError, "not readable Parquet.*truncated", [put(tmp_path, name, whole[: len(whole) // 2])])


@pytest.mark.parametrize(
    ("name", "content"),
    [("log.csv", b"PK\x03\x04 a workbook"), ("log.csv", b"\x80\x04\x95 a pickle"), ("log.txt", b"a\x00b\x00"), ("log.csv.gz", b"not packed")],
)
def test_binary_files_are_never_opened(tmp_path, name, content):
    refused(tmp_path, DataError, "not a text file|unpacked", [put(tmp_path, name, content)])


@pytest.mark.parametrize("content", ['{"1": "a"', "[1, 2]", "{}", "[]"])
def test_bad_json_documents(tmp_path, content):
    refused(tmp_path, DataError, r"items\.json", [put(tmp_path, "log.csv", GOOD)], items=[put(tmp_path, "items.json", content)])


def test_json_lines_without_an_object(tmp_path):
    refused(tmp_path, DataError, "JSON object", [put(tmp_path, "log.jsonl", "{oops\n{again\n")])


def test_items_of_another_house(tmp_path):
    log, items = put(tmp_path, "log.csv", GOOD), put(tmp_path, "items.csv", "item,colour\nx1,red\nx2,blue\n")
    text = refused(tmp_path, DataError, "None of the ids", [log], items=[items])
    assert "'x1'" in text and "'i0'" in text and "--item-key" in text
    refused(tmp_path, DataError, 'no column "sku" for --item-key', [log], items=[items], settings=IngestSettings(item_key="sku"))


def test_a_folder_that_tells_nothing(tmp_path):
    folder = tmp_path / "stuff"
    folder.mkdir()
    put(folder, "a.csv", GOOD)
    put(folder, "b.csv", GOOD)
    refused(tmp_path, DataError, r"a\.csv, b\.csv.*--train", [folder])


def test_parts_that_do_not_go_together(tmp_path):
    log = put(tmp_path, "log.csv", GOOD)
    refused(tmp_path, DataError, "given twice", [log], train=log)
    refused(tmp_path, DataError, "none for train", [], test=log)
    refused(tmp_path, DataError, "is a folder where a file is wanted", [log], items=[tmp_path])


def test_declarations_about_what_is_not_there(tmp_path):
    log = put(tmp_path, "log.csv", "user,item,event\nu,a,view\nu,b,buy\n")
    refused(tmp_path, DataError, 'No event is a "by".*"buy"', [log], settings=IngestSettings(weights={"by": 2}))
    refused(tmp_path, DataError, "--event COLUMN", [put(tmp_path, "plain.csv", GOOD)], settings=IngestSettings(weights={"buy": 2}))
    test = put(tmp_path, "test.csv", "user,item\nu,c\n")
    refused(tmp_path, DataError, "--part-event NAME", [], train=log, test=test, settings=IngestSettings(weights={"buy": 2}))
    refused(tmp_path, VitrailError, "price", [log], settings=IngestSettings(positive="price >= 4"))
    refused(tmp_path, DataError, 'No file has a column "colour"', [log], settings=IngestSettings(columns={"colour": "category"}))
    refused(tmp_path, DataError, "lower them", [log], settings=IngestSettings(min_user_events=9))


def test_settings_out_of_bounds():
    cases = [({"weights": {"view": -1}}, "weights.view"), ({"min_user_events": -1}, "min_user_events"), ({"usr": "x"}, 'mean "user"')]
    for values, match in cases:
        with pytest.raises(SettingError, match=match):
            IngestSettings.of(values)


def test_a_taken_place_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    put(tmp_path / "out", "mine.txt", "keep me")
    monkeypatch.setattr(assemble, "run", None)
    refused(tmp_path, DataError, "--overwrite", [put(tmp_path, "log.csv", GOOD)])


@pytest.mark.parametrize("overwrite", [False, True])
def test_full_disk_half_way(tmp_path, monkeypatch, overwrite):
    log = put(tmp_path, "log.csv", GOOD)
    if overwrite:
        ingest([log], out=tmp_path / "out")
    write = pl.DataFrame.write_parquet

    def full(self, file, *args, **kwargs):
        if "items" in str(file):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, file, *args, **kwargs)

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    text = refused(tmp_path, ResourceError, "disk is full", [log], overwrite=overwrite)
    assert "free some space" in text


def test_interrupted_half_way(tmp_path, monkeypatch):
    log = put(tmp_path, "log.csv", GOOD)
    write = pl.DataFrame.write_parquet

    def interrupted(self, file, *args, **kwargs):
        write(self, file, *args, **kwargs)
        if "items" in str(file):
            raise KeyboardInterrupt

    monkeypatch.setattr(pl.DataFrame, "write_parquet", interrupted)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        ingest([log], out=tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_inspect_refuses_alike(tmp_path):
    with pytest.raises(DataError, match="--user COLUMN"):
        inspect([put(tmp_path, "log.csv", "foo,bar,ts\na,b,1\nc,d,2\n")])
    with pytest.raises(DataError, match="is empty"):
        inspect([put(tmp_path, "none.csv", "")])
