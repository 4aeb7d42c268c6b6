import json

import pytest
from typer.testing import CliRunner

from vitrail.cli import app
from vitrail.testing import checkerboard


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return checkerboard(tmp_path_factory.mktemp("data") / "board", side=32).path


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_compare_prints_one_document_or_a_table(data, tmp_path, monkeypatch):
    monkeypatch.setattr("vitrail.lab.compare.write_page", lambda folder, *a: (folder / "report.html").write_text("page"))
    words = ("compare", "popular", "item-knn", "--data", data, "--split", "leave-last-out", "--seeds", 2, "--trials", 2, "--out", tmp_path / "c")
    done = call(*words, "--json", "--report", tmp_path / "page.html")
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and {"rows", "tests"} <= set(found) and set(found["rows"][0]) >= {"system", "seed", "metrics"}
    assert "at most" in done.stderr and "trial 2 of 2" in done.stderr and (tmp_path / "page.html").exists()
    again = call(*words, "--resume")
    assert again.exit_code == 0 and found["sentences"][0] in again.stdout and "item-knn" in again.stdout and "going on" in again.stderr
    assert call(*words, "--report", tmp_path / "docs" / "table.md").exit_code == 0
    text = (tmp_path / "docs" / "table.md").read_text()
    assert text.startswith("# 2 systems on checkerboard") and found["sentences"][0] in text and "| item-knn | any |" in text and "Repeat it: `vitrail" in text
    runs = call("compare", tmp_path / "c" / "popular" / "seed-0", tmp_path / "c" / "item-knn" / "seed-0", "--json")
    assert json.loads(runs.stdout)["tests"][0]["p"] == found["tests"][0]["p"]


def test_tune_prints_what_to_do_next(data, tmp_path):
    where = ("--data", data, "--split", "leave-last-out")
    words = ("tune", "item-knn", *where, "--trials", 3, "--set", "k=5", "--out", tmp_path / "t")
    done = call(*words)
    assert done.exit_code == 0 and "best.yaml" in done.stdout and "weighting: one of cosine, tfidf, bm25" in done.stderr
    assert len(json.loads(call(*words, "--json").stdout)["trials"]) == 3
    assert call("fit", "item-knn", *where, "--config", tmp_path / "t" / "best.yaml", "--out", tmp_path / "r").exit_code == 0


def test_effects_prints_a_table_or_one_document(data, tmp_path):
    where = ("--data", data, "--split", "leave-last-out", "--out", tmp_path / "e")
    words = ("effects", "popular", "item-knn", *where, "--mask", "train", "--mask", "none", "--refit", "no")
    done = call(*words)
    assert done.exit_code == 0 and "The mask alone" in done.stdout and "| leave-last-out | none | no |" in done.stdout and "report.md" in done.stderr
    assert len(json.loads(call(*words, "--json").stdout)["conditions"]) == 2


def test_refusals_are_one_sentence(data, tmp_path):
    for words, says in (
        (("compare", "popular", "eas", "--data", data, "--out", tmp_path / "c"), 'Did you mean "ease"'),
        (("compare", "popular", "--data", data, "--out", tmp_path / "c"), "at least 2"),
        (("compare", "popular", "ease", "--out", tmp_path / "c"), "--data"),
        (("compare", "popular", tmp_path / "nothing"), "is a run and"),
        (("compare", tmp_path / "x", tmp_path / "y"), "is not a run"),
        (("compare", tmp_path / "x", tmp_path / "y", "--set", "a=1"), "leave --set"),
        (("compare", "popular", "bpr-mf", "--data", data, "--seeds", 1, "--out", tmp_path / "c"), "--no-tests"),
        (("tune", "ease", "--data", data), "--out"),
        (("effects", "popular", "ease", "--data", data), "--out"),
        (("effects", "popular", "ease", "--data", data, "--refit", "maybe", "--out", tmp_path / "c"), "both, no or yes"),
    ):
        done = call(*words)
        assert done.exit_code == 2 and says in done.stderr and done.stderr.count("\n") == 1, (words, done.stderr)
    assert not (tmp_path / "c").exists()
