"""Public data sets by name: downloads that are cut, wrong, too large or refused, over small servers of our own; no test leaves this machine."""

import gzip
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections import namedtuple
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request

import polars as pl
import pytest
from typer.testing import CliRunner

from vitrail.cli import app
from vitrail.data.dataset import Dataset
from vitrail.data.sources import SourceRecord, find, get, records
from vitrail.data.sources import fetch as fetched
from vitrail.data.sources.fetch import _alone, _Redirect, fetch, pin
from vitrail.data.sources.record import CATEGORY, Member, SourceFile, safe
from vitrail.errors import DataError, ResourceError, SettingError

BODY = "user,item,timestamp\n" + "".join(f"u{i % 40},i{i % 90},{1_500_000_000 + i}\n" for i in range(4000))
WHOLE = BODY.encode()
SHA = hashlib.sha256(WHOLE).hexdigest()
QUICK = {"rounds": 1, "pause": 0.0, "timeout": 5.0}


class Mirror:
    """A server of one file on loopback that can misbehave, and remembers what it was asked."""

    def __init__(self, body=WHOLE, *, ranges=True, etag='"one"', cut=None, status=200, redirect=None, length=True):
        self.body, self.ranges, self.etag, self.cut, self.status, self.redirect, self.length = body, ranges, etag, cut, status, redirect, length
        self.asked = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/file.csv"

    def answer(self, handler):
        self.asked.append(dict(handler.headers))
        if self.redirect:
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.end_headers()
            return
        if self.status != 200:
            handler.send_response(self.status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start, wanted = 0, handler.headers["Range"]
        if wanted and self.ranges and handler.headers["If-Range"] in (None, self.etag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        if self.length:
            handler.send_header("Content-Length", str(len(self.body) - start))
        handler.end_headers()
        stop, self.cut = self.cut, None
        handler.wfile.write(self.body[start:stop])
        handler.wfile.flush()
        handler.close_connection = True


@pytest.fixture
def mirror():
    made = []

    def make(*args, **kwargs):
        made.append(Mirror(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def source(*mirrors, **changes):
    urls = tuple(m if isinstance(m, str) else m.url for m in mirrors)
    return SourceFile(**({"file": "file.csv", "urls": urls, "bytes": len(WHOLE), "members": (Member(),)} | changes))


def record(*files, **ingest):
    return SourceRecord(name="tiny", title="Tiny", files=files, licence="CC0", citation="Nobody", homepage="http://localhost/", ingest=ingest)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- downloads


def test_a_download_arrives_whole_and_is_not_made_twice(mirror, tmp_path):
    one = mirror()
    path = fetch(source(one, sha256=SHA), tmp_path, **QUICK)
    assert path.read_bytes() == WHOLE and left(tmp_path) == ["file.csv"]
    fetch(source(one, sha256=SHA), tmp_path, **QUICK)
    assert len(one.asked) == 1


@pytest.mark.parametrize("known", [{"sha256": SHA}, {}])
def test_a_cut_download_is_continued_by_the_next_call(mirror, tmp_path, known):
    one = mirror(cut=30_000)
    with pytest.raises(DataError, match="cut after 30,000 of"):
        fetch(source(one, **known), tmp_path, **QUICK)
    assert left(tmp_path) == ["file.csv.part", "file.csv.part.json"]
    assert fetch(source(one, **known), tmp_path, **QUICK).read_bytes() == WHOLE
    assert (one.asked[1]["Range"], one.asked[1]["If-Range"]) == ("bytes=30000-", '"one"')
    assert not [name for name in left(tmp_path) if "part" in name]


def test_within_one_call_a_cut_download_is_continued_too(mirror, tmp_path):
    one = mirror(cut=30_000)
    assert fetch(source(one, sha256=SHA), tmp_path, rounds=2, pause=0.0).read_bytes() == WHOLE
    assert one.asked[1]["Range"] == "bytes=30000-"


def test_a_server_without_ranges_starts_over(mirror, tmp_path):
    one = mirror(cut=30_000, ranges=False)
    assert fetch(source(one, sha256=SHA), tmp_path, rounds=2, pause=0.0).read_bytes() == WHOLE
    assert "Range" in one.asked[1]


def test_a_file_that_changed_meanwhile_starts_over(mirror, tmp_path):
    one = mirror(body=b"x" * 50_000, cut=30_000)
    with pytest.raises(DataError):
        fetch(source(one), tmp_path, **QUICK)
    one.body, one.etag = WHOLE, '"two"'
    assert fetch(source(one), tmp_path, **QUICK).read_bytes() == WHOLE


def test_without_checksum_and_validator_nothing_is_continued(mirror, tmp_path):
    one = mirror(cut=30_000, etag=None)
    assert fetch(source(one), tmp_path, rounds=2, pause=0.0).read_bytes() == WHOLE
    assert "Range" not in one.asked[1]


def test_another_mirror_continues_where_a_checksum_will_tell(mirror, tmp_path):
    first, second = mirror(cut=30_000), mirror(etag='"other"')
    assert fetch(source(first, second, sha256=SHA), tmp_path, **QUICK).read_bytes() == WHOLE
    assert second.asked[0]["Range"] == "bytes=30000-"


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_wrong_checksum_is_a_sentence_and_the_file_is_gone(mirror, tmp_path, kind):
    good = hashlib.new(kind, WHOLE).hexdigest()
    bad = mirror(body=WHOLE[:-1] + b"!")
    with pytest.raises(DataError, match=f"should be {good}") as told:
        fetch(source(bad, **{kind: good}), tmp_path, **QUICK)
    assert left(tmp_path) == [] and "\n" not in str(told.value)
    assert fetch(source(bad, mirror(), **{kind: good}), tmp_path, **QUICK).read_bytes() == WHOLE


def test_where_none_is_published_the_first_checksum_counts(mirror, tmp_path):
    one = mirror()
    path = fetch(source(one), tmp_path, **QUICK)
    assert pin(path).read_text().split() == [SHA, "file.csv"]
    path.unlink()
    one.body = WHOLE + b"u,i,1\n"
    with pytest.raises(DataError, match=f"should be {SHA}"):
        fetch(source(one), tmp_path, **QUICK)


def test_a_wrong_file_in_the_cache_is_named_and_removed(tmp_path):
    (tmp_path / "file.csv").write_text("something else")
    with pytest.raises(DataError, match="was removed"):
        fetch(source("http://127.0.0.1:9/file.csv", sha256=SHA), tmp_path, **QUICK)
    assert left(tmp_path) == []


def test_a_missing_mirror_leaves_the_next(mirror, tmp_path):
    absent, good = mirror(status=404), mirror()
    assert fetch(source("http://127.0.0.1:9/file.csv", absent, good, sha256=SHA), tmp_path, **QUICK).read_bytes() == WHOLE
    assert len(absent.asked) == len(good.asked) == 1


def test_a_refusal_is_final_and_a_passing_fault_is_not(mirror, tmp_path):
    gone, busy = mirror(status=404), mirror(status=503)
    with pytest.raises(DataError, match=r"HTTP 404.*HTTP 503"):
        fetch(source(gone, busy), tmp_path, rounds=3, pause=0.0)
    assert (len(gone.asked), len(busy.asked)) == (1, 3)


def test_all_down_is_one_sentence_that_says_how_to_place_the_file(mirror, tmp_path):
    with pytest.raises(DataError) as told:
        fetch(source("http://127.0.0.1:9/file.csv", sha256=SHA), tmp_path / "cache", **QUICK)
    for piece in ("http://127.0.0.1:9/file.csv", str(tmp_path / "cache" / "file.csv"), "--from", f"sha256 {SHA}"):
        assert piece in str(told.value)


@pytest.mark.parametrize("where", ["file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_a_redirection_out_of_the_web_is_refused(mirror, tmp_path, where):
    with pytest.raises(DataError, match="which is refused"):
        fetch(source(mirror(redirect=where)), tmp_path, **QUICK)
    assert left(tmp_path) == []


def test_a_redirection_within_the_web_is_followed(mirror, tmp_path):
    good = mirror()
    assert fetch(source(mirror(redirect=good.url), sha256=SHA), tmp_path, **QUICK).read_bytes() == WHOLE


def test_a_redirection_from_https_to_http_is_refused():
    with pytest.raises(Exception, match="refused"):
        _Redirect().redirect_request(Request("https://a.example/x"), None, 302, "", HTTPMessage(), "http://a.example/x")


def test_two_downloads_of_one_file_do_not_mix(mirror, tmp_path):
    one = mirror()
    with _alone(tmp_path / "file.csv"), pytest.raises(DataError, match="another process"):
        fetch(source(one, sha256=SHA), tmp_path, **QUICK)
    assert fetch(source(one, sha256=SHA), tmp_path, **QUICK).read_bytes() == WHOLE and left(tmp_path) == ["file.csv"]


def test_an_address_outside_the_web_is_no_record():
    with pytest.raises(ValueError, match="not an address of the web"):
        source("file:///etc/passwd")


def test_a_full_disk_is_told_before_the_download(mirror, tmp_path, monkeypatch):
    one = mirror()
    monkeypatch.setattr(fetched.__globals__["shutil"], "disk_usage", lambda path: namedtuple("Usage", "total used free")(10, 9, 1))
    with pytest.raises(ResourceError, match="--cache FOLDER"):
        fetch(source(one, sha256=SHA), tmp_path, **QUICK)
    assert left(tmp_path) == []


@pytest.mark.parametrize("length", [True, False])
def test_a_file_far_too_large_is_stopped(mirror, tmp_path, length):
    with pytest.raises(DataError, match=r"are expected|twice what was expected"):
        fetch(source(mirror(length=length), bytes=10_000), tmp_path, **QUICK)
    assert left(tmp_path) == []


def test_a_web_page_is_no_archive(mirror, tmp_path):
    page = mirror(body=b"<!doctype html><p>moved</p>")
    with pytest.raises(DataError, match="no zip archive"):
        fetch(source(page, archive="zip", members=(Member(path="a.csv"),)), tmp_path, **QUICK)
    with pytest.raises(DataError, match="web page"):
        fetch(source(page), tmp_path, **QUICK)
    assert left(tmp_path) == []


# ---- from a download to a data set


def test_get_writes_a_data_set_that_says_where_it_came_from(mirror, tmp_path):
    one = mirror()
    report = get(record(source(one, sha256=SHA)), out=tmp_path / "d", cache=tmp_path / "cache")
    info = Dataset(tmp_path / "d").info
    assert (info.name, info.licence, info.source, info.counts["events"]) == ("tiny", "CC0", [one.url], report.ingest.kept)
    assert info.origin["record"]["sha256"] == {"file.csv": SHA} and report.ingest.dataset.path == tmp_path / "d"
    assert left(tmp_path) == ["cache", "d"]
    Dataset(tmp_path / "d").verify()
    with pytest.raises(DataError, match="exists already"):
        get(record(source(one, sha256=SHA)), out=tmp_path / "d", cache=tmp_path / "cache")


def test_what_fails_leaves_no_folder(tmp_path):
    with pytest.raises(DataError):
        get(record(source("http://127.0.0.1:9/x.csv", file="x.csv", sha256=SHA)), out=tmp_path / "new" / "d", source=tmp_path / "absent")
    (tmp_path / "file.csv").write_bytes(b"wrong")
    with pytest.raises(DataError, match="is not the file it should be"):
        get(record(source("http://127.0.0.1:9/x.csv", sha256=SHA)), out=tmp_path / "new" / "d", source=tmp_path / "file.csv")
    assert left(tmp_path) == ["file.csv"]


def zipped(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "/"), text)
    return data.getvalue()


def test_only_named_members_are_opened(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("../evil.csv", "bad")
        archive.writestr("/abs.csv", "bad")
        archive.writestr("a/file.csv", BODY)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file.zip").write_bytes(data.getvalue())
    one = source("http://127.0.0.1:9/file.zip", file="file.zip", archive="zip", members=(Member(path="a/file.csv"),))
    get(record(one), out=tmp_path / "out" / "d", source=tmp_path / "home")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.csv")) == []
    assert left(tmp_path / "out") == ["d"]


@pytest.mark.parametrize("path", ["../evil.csv", "/etc/passwd", "a/../../b", "a\\..\\b", "C:x"])
def test_a_member_that_leads_out_is_no_record(path):
    assert not safe(path)
    with pytest.raises(ValueError, match="leads out"):
        Member(path=path)


def test_a_link_in_a_tar_is_not_followed(tmp_path):
    with tarfile.open(tmp_path / "file.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("a.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    one = source("http://127.0.0.1:9/x", file="file.tar.gz", archive="tar.gz", members=(Member(path="a.csv"),))
    with pytest.raises(DataError, match="no plain file"):
        get(record(one), out=tmp_path / "d", source=tmp_path / "file.tar.gz")
    assert left(tmp_path) == ["file.tar.gz"]


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("zip", b"PK\x03\x04 cut", "damaged"),
        ("zip", zipped(other="x"), 'no member "a.csv"'),
        ("gz", gzip.compress(WHOLE)[:500], "damaged"),
        ("gz", gzip.compress(b"0" * (80 << 20), 1), "times its size"),
        ("tar.gz", b"\x1f\x8bnot", "damaged"),
    ],
)
def test_a_bad_archive_is_a_sentence(tmp_path, kind, content, said):
    (tmp_path / "f").write_bytes(content)
    one = source("http://127.0.0.1:9/f", file="f", archive=kind, members=(Member(path="" if kind == "gz" else "a.csv"),))
    with pytest.raises(DataError, match=said):
        get(record(one), out=tmp_path / "d", source=tmp_path / "f")
    assert left(tmp_path) == ["f"]


# ---- the records that are shipped, each on a small file of its form

TIMES = [(f"u{i % 7}", 1 + i % 11, 1 + i % 5, 881_250_949 + 86_400 * i) for i in range(60)]
FILMS = ["Toy Story (1995)", "Amélie (2001)", 'The "Best" of Us (1999)', *(f"Film {i} (19{60 + i})" for i in range(8))]


def movielens_100k():
    data = "".join(f"{u[1:]}\t{i}\t{r}\t{t}\n" for u, i, r, t in TIMES)
    flags = "|".join(str(int(k in (3, 5))) for k in range(19))
    film = "".join(f"{i}|{title}|01-Jan-1995||http://us.imdb.com/{i}|{flags}\n" for i, title in enumerate(FILMS, 1))
    people = "".join(f"{u}|{20 + u}|M|writer|{55000 + u}\n" for u in range(7))
    return {"ml-100k.zip": zipped(**{"ml-100k__u.data": data, "ml-100k__u.item": film.encode("latin-1"), "ml-100k__u.user": people})}


def movielens_1m():
    data = "".join(f"{u[1:]}::{i}::{r}::{t}\n" for u, i, r, t in TIMES)
    film = "".join(f"{i}::{title}::Animation|Children's|Comedy\n" for i, title in enumerate(FILMS, 1))
    people = "".join(f"{u}::F::25::{u}::4806{u}\n" for u in range(7))
    return {"ml-1m.zip": zipped(**{"ml-1m__ratings.dat": data, "ml-1m__movies.dat": film.encode("latin-1"), "ml-1m__users.dat": people})}


def movielens_csv(name):
    data = "userId,movieId,rating,timestamp\n" + "".join(f"{u[1:]},{i},{r}.5,{t}\n" for u, i, r, t in TIMES)
    quoted = [title.replace('"', '""') for title in FILMS]
    film = "movieId,title,genres\n" + "".join(f'{i},"{title}",Adventure|Comedy\n' for i, title in enumerate(quoted, 1))
    return {f"{name}.zip": zipped(**{f"{name}__ratings.csv": data, f"{name}__movies.csv": film})}


def amazon_reviews():
    rows = [
        {"reviewerID": f"A{u}", "asin": f"B00{i}", "reviewerName": "x", "helpful": [0, 1], "reviewText": "fine\n", "overall": float(r), "summary": "s",
         "unixReviewTime": t, "reviewTime": "09 1, 2013"}
        for u, i, r, t in TIMES
    ]  # fmt: skip
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


def amazon_2014():
    rows = [
        {"asin": f"B00{i}", "title": title, "price": 5.5 + i, "categories": [["Beauty", "Hair"], ["Beauty", f"Kind {i % 2}"]], "related": {"also": ["x"]},
         "description": "It's a thing."}
        for i, title in enumerate(FILMS, 1)
    ]  # fmt: skip
    rows.append({"asin": "UNSEEN", "title": "Nobody bought it"})
    return {"reviews_Beauty_5.json.gz": amazon_reviews(), "meta_Beauty.json.gz": gzip.compress("".join(f"{row!r}\n" for row in rows).encode())}


def amazon_2018():
    rows = [
        {"asin": f"B00{i}", "title": title, "price": f"$1,0{10 + i}.50", "category": ["Beauty", f"Kind {i % 2}"], "description": ["One.", "Two."]}
        for i, title in enumerate(FILMS, 1)
    ]
    rows.append({"asin": "UNSEEN", "title": "Nobody bought it"})
    meta = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    return {"All_Beauty_5.json.gz": amazon_reviews(), "meta_All_Beauty.json.gz": meta}


def amazon_2023():
    text = "user_id,parent_asin,rating,timestamp\n" + "".join(f"A{u},B00{i},{r}.0,{t}123\n" for u, i, r, t in TIMES)
    return {"All_Beauty.csv.gz": gzip.compress(text.encode())}


def amazon_2023_items():
    rows = [
        {"main_category": "All Beauty", "title": title, "features": ["Soft", "Red"], "description": [], "price": None if i == 1 else 9.99 + i, "store": "S",
         "categories": ["Beauty"], "details": {"Brand": "x"}, "parent_asin": f"B00{i}"}
        for i, title in enumerate(FILMS, 1)
    ]  # fmt: skip
    rows.append({"parent_asin": "UNSEEN", "title": "Nobody bought it"})
    return amazon_2023() | {"meta_All_Beauty.jsonl.gz": gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())}


def lightgcn(name):
    train = "".join(f"{u} " + " ".join(str((u + k) % 11) for k in range(4)) + "\n" for u in range(15))
    test = "".join(f"{u} {(u + 5) % 11}\n" for u in range(15))
    return {f"{name}-train.txt": train.encode(), f"{name}-test.txt": test.encode()}


FORMS = {
    "ml-100k": movielens_100k,
    "ml-1m": movielens_1m,
    **{name: (lambda name=name: movielens_csv(name)) for name in ("ml-20m", "ml-25m", "ml-32m")},
    "amazon-2014:Beauty": amazon_2014,
    "amazon-2018:All_Beauty": amazon_2018,
    "amazon-2023:All_Beauty": amazon_2023,
    "amazon-2023-items:All_Beauty": amazon_2023_items,
    **{name: (lambda name=name: lightgcn(name)) for name in ("gowalla", "yelp2018", "amazon-book")},
}


def small(name, folder):
    """The shipped record without the checksums of the real files, and its files in `folder`."""
    shipped = find(name)
    for file, content in FORMS[name]().items():
        (folder / file).write_bytes(content)
    return shipped.model_copy(update={"files": tuple(file.model_copy(update={"sha256": None, "md5": None, "bytes": None}) for file in shipped.files)})


@pytest.fixture
def got(tmp_path):
    def run(name):
        (tmp_path / "files").mkdir()
        return get(small(name, tmp_path / "files"), out=tmp_path / "d", source=tmp_path / "files").ingest

    return run


def test_every_record_has_a_form_that_is_tested():
    assert {name.partition(":")[0] for name in FORMS} == set(records())


def test_every_category_makes_a_record():
    for one in records().values():
        assert one.licence and one.citation and one.homepage.startswith("https://")
        for category in one.categories:
            made = find(f"{one.name}:{category}")
            assert CATEGORY not in made.model_dump_json() and all(category in url for file in made.files for url in (file.file, *file.urls))


def test_movielens_has_published_checksums():
    assert all(file.md5 and file.bytes for name in ("ml-100k", "ml-1m", "ml-20m", "ml-25m", "ml-32m") for file in find(name).files)


def test_ml_100k(got):
    report = got("ml-100k")
    data = report.dataset
    assert (report.kept, sum(report.rejected.values()), data.info.order) == (60, 0, "timestamp")
    assert data.interactions["timestamp"].min().year == 1997 and data.interactions["value"].max() == 5
    items = data.items.sort("item")
    assert set(FILMS) == set(items["title"].to_list()) and data.info.columns["items"]["title"] == "text"
    assert items.filter(pl.col("title") == "Amélie (2001)").height == 1
    assert items["genres"][0].to_list() == ["Animation", "Comedy"] and "Comedy" not in items.columns
    assert data.users["occupation"].unique().to_list() == ["writer"] and data.users.height == 7


def test_ml_1m(got):
    report = got("ml-1m")
    data = report.dataset
    assert (report.kept, sum(report.rejected.values())) == (60, 0)
    assert set(FILMS) == set(data.items["title"].to_list())
    assert data.items["genres"][0].to_list() == ["Animation", "Children's", "Comedy"]
    assert (data.info.columns["users"]["age"], data.users.height) == ("category", 7)


@pytest.mark.parametrize("name", ["ml-20m", "ml-25m", "ml-32m"])
def test_movielens_with_headers(got, name):
    report = got(name)
    assert (report.kept, sum(report.rejected.values()), report.dataset.interactions["value"].max()) == (60, 0, 5.5)
    assert set(FILMS) == set(report.dataset.items["title"].to_list())
    assert report.dataset.items["genres"][0].to_list() == ["Adventure", "Comedy"]


@pytest.mark.parametrize("name", ["amazon-2014:Beauty", "amazon-2018:All_Beauty", "amazon-2023-items:All_Beauty"])
def test_amazon_with_items(got, name):
    report = got(name)
    items = report.dataset.items
    assert (report.kept, sum(report.rejected.values()), items.height) == (60, 0, 11)
    assert set(FILMS) == set(items["title"].to_list()) and "UNSEEN" not in items["item"].to_list()
    assert report.dataset.info.columns["items"]["price"] == "number" and report.dataset.interactions["timestamp"].dt.year().max() == 1998
    assert set(report.dataset.interactions.columns) == {"user", "item", "timestamp", "value"}
    row = items.filter(pl.col("item") == "B002").row(0, named=True)
    if name.startswith("amazon-2014"):
        assert (row["categories"], row["price"], row["description"]) == (["Beauty", "Hair", "Kind 0"], 7.5, "It's a thing.")
    elif name.startswith("amazon-2018"):
        assert (row["category"], row["price"], row["description"]) == (["Beauty", "Kind 0"], 1012.5, "One. Two.")
    else:
        assert (row["features"], row["price"]) == ("Soft Red", 11.99)


def test_amazon_2023(got):
    report = got("amazon-2023:All_Beauty")
    assert (report.kept, report.dataset.info.name, report.dataset.info.units["timestamp"]) == (60, "amazon-2023-All_Beauty", "ms")


@pytest.mark.parametrize("name", ["gowalla", "yelp2018", "amazon-book"])
def test_lightgcn_splits(got, name):
    report = got(name)
    assert dict(report.dataset.interactions["part"].value_counts().iter_rows()) == {"train": 60, "test": 15}


def test_a_line_that_is_no_object_is_rejected_with_its_number(tmp_path):
    (tmp_path / "files").mkdir()
    tiny = small("amazon-2018:All_Beauty", tmp_path / "files")
    path = tmp_path / "files" / "All_Beauty_5.json.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"{broken\n"))
    report = get(tiny, out=tmp_path / "d", source=tmp_path / "files").ingest
    assert (report.kept, sum(report.rejected.values())) == (60, 1)
    assert pl.read_parquet(tmp_path / "d" / "rejects.parquet")["line"].to_list() == [61]


# ---- names, and the verb


@pytest.mark.parametrize(
    ("name", "said"),
    [("ml-10k", 'Did you mean "ml-1'), ("amazon-2014:Beaty", 'Did you mean "Beauty"'), ("amazon-2014", "name a category"), ("gowalla:x", "no categories")],
)
def test_an_unknown_name_says_what_was_meant(name, said):
    with pytest.raises(SettingError, match=said):
        find(name)


def verb(*words):
    return CliRunner().invoke(app, ["data", "get", *map(str, words)], prog_name="vitrail")


def test_the_verb_lists(tmp_path):
    shown = verb("--list")
    assert shown.exit_code == 0 and "ml-100k" in shown.stdout and "amazon-2018:CATEGORY" in shown.stdout and "Luxury_Beauty" in shown.stdout
    listed = json.loads(verb("--list", "--json").stdout)["records"]
    assert {"ml-32m", "gowalla"} <= {one["name"] for one in listed}
    assert verb().exit_code == 2 and "Name a data set" in verb().stderr


def test_the_verb_gets_files_placed_by_hand(tmp_path):
    for file, content in amazon_2023().items():
        (tmp_path / file).write_bytes(content)
    done = verb("amazon-2023:All_Beauty", "--from", tmp_path, "--out", tmp_path / "d")
    assert done.exit_code == 0 and "kept 60 events" in done.stdout and "licence:" in done.stdout, done.output
    again = verb("amazon-2023:All_Beauty", "--from", tmp_path / "All_Beauty.csv.gz", "--out", tmp_path / "d", "--overwrite", "--json")
    report = json.loads(again.stdout)
    assert (report["events"], report["source"], list(report["files"])) == (60, "amazon-2023:All_Beauty", ["All_Beauty.csv.gz"])
    refused = verb("ml-100k", "--from", tmp_path, "--out", tmp_path / "e")
    assert refused.exit_code == 2 and "ml-100k.zip" in refused.stderr and not (tmp_path / "e").exists()
