"""Content on the way through a fit: checked before a row is read, remembered by the run, saved with the artifact, outside the fingerprint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from vitrail.data.dataset import Dataset
from vitrail.data.vectors import write_vectors
from vitrail.errors import ArtifactError, DataError, SettingError
from vitrail.files import read_json
from vitrail.funnel.recommender import load
from vitrail.lab.bench import Bench, check_needs
from vitrail.systems import registry
from vitrail.testing import CONTENT, SIDE, checkerboard
from vitrail.train.fit import fit

QUICK = {"dim": 4, "epochs": 1, "batch": 64}


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return checkerboard(tmp_path / "d")


def test_a_run_remembers_its_vectors_and_needs_no_data_to_answer(data: Dataset, tmp_path: Path) -> None:
    result = fit("freedom", data, out=tmp_path / "run", settings=QUICK, quiet=True)
    manifest = read_json(tmp_path / "run" / "artifact" / "manifest.json")
    assert manifest["vectors"]["text"]["encoder"] == "random" and manifest["sizes"]["vectors"] == CONTENT
    run = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert run["vectors"] == {name: data.vectors(name).info.identity for name in ("text", "image")}
    plain = fit("lightgcn", data, settings=QUICK, quiet=True)
    assert plain.recommender.info["fingerprint"] == result.recommender.info["fingerprint"], "systems with and without content share a table"
    (data.path / "vectors" / "text.npy").unlink()
    assert load(tmp_path / "run").recommend(users=["u1"], k=3).equals(result.recommender.recommend(users=["u1"], k=3))


def test_other_vectors_end_a_resume_and_damaged_ones_a_fit(data: Dataset, tmp_path: Path) -> None:
    fit("content-knn", data, out=tmp_path / "run", settings={"vectors": ["text"]}, quiet=True)
    values = data.vectors("text")
    write_vectors(data.path, "text", np.asarray(values.values)[values.mask] + 1, data.items["item"].filter(values.mask), encoder="random")
    with pytest.raises(SettingError, match="began with another vectors"):
        fit("content-knn", data, out=tmp_path / "run", settings={"vectors": ["text"]}, resume=True, quiet=True)
    file = data.path / "vectors" / "image.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(ArtifactError, match="recorded checksum"):
        fit("content-knn", data, quiet=True)


def test_settings_name_the_vectors_and_their_absence_is_a_sentence(data: Dataset) -> None:
    with pytest.raises(DataError, match=r'needs the vectors "plot" of data set "checkerboard", and it has image, text'):
        fit("freedom", data, settings={**QUICK, "vectors": ["plot"]}, quiet=True)
    assert fit("freedom", data, settings={**QUICK, "vectors": ["image"]}, quiet=True).recommender.given.vectors.keys() == {"image"}


def test_the_bench_knows_content(data: Dataset) -> None:
    bench = Bench.open(data, "leave-last-out", "ndcg@10", refit=False, quiet=True)
    config = bench.config("bm3", {**QUICK, "vectors": ["text"]})
    assert bench.sizes(registry.find("bm3"), config).vectors == {"text": CONTENT["text"]}
    assert bench.attempt(registry.find("bm3"), config, 0).value is not None
    assert bench.check_memory("bm3", config) > 4 * SIDE * CONTENT["text"]
    assert bench.vectors({"bm3": config}) == {"vectors": {"text": data.vectors("text").info.identity}}
    assert bench.vectors({"popular": bench.config("popular", {})}) == {}
    with pytest.raises(DataError, match='"bm3" needs the vectors "plot"'):
        check_needs({"bm3": bench.config("bm3", {"vectors": ["plot"]})}, data)
