"""Index folders: whole or refused with a sentence, mapped, and nothing pickled."""

import json

import numpy as np
import pytest

from vitrail.errors import ArtifactError, DataError
from vitrail.files import read_json, sha256, write_json
from vitrail.index.ann import AnnIndex
from vitrail.index.base import Filter
from vitrail.index.exact import ExactIndex
from vitrail.index.store import MANIFEST, open_index


@pytest.fixture
def saved(tmp_path, cloud, table):
    ids = [f"i{number}" for number in range(60)]
    for kind in ("exact", "ivf"):
        settings = {"attributes": table(ids), "source": "abc"}
        index = ExactIndex(ids, cloud(60, 4), **settings) if kind == "exact" else AnnIndex(ids, cloud(60, 4), kind=kind, **settings)
        index.remove(["i3", "i4"])
        index.replace(["i5"], cloud(1, 4))
        index.save(tmp_path / kind)
    return tmp_path


def test_saved_and_opened_it_answers_the_same(saved, cloud):
    Q = cloud(5, 4, 1)
    exact = ExactIndex.load(saved / "exact")
    assert isinstance(exact._vectors, np.memmap) and exact.stats()["source"] == "abc" and len(exact) == 58
    again = open_index(saved / "exact", verify=False)
    for ask in (None, Filter(where="price < 30"), Filter(ids=["i5", "i3"])):
        a, b = exact.search(Q, 6, ask), again.search(Q, 6, ask)
        assert (a.ids == b.ids).all() and (a.scores == b.scores).all()
    assert exact.search(Q, 60, Filter(ids=["i5", "i3"])).lists()[0] == ["i5"]
    assert exact.ids == AnnIndex.load(saved / "ivf").ids
    with pytest.raises(ArtifactError, match="holds an index of the kind ivf"):
        ExactIndex.load(saved / "ivf")


def test_an_empty_index_survives_disk(tmp_path):
    ExactIndex([], np.empty((0, 3), dtype=np.float32)).save(tmp_path / "none")
    assert open_index(tmp_path / "none").search(np.ones(3), 2).lists() == [[]]


def test_the_manifest_says_what_it_is(saved):
    manifest = read_json(saved / "ivf" / MANIFEST)
    assert manifest["kind"] == "ivf" and manifest["dim"] == 4 and manifest["count"] == 58 and manifest["metric"] == "ip"
    assert set(manifest["files"]) == {"vectors.npy", "rows.parquet", "attributes.parquet", "structure.faiss"}
    assert manifest["recall"]["target"] == 0.95 and manifest["source"] == "abc" and manifest["format"] == 1


def test_a_place_that_is_taken_is_refused(saved, cloud):
    with pytest.raises(DataError, match="exists already"):
        ExactIndex(["a"], cloud(1, 4)).save(saved / "exact")


@pytest.mark.parametrize("name", ["vectors.npy", "rows.parquet", "attributes.parquet", "structure.faiss"])
def test_damage_of_any_file_is_a_sentence(saved, name):
    file = saved / "ivf" / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + b"?" + content[len(content) // 2 + 1 :])
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        open_index(saved / "ivf")
    file.unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        open_index(saved / "ivf")


@pytest.mark.parametrize("name", ["vectors.npy", "rows.parquet", "structure.faiss"])
def test_files_that_do_not_belong_together_are_refused(saved, name, cloud):
    folder = saved / "ivf"
    other = AnnIndex(["a", "b"], cloud(2, 4), kind="ivf")
    other.save(saved / "other")
    (folder / name).write_bytes((saved / "other" / name).read_bytes())
    manifest = read_json(folder / MANIFEST)
    manifest["files"][name] = sha256(folder / name)
    write_json(folder / MANIFEST, manifest)
    with pytest.raises(ArtifactError, match="do not belong together"):
        open_index(folder)
    (folder / name).write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match="do not belong together"):
        open_index(folder, verify=False)


def test_manifests_of_another_time_or_kind_are_refused(saved, tmp_path):
    file = saved / "exact" / MANIFEST
    manifest = read_json(file)
    for change, words in (({"format": 99}, "newer Vitrail"), ({"kind": "tree"}, 'no kind of index "tree"'), ({"format": "?"}, "no manifest of an index")):
        write_json(file, {**manifest, **change})
        with pytest.raises(ArtifactError, match=words):
            open_index(saved / "exact")
    file.write_text(json.dumps(["a list"]))
    with pytest.raises(ArtifactError, match="no manifest of an index"):
        open_index(saved / "exact")
    with pytest.raises(ArtifactError, match="no index at"):
        open_index(tmp_path / "nowhere")
