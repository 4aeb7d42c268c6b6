"""What people get wrong, verb by verb: one sentence, a non-zero code, nothing left behind; and the odd data that must work."""

import json

import pytest
from typer.testing import CliRunner

from vitrail.cli import app
from vitrail.testing import checkerboard


def run(*arguments, code=0):
    """stdout of a verb, or what it said on standard error where `code` is not 0."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="vitrail")
    assert result.exit_code == code, f"{arguments}: {result.exit_code}\n{result.stdout}\n{result.stderr}\n{result.exception!r}"
    assert "Traceback" not in result.stderr
    return result.stderr if code else result.stdout


def document(*arguments):
    return json.loads(run(*arguments, "--json"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A data set `board` and a fitted run `knn` over it."""
    folder = tmp_path_factory.mktemp("home")
    checkerboard(folder / "board")
    run("fit", "item-knn", "--data", folder / "board", "--split", "leave-last-out", "--out", folder / "knn", "--quiet")
    return folder


FIT = ("fit", "bpr-mf", "--data", "{board}", "--out", "{new}", "--quiet")
MISTAKES = [
    (("data", "ingest", "{tmp}/absent.csv", "--out", "{new}"), "absent.csv"),
    (("data", "ingest", "--out", "{new}"), "Name the files"),
    (("data", "describe", "{tmp}"), "not a data set"),
    (("data", "simulate", "--out", "{new}", "--drift", "3"), "drift"),
    (("data", "simulate", "--out", "{tmp}", "--overwrite"), "will not be overwritten"),
    (("fit", "bpr-fm", "--data", "{board}", "--out", "{new}"), 'Did you mean "bpr-mf"'),
    (("fit", "bpr-mf", "--data", "{tmp}/none", "--out", "{new}"), "There is no data set"),
    (("fit", "bpr-mf", "--out", "{new}"), "--data"),
    ((*FIT, "--split", "temporl"), 'Did you mean "temporal"'),
    ((*FIT, "--split", "temporal:valid=7"), "valid"),
    ((*FIT, "--split", "predefined"), "did not come split"),
    ((*FIT, "--set", "dims=3"), 'Did you mean "dim"'),
    ((*FIT, "--set", "dim=0"), "dim"),
    ((*FIT, "--set", "dim"), "key=value"),
    ((*FIT, "--set", "metric=ndgc@10"), 'Did you mean "ndcg'),
    ((*FIT, "--config", "{tmp}/none.yaml"), "no file"),
    ((*FIT, "--device", "tpu"), "device"),
    (("fit", "mine", "--data", "{board}", "--out", "{new}", "--system", "{tmp}/no.py"), "no file"),
    (("evaluate", "{tmp}"), "no fitted system"),
    (("evaluate", "{knn}", "--metrics", "ndgc@10"), 'Did you mean "ndcg'),
    (("evaluate", "{knn}", "--part", "train"), '"test" or "valid"'),
    (("evaluate", "{knn}", "--data", "{tmp}"), "not a data set"),
    (("recommend", "{knn}"), "--user"),
    (("recommend", "{knn}", "--user", "u1", "-k", "0"), "0"),
    (("recommend", "{knn}", "--user", "u1", "--filter", "colr == 'white'"), 'Did you mean "colour"'),
    (("recommend", "{knn}", "--user", "u1", "--filter", "colour == 'green'"), "No item passes"),
    (("recommend", "{knn}", "--user", "u1", "--filter", "__import__('os')"), "condition"),
    (("recommend", "{knn}", "--users", "all"), "--out"),
    (("recommend", "{knn}", "--users", "{tmp}/none.txt", "--out", "{new}"), "none.txt"),
    (("similar", "{knn}", "--item", "i 999"), 'no item "i 999"'),
    (("serve", "{tmp}/none"), "no fitted system"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(a)[:60] for a, _ in MISTAKES])
def test_a_mistake_is_one_sentence(home, tmp_path, arguments, words):
    (tmp_path / "thesis.txt").write_text("mine")
    places = {"board": home / "board", "knn": home / "knn", "tmp": tmp_path, "new": tmp_path / "new"}
    said = run(*(str(a).format(**places) for a in arguments), code=2)
    assert words.lower() in said.lower()
    assert len([line for line in said.splitlines() if line.startswith("error:")]) <= 1
    assert [p.name for p in tmp_path.iterdir() if p.name != "new"] == ["thesis.txt"]
    assert not (tmp_path / "new" / "artifact").exists()


def test_empty_history_a_large_k_and_a_catalogue_of_one(home, tmp_path):
    assert document("recommend", home / "knn", "--history", "")["fallback"] == "popular"
    assert document("recommend", home / "knn", "--user", "nobody", "-k", "999", "--filter", 'colour == "white"')["fallback"] == "popular"
    (tmp_path / "one.csv").write_text("user,item,timestamp\n" + "".join(f"u{k},only,{1_600_000_000 + k}\n" for k in range(5)))
    run("data", "ingest", tmp_path / "one.csv", "--out", tmp_path / "one")
    run("fit", "popular", "--data", tmp_path / "one", "--split", "none", "--out", tmp_path / "run", "--quiet")
    assert [row["item"] for row in document("recommend", tmp_path / "run", "--user", "new", "-k", 50)["items"]] == ["only"]
    assert document("recommend", tmp_path / "run", "--user", "u1")["items"] == []
    assert "no test part" in run("evaluate", tmp_path / "run", code=2)


def test_every_item_cold(tmp_path):
    """Train and test share no item: the numbers are zero, nothing breaks."""
    (tmp_path / "train.csv").write_text("user,item\n" + "".join(f"u{k % 9},a{k}\n" for k in range(30)))
    (tmp_path / "test.csv").write_text("user,item\n" + "".join(f"u{k % 9},b{k}\n" for k in range(30)))
    run("data", "ingest", "--train", tmp_path / "train.csv", "--test", tmp_path / "test.csv", "--out", tmp_path / "d")
    run("fit", "item-knn", "--data", tmp_path / "d", "--out", tmp_path / "run", "--quiet")
    found = document("evaluate", tmp_path / "run", "--metrics", "recall@5", "--quiet")
    assert found["slices"]["items:cold"]["users"] == 9 and found["metrics"]["recall@5"] <= 1


def test_changed_data_a_small_memory_and_a_full_disk(home, tmp_path, monkeypatch):
    import vitrail.train.fit as module

    checkerboard(tmp_path / "board")
    run("fit", "popular", "--data", tmp_path / "board", "--split", "ratio", "--out", tmp_path / "run", "--quiet")
    checkerboard(tmp_path / "board", side=10)
    assert "has changed since" in run("evaluate", tmp_path / "run", code=2)
    with monkeypatch.context() as patched:
        patched.setattr(module, "free_memory", lambda: 10)
        assert "memory" in run("fit", "ease", "--data", home / "board", "--out", tmp_path / "x", "--quiet", code=3)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vitrail.train.checkpoint.save_file", full)
    assert "disk is full" in run("fit", "item-knn", "--data", home / "board", "--out", tmp_path / "y", "--quiet", code=3)
    assert not (tmp_path / "y" / "artifact").exists() and not list((tmp_path / "y").glob(".*"))
