"""Large delimited text in stretches: the same folder, byte for byte, as the way through memory, whatever is wrong with the lines."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from vitrail.data import readers_text, stream, stream_text
from vitrail.data.dataset import TABLES
from vitrail.data.ingest import IngestReport, IngestSettings, ingest
from vitrail.data.readers_folder import Source
from vitrail.errors import DataError

N = 300
TIME = 1_500_000_000


def lines(*, separator: str = ",", end: str = "\n", header: str = "user,item,rating,timestamp,note", seed: int = 0) -> list[bytes]:
    """Events with a note, and here and there what may be wrong with a line."""
    rows = [header.replace(",", separator)] if header else []
    for k in range(N):
        rows.append(separator.join([f"u{(k * 7 + seed) % 40}", str(k % 53), f"{k % 5}.5", str(TIME + 977 * k), f"n{k % 3}"]))
    return [(row + end).encode() for row in rows]


def dirty(*, separator: str = ",", end: str = "\n", header: str = "user,item,rating,timestamp,note") -> bytes:
    rows = lines(separator=separator, end=end, header=header)
    stop, cut = end.encode(), separator.encode()
    for k in range(60, len(rows), 31):
        row = rows[k].removesuffix(stop).split(cut)
        wrong = [
            [b" " + row[0] + b" ", *row[1:]], [b"", *row[1:]], row[:3], [*row, b"x"], [*row[:4], b"\xff\xfe"], [*row[:2], b"many", *row[3:]],
            [*row[:3], b"", row[4]], [*row[:3], b"soon", row[4]], [*row[:3], row[3] + b"000", row[4]], [*row[:3], b"-4", row[4]], [b"  "],
        ][k // 31 % 11]  # fmt: skip
        rows[k] = cut.join(wrong) + stop
    return b"".join([*rows, rows[30], stop, rows[31], rows[99]])


def quoted(*, mark: bytes = b"", everywhere: bool = False) -> bytes:
    """Quotes over lines, doubled, within a field, and never closed; `mark` stands in some of these."""
    rows = lines()
    for k in range(20, len(rows), 17):
        row = rows[k].removesuffix(b"\n").split(b",")
        note = [
            b'"one' + mark + b'\ntwo, ""three""\n\nfour"', b'5" disk', b'"a, b"', b'"never' + mark, b'"' + row[4] + b'"', b"a" + mark + b"\rb",
        ][k // 17 % 6]  # fmt: skip
        rows[k] = b",".join([*row[:4], note]) + b"\n"
    if everywhere:
        rows = [rows[0], *(b",".join(b'"' + cell + b'"' for cell in row.rstrip(b"\n").split(b",")) + b"\n" for row in lines()[1:])]
        rows[50] = rows[50].replace(b'"n', b'"over\nn')
    return b"".join(rows)


def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *files: bytes, suffix: str = "csv", **told: object) -> tuple[IngestReport, IngestReport]:
    """The data set by each way."""
    paths = []
    for number, content in enumerate(files):
        paths.append(tmp_path / f"events{number}.{suffix}")
        paths[-1].write_bytes(content)
    monkeypatch.setattr(stream_text, "STRETCH", 2500)
    monkeypatch.setattr(stream, "CHUNK", 150)
    monkeypatch.setattr(readers_text, "FAR", 12)
    made = []
    for least in (1, 10**9):
        monkeypatch.setattr(stream, "FROM", least)
        made.append(ingest(paths, out=tmp_path / f"out{least}" / "d", settings=IngestSettings.of(told)))
    assert not [path.name for path in tmp_path.rglob(".*")]
    return made[0], made[1]


def same(one: IngestReport, other: IngestReport) -> None:
    assert not [note for note in one.guess.notes if "as a whole" in note]
    for name in (name for name in TABLES if name != "impressions"):
        mine, theirs = (report.dataset.path / f"{name}.parquet" for report in (one, other))
        if name == "rejects":
            assert pl.read_parquet(mine).rows() == pl.read_parquet(theirs).rows()
        assert mine.read_bytes() == theirs.read_bytes(), name
    assert (one.dataset.path / "dataset.yaml").read_text() == (other.dataset.path / "dataset.yaml").read_text()
    assert one.to_dict() | {"dataset": ""} == other.to_dict() | {"dataset": ""}
    assert one.dataset.fingerprint == other.dataset.fingerprint


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (dirty(), {}),
        (dirty(end="\r\n"), {"time_unit": "s"}),
        (b"\xef\xbb\xbf\n\n" + dirty(header=""), {"header": False, "format": "csv"}),
        (dirty(separator="::"), {"separator": "::", "keep_duplicates": True}),
        (dirty().rstrip(b"\n"), {"positive": "value >= 2"}),
        (quoted(), {}),
        (quoted(mark=b"\xff"), {}),
        (quoted(everywhere=True), {}),
    ],
)
def test_both_ways_write_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, told: dict) -> None:
    same(*both(tmp_path, monkeypatch, content, **told))


@pytest.mark.parametrize("quotes", [b'"a"', b'"a'])
def test_tab_separated_text_has_quotes_only_where_all_of_them_balance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quotes: bytes) -> None:
    same(*both(tmp_path, monkeypatch, dirty(separator="\t") + b"\t".join([b"u1", b"2", b"3.5", b"1500000000", quotes]), suffix="tsv"))


def test_atomic_headers_keep_their_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = "user_id:token,item_id:token,rating:float,timestamp:float,tags:token_seq"
    chunked, whole = both(tmp_path, monkeypatch, dirty(separator="\t", header=header).replace(b"\tn1", b"\tn1 n2"), suffix="inter")
    same(chunked, whole)
    assert chunked.dataset.info.columns["interactions"] == {"tags": "categories"} and chunked.guess.files[0].format == "atomic"


def test_several_files_and_parquet_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunked, whole = both(tmp_path, monkeypatch, dirty(), quoted())
    same(chunked, whole)
    assert chunked.repaired["exact duplicate rows"] > 200
    table = pl.DataFrame({"user": ["u1", "u2"], "item": [1, 2], "rating": [1.5, 2.5], "timestamp": [TIME, TIME + 1], "note": ["n1", "n2"]})
    table.write_parquet(tmp_path / "more.parquet")
    made = []
    for least in (1, 10**9):
        monkeypatch.setattr(stream, "FROM", least)
        made.append(ingest([tmp_path / "events0.csv", tmp_path / "more.parquet"], out=tmp_path / f"more{least}" / "d"))
    same(*made)


@pytest.mark.parametrize(
    ("content", "told", "why"),
    [
        (re.sub(rb"15\d{8}", b"2017-07-14", b"".join(lines())), {}, "its times"),
        (b"".join(lines()), {"encoding": "latin-1"}, "encoding is latin-1"),
        (b"\n".join(b'{"user": "u%d", "item": %d}' % (k % 9, k) for k in range(50)), {}, "is JSON"),
        (b"\n".join(b"u%d 1 2 3 4 %d" % (k, k) for k in range(50)), {"format": "lines"}, "histories"),
        (b"".join(lines(header="user,item,rating,timestamp,__line")), {}, "has a column __line"),
        (b"".join([*lines()[:50], b'u1,1,1.5,1500000000,"' + b"x" * 50_000 + b'\ny"\n', *lines()[50:]]), {}, "long in closing"),
        (b"".join(lines()), {"ordered": True}, "--ordered"),
    ],
)
def test_what_is_not_read_in_stretches_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, told: dict, why: str) -> None:
    chunked, whole = both(tmp_path, monkeypatch, content, suffix="txt", **told)
    notes = [note for note in chunked.guess.notes if "as a whole" in note]
    assert len(notes) == 1 and why in notes[0] and chunked.dataset.fingerprint == whole.dataset.fingerprint


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"".join(row.replace(b",", b"\xff,", 1) if k % 3 else row for k, row in enumerate(lines())), "most often for text that is not UTF-8"),
        (b"".join([*lines()[:250], *(b",1,1,1500000000,x\n" for _ in range(300))]), r"missing user id \(line 251: ',1,1,"),
        (b"user,item\n", "no rows|one column"),
        (b"".join([*lines()[:90], b'u1,x"1,1.5,1500000000,"b\n', *lines()[90:]]), "quotes that cannot be paired"),
        (b"".join([*lines()[:1], *(b"\xff" + row for row in lines()[1:])]), "text that is not UTF-8"),
    ],
)
def test_both_ways_refuse_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, sentence: str) -> None:
    monkeypatch.setattr(stream_text, "STRETCH", 2500)
    (tmp_path / "e.csv").write_bytes(content)
    found = []
    for least in (1, 10**9):
        monkeypatch.setattr(stream, "FROM", least)
        with pytest.raises(DataError, match=sentence) as caught:
            ingest([tmp_path / "e.csv"], out=tmp_path / "d")
        found.append(str(caught.value))
        assert [path.name for path in tmp_path.iterdir()] == ["e.csv"]
    assert found[0] == found[1]


def test_a_long_head_of_blank_lines_is_left_to_the_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_text, "HEAD", 100)
    (tmp_path / "e.csv").write_bytes(b"\n" * 200 + b"".join(lines()))
    with pytest.raises(stream.NotStreamed, match="very long"):
        stream_text.survey(Source(tmp_path / "e.csv"), IngestSettings())


def test_compressed_text_is_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    from vitrail.data.readers_folder import Sources

    monkeypatch.setattr(stream, "FROM", 1)
    (tmp_path / "e.csv.gz").write_bytes(gzip.compress(dirty()))
    (tmp_path / "e.csv").write_bytes(dirty())
    packed, plain = (Sources([Source(tmp_path / name)]) for name in ("e.csv.gz", "e.csv"))
    assert not stream.worth(packed, IngestSettings()) and stream.worth(plain, IngestSettings())
    assert not stream.worth(plain, IngestSettings(format="parquet")) and 200 < stream.rows_about(plain) < 400
    assert stream_text.disk(plain) == len(dirty()) and stream_text.whole_memory(packed) > stream_text.PACKED * stream_text.disk(packed)
