"""Text to item and picture to item, vectors brought by the user, and the verbs."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner

from vitrail import cli
from vitrail.cli import content as verbs
from vitrail.content import bring as bring_module
from vitrail.content import encode as encode_module
from vitrail.content import similar as module
from vitrail.content.bring import bring
from vitrail.content.encode import encode
from vitrail.content.similar import similar
from vitrail.data.dataset import Dataset, write_dataset
from vitrail.data.schema import DatasetInfo
from vitrail.errors import ArtifactError, DataError, SettingError

pytest.importorskip("skimage")
WORDS = {"i0": "red lipstick", "i1": "blue wool scarf", "i2": "red wool hat", "i3": "blue wool hat", "i4": "lipstick"}


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n, colour in ((0, (220, 20, 30)), (1, (20, 30, 220))):
        Image.new("RGB", (20, 20), colour).save(pictures / f"i{n}.png")
    items = pl.DataFrame({"item": list(WORDS), "title": list(WORDS.values()), "picture": [f"{name}.png" for name in WORDS]})
    info = DatasetInfo(name="shop", order="position", image_root=str(pictures), columns={"items": {"title": "text", "picture": "image"}})
    return write_dataset(tmp_path / "d", info, pl.DataFrame({"user": ["u"] * 5, "item": list(WORDS), "position": range(5)}), items)


def vitrail(*words: Any) -> Any:
    return CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="vitrail")


def test_words_and_pictures_find_their_items(data: Dataset, tmp_path: Path) -> None:
    encode(data, text="tfidf", image="colour-texture")
    table = similar(data, "a RED lipstick", k=3)
    assert table.columns == ["item", "rank", "score", "title"] and table["item"][0] == "i0" and table["rank"].to_list() == [1, 2, 3]
    assert table["score"].is_sorted(descending=True)
    Image.new("RGB", (50, 50), (200, 30, 30)).save(tmp_path / "asked.png")
    assert similar(data, image=tmp_path / "asked.png")["item"].to_list() == ["i0", "i1"], "items without a picture are no answer"


def test_never_across_two_spaces(data: Dataset, tmp_path: Path) -> None:
    encode(data, text="tfidf", image="colour-texture")
    picture = tmp_path / "pictures" / "i0.png"
    with pytest.raises(DataError, match="knows no texts"):
        similar(data, "red", vectors="image")
    with pytest.raises(DataError, match="a picture is not of that space"):
        similar(data, image=picture, vectors="text")
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(5, 3)))
    (tmp_path / "ids.txt").write_text("\n".join(WORDS))
    bring(data, "mine", tmp_path / "mine.npy", ids=tmp_path / "ids.txt", kind="text")
    with pytest.raises(DataError, match="were imported"):
        similar(data, "red", vectors="mine")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({}, "one of the two"),
        ({"query": "red", "image": "x.png"}, "one of the two"),
        ({"query": "red", "k": 0}, "at least 1"),
        ({"query": "zzz"}, "says nothing to the encoder"),
        ({"query": "red", "vectors": "txt"}, 'Did you mean "text"'),
        ({"image": "absent.png"}, "no picture that can be read"),
    ],
)
def test_refusals(data: Dataset, asked: dict[str, Any], sentence: str) -> None:
    encode(data, text="tfidf", image="colour-texture")
    with pytest.raises((DataError, SettingError), match=sentence):
        similar(data, **asked)


def test_another_version_of_the_encoder_is_refused(data: Dataset) -> None:
    encode(data, text="tfidf")
    file = data.path / "vectors" / "text.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"revision": "older"}))
    with pytest.raises(DataError, match="another version"):
        similar(data, "red")


def test_a_joint_space_answers_words_with_pictures(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Joint(module.TransformerImage):
        """Red pictures and the word red lie on one axis."""

        name, revision, dim, joint = "joint", "1", 2, True  # type: ignore[assignment]

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def encode(self, images: Any) -> np.ndarray:
            return np.array([[1.0, 0] if np.asarray(Image.open(image)).mean((0, 1)).argmax() == 0 else [0, 1.0] for image in images], dtype=np.float32)

        def encode_text(self, texts: Any) -> np.ndarray:
            return np.array([[1.0, 0] if "red" in text else [0, 1.0] for text in texts], dtype=np.float32)

    for place in (module, encode_module):
        monkeypatch.setattr(place, "load_image", lambda *_, **__: Joint())
    encode(data, image="joint")
    assert similar(data, "something red", vectors="image", k=1)["item"].to_list() == ["i0"]


class TestBring:
    def test_ids_rows_of_zeros_and_strangers(self, data: Dataset, tmp_path: Path) -> None:
        values = np.arange(12, dtype=np.float64).reshape(4, 3)
        np.save(tmp_path / "v.npy", values)
        pl.DataFrame({"id": ["i3", "i1", "stranger", "i0"]}).write_parquet(tmp_path / "ids.parquet")
        values[0] = 0
        np.save(tmp_path / "v.npy", values)
        report = bring(data, "mine", tmp_path / "v.npy", ids=tmp_path / "ids.parquet", kind="image", encoder="mine 1")
        assert (report["items"], report["without"], report["zeros"], report["strangers"]) == (2, 3, 1, 1)
        found = data.vectors("mine")
        assert found.values[data.item_ids.code("i1")].tolist() == [3.0, 4.0, 5.0] and not found.mask[data.item_ids.code("i3")]

    def test_rows_by_number_as_in_mmrec(self, tmp_path: Path) -> None:
        events = pl.DataFrame({"user": ["u"] * 3, "item": ["2", "0", "1"], "position": range(3)})
        numbered = write_dataset(tmp_path / "n", DatasetInfo(name="n", order="position"), events)
        np.save(tmp_path / "image_feat.npy", np.array([[1.0], [2.0], [3.0]]))
        assert bring(numbered, "image", tmp_path / "image_feat.npy")["items"] == 3
        assert numbered.vectors("image").values[numbered.item_ids.code("2")] == 3.0

    def test_refusals(self, data: Dataset, tmp_path: Path) -> None:
        np.save(tmp_path / "v.npy", np.ones((4, 3)))
        np.save(tmp_path / "flat.npy", np.ones(4))
        (tmp_path / "no.npy").write_text("text")
        (tmp_path / "ids.txt").write_text("i0\ni1\n")
        for file, ids, sentence in (
            ("absent.npy", None, "There is no file"),
            ("no.npy", None, "no array of numpy"),
            ("flat.npy", None, "vectors are floats"),
            ("v.npy", None, "say with --ids"),
            ("v.npy", "ids.txt", "an id a row"),
            ("v.npy", "absent.txt", "There is no file"),
            ("v.npy", "v.npy", "no list of ids"),
        ):
            with pytest.raises(DataError, match=sentence):
                bring(data, "x", tmp_path / file, ids=None if ids is None else tmp_path / ids)


class TestVerbs:
    @pytest.mark.parametrize(("verb", "function"), [(verbs.encode, encode), (verbs.similar, similar), (verbs.bring, bring_module.bring)])
    def test_every_keyword_is_a_flag(self, verb: Any, function: Any) -> None:
        flags, keywords = set(inspect.signature(verb).parameters) - {"json"}, set(inspect.signature(function).parameters)
        assert flags == keywords

    def test_encode_list_similar_import(self, data: Dataset, tmp_path: Path) -> None:
        assert "No vectors yet" in vitrail("content", "list", data.path).stdout
        result = vitrail("content", "encode", data.path, "--text", "tfidf", "--columns", "title")
        assert result.exit_code == 0 and "5 items" in result.stdout and "encoded 5 new" in result.stdout, result.output
        assert json.loads(vitrail("content", "encode", data.path, "--text", "tfidf", "--json").stdout)[0]["encoded"] == 0
        assert "2 items" in vitrail("content", "encode", data.path, "--image", "colour-texture", "--quiet").stdout
        assert [row["name"] for row in json.loads(vitrail("content", "list", data.path, "--json").stdout)] == ["image", "text"]
        assert "colour-texture" in vitrail("content", "list", data.path).stdout
        assert "red lipstick" in vitrail("content", "similar", data.path, "red lipstick", "-k", 2).stdout
        assert json.loads(vitrail("content", "similar", data.path, "wool", "--json").stdout)[0]["rank"] == 1
        np.save(tmp_path / "v.npy", np.array([[1.0, 2], [0, 0], [3, 4]]))
        (tmp_path / "ids.txt").write_text("i0\ni1\nelse\n")
        words = ("content", "import", data.path, "mine", tmp_path / "v.npy", "--ids", tmp_path / "ids.txt")
        assert "left out: 1 rows of zeros, 1 rows" in vitrail(*words).stdout
        assert json.loads(vitrail(*words, "--json").stdout)["items"] == 1

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (("encode", "--precision", "fp8"), "use auto, fp32 or bf16"),
            (("encode", "--pooling", "max"), "use mean, cls or last"),
            (("import", "x", "v.npy", "--kind", "sound"), "use text, image or other"),
            (("similar",), "one of the two"),
        ],
    )
    def test_refusals(self, data: Dataset, words: tuple[str, ...], sentence: str) -> None:
        result = vitrail("content", words[0], data.path, *words[1:])
        assert result.exit_code == 2 and sentence in result.stderr and result.stderr.count("\n") == 1

    def test_unreadable_content_is_told(self, data: Dataset, tmp_path: Path) -> None:
        (tmp_path / "pictures" / "i1.png").write_bytes(b"broken")
        assert "1 items have content that says nothing" in vitrail("content", "encode", data.path, "--image", "colour-texture", "--quiet").stdout


def test_damaged_record(data: Dataset) -> None:
    encode(data, text="tfidf")
    (data.path / "vectors" / "text.json").write_text("{}")
    with pytest.raises(ArtifactError, match="does not say what made"):
        similar(data, "red")
