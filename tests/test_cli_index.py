"""index build, search, stats, and recommend --index, for people and as JSON."""

import json

import pytest
from typer.testing import CliRunner

from vitrail import cli
from vitrail.testing import checkerboard, quick
from vitrail.train.fit import fit


def vitrail(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="vitrail")


def document(*words):
    result = vitrail(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    home = tmp_path_factory.mktemp("index")
    data = checkerboard(home / "board")
    for name in ("bpr-mf", "item-knn"):
        fit(name, data, split="leave-last-out", out=home / name, settings=quick(name, epochs=2), quiet=True)
    told = vitrail("index", "build", home / "bpr-mf")
    assert told.exit_code == 0, told.output
    assert "Ask through it: vitrail recommend" in told.stdout and "all 24 items are scored" in told.stderr
    return home


def test_build_tells_kind_recall_and_size(run):
    built = document("index", "build", run / "bpr-mf", "--kind", "ivf", "--recall", "1", "--out", run / "ivf", "--k", "5", "--dtype", "float16")
    assert built["kind"] == "ivf" and built["recall"]["target"] == 1 and built["recall"]["k"] == 5 and built["bytes"] > 0 and built["dtype"] == "float16"
    assert "recall@5" in built["said"][0]
    stats = document("index", "stats", run / "ivf")
    assert stats["count"] == 24 and stats["recall"] == built["recall"] and stats["attributes"] == ["colour"]
    assert "measured on" in vitrail("index", "stats", run / "ivf").stdout


def test_recommend_through_it_is_recommend(run):
    plain = document("recommend", run / "bpr-mf", "--user", "u1", "--k", 3, "--filter", 'colour == "white"')
    found = document("recommend", run / "bpr-mf", "--user", "u1", "--k", 3, "--filter", 'colour == "white"', "--index", run / "bpr-mf" / "index")
    assert [row["item"] for row in found["items"]] == [row["item"] for row in plain["items"]]


def test_search_asks_with_an_item(run):
    found = document("index", "search", run / "bpr-mf" / "index", "--item", "i 3", "--k", 4, "--filter", 'colour == "white"')
    names = [row["item"] for row in found["items"]]
    assert len(names) == 4 and "i 3" not in names and all(int(name[2:]) % 2 for name in names)
    assert [row["rank"] for row in found["items"]] == [1, 2, 3, 4]
    assert "Nearest to i 3" in vitrail("index", "search", run / "bpr-mf" / "index", "--item", "i 3").stdout


def test_mistakes_are_sentences(run, tmp_path):
    for words, say in (
        (("index", "build", run / "item-knn"), "nothing to index"),
        (("index", "build", run / "bpr-mf"), "exists already"),
        (("index", "search", run / "bpr-mf" / "index", "--item", "no"), 'no item "no"'),
        (("index", "stats", tmp_path), "There is no index"),
        (("recommend", run / "item-knn", "--user", "u1", "--index", run / "bpr-mf" / "index"), "no inner products"),
    ):
        result = vitrail(*words)
        assert result.exit_code == 2 and say in result.stderr and result.stderr.count("\n") == 1, result.output


def test_an_index_on_a_server_is_not_asked_with_an_item(tmp_path, cloud_file):
    result = vitrail("index", "search", cloud_file, "--item", "a")
    assert result.exit_code == 2 and "keeps its vectors on a server" in result.stderr
    assert "lite.db" in vitrail("index", "stats", cloud_file).stdout


@pytest.fixture
def cloud_file(tmp_path):
    pytest.importorskip("milvus_lite")
    from vitrail.index.remote import MilvusIndex

    remote = MilvusIndex(str(tmp_path / "lite.db"), "things", 2)
    remote.save(tmp_path / "where")
    remote.close()
    return tmp_path / "where"
