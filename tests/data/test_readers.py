"""Files as raw rows: formats are found, every row keeps its line, every line that cannot be read is named."""

import gzip
import json

import numpy as np
import polars as pl
import pytest

from vitrail.data.readers import read_table
from vitrail.data.readers_json import read_json_lines
from vitrail.data.readers_text import TextFile, read_delimited
from vitrail.errors import DataError, SettingError

ROWS = [("u1", "i1", "3", "1400000000"), ("u2", "i 2", "4", "1400000001"), ("u3", "é3", "5", "1400000002")]
NAMES = ["user", "item", "rating", "time"]


def put(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(separator, rows=ROWS, header=NAMES, end="\n"):
    return end.join(separator.join(row) for row in ([header] if header else []) + list(rows)) + end


@pytest.mark.parametrize("separator", [",", "\t", ";", "|", "::", "\x01"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("header", [NAMES, None])
def test_separators_ends_and_headers_are_found(tmp_path, separator, end, header):
    raw = read_table(put(tmp_path, "log.txt", table(separator, header=header, end=end)))
    assert raw.separator == separator and raw.header == bool(header)
    assert raw.frame.rows() == ROWS and raw.lines.tolist() == ([2, 3, 4] if header else [1, 2, 3])
    assert not raw.reasons and raw.text(int(raw.lines[1])) == separator.join(ROWS[1])


@pytest.mark.parametrize("content", [table(","), "\ufeff" + table(","), table(",").rstrip("\n"), "\n" + table(","), table(",").replace("\n", "\r")])
def test_marks_blank_lines_and_ends_do_not_matter(tmp_path, content):
    assert read_table(put(tmp_path, "log.csv", content)).frame.rows() == ROWS


def test_compressed_files_are_read(tmp_path):
    assert read_table(put(tmp_path, "log.csv.gz", gzip.compress(table(",").encode()))).frame.rows() == ROWS


def test_quotes_line_breaks_and_lines_as_an_editor_counts_them(tmp_path):
    text = 'user,item,note\nu1,i1,"a, b"\nu2,i2,"two\nlines, ""said"" she"\n\nu3,i3,5" screen\nu4,i4\nu5,i5,ok\n'
    raw = read_table(put(tmp_path, "log.csv", text))
    assert raw.frame["note"].to_list() == ["a, b", 'two\nlines, "said" she', '5" screen', "ok"]
    assert raw.lines.tolist() == [2, 3, 6, 8]
    assert {reason: lines.tolist() for reason, lines in raw.reasons.items()} == {"a number of fields other than 3": [7]}
    assert raw.text(7) == "u4,i4"


def test_a_quote_never_closed_costs_one_line(tmp_path):
    text = 'user,item,note\nu1,i1,fine\nu2,i2,"oh no\n' + "".join(f"u{i},i{i},fine\n" for i in range(3, 50))
    raw = read_table(put(tmp_path, "log.csv", text))
    assert raw.frame.height == 48
    assert {reason: lines.tolist() for reason, lines in raw.reasons.items()} == {"a quote that is never closed": [3]}


def test_quotes_in_tabbed_text_are_text(tmp_path):
    raw = read_table(put(tmp_path, "items.tsv", 'item\ttitle\n1\t"Weird" Al\n2\tplain\n'))
    assert raw.frame["title"].to_list() == ['"Weird" Al', "plain"]


def test_rows_that_are_not_utf8_are_named_and_alone_lost(tmp_path):
    good = b"".join(b"u%d,i%d\n" % (i, i) for i in range(1000))
    raw = read_table(put(tmp_path, "log.csv", b"user,item\n" + good + b"caf\xe9,i1\n" + good))
    assert raw.frame.height == 2000
    assert {reason: lines.tolist() for reason, lines in raw.reasons.items()} == {"text that is not UTF-8": [1002]}
    assert read_table(tmp_path / "log.csv", encoding="latin-1").frame["user"][1000] == "café"


def test_encodings(tmp_path):
    path = put(tmp_path, "log.csv", table(",").encode("utf-16"))
    with pytest.raises(DataError, match="--encoding utf-16"):
        read_table(path)
    assert read_table(path, encoding="utf-16").frame.rows() == ROWS
    with pytest.raises(SettingError, match='no encoding "utf-99"'):
        read_table(path, encoding="utf-99")


def test_atomic_files(tmp_path):
    text = "user_id:token\titem_id:token\ttags:token_seq\trating:float\n01\t2\ta b\t3.5\n"
    raw = read_table(put(tmp_path, "x.inter", text))
    assert raw.format == "atomic" and raw.types["tags"] == "token_seq" and raw.frame.row(0) == ("01", "2", "a b", "3.5")
    with pytest.raises(DataError, match="name:type"):
        read_table(put(tmp_path, "y.csv", "user,item\n1,2\n"), format="atomic")


@pytest.mark.parametrize("text", ["1 1 2 3\n2 6 7\n3 4\n", "1\t1\t2\t3\n2\t6\t7\n3\t4\n", "1  1 2   3\n2 6 7\n\n3 4\n"])
def test_per_line_histories(tmp_path, text):
    raw = read_table(put(tmp_path, "train.txt", text))
    assert raw.format == "lines"
    assert raw.frame.rows() == [("1", "1"), ("1", "2"), ("1", "3"), ("2", "6"), ("2", "7"), ("3", "4")]
    assert [raw.text(line).split()[0] for line in raw.lines.tolist()] == ["1", "1", "1", "2", "2", "3"]


def test_a_user_without_items_is_named(tmp_path):
    raw = read_table(put(tmp_path, "train.txt", "1 1 2 3\n2\n3 4 5\n"), format="lines")
    assert {reason: lines.tolist() for reason, lines in raw.reasons.items()} == {"a user without items": [2]}


def test_spaced_ratings_are_a_table(tmp_path):
    text = "".join(f"{i % 30} {i} {i % 5 + 1} {1400000000 + i}\n" for i in range(100))
    raw = read_table(put(tmp_path, "u.data", text))
    assert raw.format == "csv" and raw.frame.width == 4


@pytest.mark.parametrize(
    ("text", "separator", "names"),
    [
        (",user_id,item_id\n0,1,5\n1,2,6\n", ",", ["column1", "user_id", "item_id"]),  # a pandas index
        ('"user","item"\n"1","u1","i1"\n"2","u2","i2"\n', ",", ["row", "user", "item"]),  # row names of R
        ("u1,i1,click\nu2,i1,view\nu3,i1,view\n", ",", ["column1", "column2", "column3"]),  # "click" is a usual name, and here a value
        ("196;242;3,5\n186;302;4,5\n", ";", ["column1", "column2", "column3"]),  # decimal commas
        ("A39H,0205616461,5.0,1369699200\nA3JM,0558925278,3.0,1355443200\n", ",", ["column1", "column2", "column3", "column4"]),
        ("alias,thing\nu1,i7\nu2,i8\n", ",", ["alias", "thing"]),  # unlike what stands below
    ],
)
def test_headers_of_many_houses(tmp_path, text, separator, names):
    raw = read_table(put(tmp_path, "log.csv", text))
    assert raw.separator == separator and raw.frame.columns == names
    assert raw.frame.height == len(text.splitlines()) - raw.header


def test_text_that_is_not_utf8_inside_a_record_of_several_lines(tmp_path):
    raw = read_table(put(tmp_path, "log.csv", b'user,item,note\nu1,i1,"a\nb\xe9\nc"\nu2,i2,x\n'))
    assert raw.frame["user"].to_list() == ["u2"] and raw.lines.tolist() == [5]
    assert {reason: lines.tolist() for reason, lines in raw.reasons.items()} == {"text that is not UTF-8": [2]}


def test_json_lines_keep_every_digit(tmp_path):
    lines = [{"user": 9007199254740993, "item": "007", "tags": [1, "b"]}, {"user": "x", "item": 18446744073709551615, "at": {"lat": 1.5}}]
    path = put(tmp_path, "log.jsonl", json.dumps(lines[0]) + "\n\n{broken\n" + json.dumps(lines[1]) + "\n[1]\n")
    raw = read_table(path)
    assert raw.frame["user"].to_list() == ["9007199254740993", "x"] and raw.frame["item"].to_list() == ["007", "18446744073709551615"]
    assert raw.frame["tags"].to_list() == [["1", "b"], None] and raw.frame["at.lat"].to_list() == [None, "1.5"]
    assert raw.lines.tolist() == [1, 4]
    assert {reason: where.tolist() for reason, where in raw.reasons.items()} == {"a line that is not a JSON object": [3, 5]}
    assert read_json_lines(TextFile(path))[1].tolist() == [0, 3]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('{"1": "a b", "2": "c"}', [("1", "a b"), ("2", "c")]),
        ('{"1": {"t": "a", "n": 2},\n "2": {"t": "b"}}', [("1", "a", "2"), ("2", "b", None)]),
        ('[{"id": 1, "t": "a"}, {"id": 2, "t": "b"}]', [("1", "a"), ("2", "b")]),
        ('{"1": [3, 4], "2": [5]}', [("1", ["3", "4"]), ("2", ["5"])]),
    ],
)
def test_json_documents(tmp_path, content, rows):
    assert read_table(put(tmp_path, "items.json", content)).frame.rows() == rows


def test_parquet_keeps_ids_and_times(tmp_path):
    times = pl.Series([0, 1, 2]).cast(pl.Datetime("ms"))
    frame = pl.DataFrame({"user": [1.0, None, 12345678901.0], "item": [2**63 - 1, 5, 6], "at": times, "tags": [["a"], [], None]})
    frame.write_parquet(tmp_path / "log.parquet")
    raw = read_table(tmp_path / "log.parquet")
    assert raw.frame["user"].to_list() == ["1", None, "12345678901"] and raw.frame["item"][0] == "9223372036854775807"
    assert raw.frame["at"].dtype == pl.Datetime("ms") and raw.frame["tags"].dtype == pl.List(pl.String)
    assert json.loads(raw.text(2))["item"] == "5"


def test_a_head_reads_whole_lines_only(tmp_path):
    path = put(tmp_path, "log.csv", "user,item\n" + "".join(f"u{i},i{i}\n" for i in range(1000)))
    raw = read_table(path, head=100)
    assert 0 < raw.frame.height < 20 and not raw.reasons


@pytest.mark.parametrize("seed", range(5))
def test_random_bad_lines_are_found_where_they_are(seed):
    """The fast path against a plain loop over lines."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(300):
        lines.append({0: f"u{i}", 1: f"u{i},i,x,y", 2: "", 3: f'u{i},"a""b,c",z', 4: f"u{i},i{i}\xff,z"}.get(int(rng.integers(12)), f"u{i},i{i},z"))
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_bytes("\n".join(lines).encode("latin-1"))
        text = TextFile(path)
        frame, where, reasons = read_delimited(text, ["a", "b", "c"], ",", 0, quoted=True)
        latin = {i for i, line in enumerate(lines) if "\xff" in line}
        good = [i for i, line in enumerate(lines) if i not in latin and (line.count(",") == 2 or '"' in line)]
        assert where.tolist() == good and frame["a"].to_list() == [f"u{i}" for i in good]
        assert set(reasons.get("text that is not UTF-8", np.zeros(0)).tolist()) == latin
        wrong = [i for i, line in enumerate(lines) if line and i not in latin and i not in good]
        assert reasons.get("a number of fields other than 3", np.zeros(0)).tolist() == wrong
