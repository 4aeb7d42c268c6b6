"""The bench beside MMRec: the folder both sides read, what is mended, and what is refused. MMRec itself is not here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vitrail.data.ingest import ingest
from vitrail.systems import registry

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def importable():
    """benchmarks/ and benchmarks/peers/ can be imported from, as when a script in them is started."""
    places = [str(BENCHMARKS), str(BENCHMARKS / "peers")]
    sys.path[:0] = places
    yield
    for place in places:
        sys.path.remove(place)


def asked(tmp_path, *words):
    from bench_mmrec import parser

    return parser().parse_args([*words, "--work", str(tmp_path / "work")])


def test_settings_of_our_side_are_settings():
    from bench_mmrec import ROWS, SHARED

    for system, (_, ours, _) in ROWS.items():
        registry.find(system).Config.of(SHARED | ours)


def test_a_simulated_folder_is_one_of_mmrec(tmp_path):
    from bench_mmrec import NARROW, SMALL, folder

    home = folder(asked(tmp_path, "--small"))
    data = ingest([home], out=tmp_path / "data").dataset
    assert data.info.counts["users"] == SMALL["users"] and data.info.counts["items"] == SMALL["items"] and data.info.counts["events"] == SMALL["events"]
    assert {name: data.vectors(name).info.dim for name in data.vector_names()} == NARROW
    train = data.interactions.filter(data.parts() == "train")
    assert train["user"].n_unique() == SMALL["users"] and train["item"].n_unique() == SMALL["items"], "everybody is met in training"
    before = (home / "small-16-32.inter").stat().st_mtime_ns
    assert folder(asked(tmp_path, "--small")) == home and (home / "small-16-32.inter").stat().st_mtime_ns == before, "made once"


def test_a_folder_of_another_form_is_written_with_the_features_it_has(tmp_path):
    from bench_mmrec import folder

    source = tmp_path / "shop"
    source.mkdir()
    for part, rows in {"train": "a,x\na,y\nb,z\n", "valid": "a,z\n", "test": "b,x\n"}.items():
        (source / f"{part}.csv").write_text("user,item\n" + rows)
    home = folder(asked(tmp_path, "--data", str(source), "--image", "8"))
    table = pl.read_csv(home / "shop-384-8.inter", separator="\t")
    assert table.columns == ["userID", "itemID", "rating", "timestamp", "x_label"] and table["x_label"].value_counts().height == 3
    assert sorted(table["itemID"].unique()) == [0, 1, 2] and sorted(table["userID"].unique()) == [0, 1]
    assert np.load(home / "image_feat.npy").shape == (3, 8)
    mine = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(home / "text_feat.npy", mine)
    again = folder(asked(tmp_path / "second", "--data", str(home)))
    moved = pl.read_csv(next(again.glob("*.inter")), separator="\t")
    found = np.load(again / "text_feat.npy")
    for old, new in zip(table.rows(), moved.rows(), strict=True):
        np.testing.assert_array_equal(mine[old[1]], found[new[1]])


def test_what_mmrec_misses_is_put_in_place_in_a_process_of_its_own():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import run_mmrec; print(run_mmrec.repair());"
        "import numpy, scipy.sparse as s; a = s.dok_matrix((2, 2)); a._update({(0, 1): 3.0}); assert a[0, 1] == 3.0 and numpy.float is float;"
        "from torchvision.transforms.functional import pad, resize; import torchvision.transforms as t, lmdb, matplotlib.pyplot as p; t.Compose; p.__name__"
    )
    done = subprocess.run([sys.executable, "-c", code, str(BENCHMARKS / "peers")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"), [([], "Name a checkout of MMRec"), (["mgcn", "--mmrec", "x"], 'no row "mgcn"'), (["--mmrec", "x", "--data", "nowhere"], "nowhere")]
)
def test_what_cannot_be_run_is_one_sentence(tmp_path, words, said, monkeypatch, capsys):
    from bench_mmrec import main

    monkeypatch.delenv("MMREC", raising=False)
    monkeypatch.setattr(sys, "argv", ["bench_mmrec.py", *words, "--work", str(tmp_path)])
    assert main() == 2
    told = capsys.readouterr().err
    assert said in told and told.startswith("error: ") and told.count("\n") == 1


def test_what_is_no_checkout_is_told(tmp_path):
    job = {"peer": "mmrec", "model": "BM3", "data": "d", "split": str(tmp_path), "cut": "", "epochs": 1, "settings": {}, "threads": 1, "seed": 0}
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, str(BENCHMARKS / "peers" / "run_mmrec.py"), str(tmp_path / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode and "is no checkout of MMRec" in done.stderr
