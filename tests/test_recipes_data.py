"""How a recipe's data are made: items joined and cleaned, content encoded, pictures found under the root."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vitrail.errors import DataError, SettingError
from vitrail.recipes_data import Data, prepare

pytest.importorskip("skimage")
JOIN = {
    "ids": "map.tsv", "item": "number", "key": "code", "items": "items.csv", "items_key": "id",
    "clean": {"words": {"#\\d+": "", "[_|]+": " "}},
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "pictures").mkdir(parents=True)
    (root / "walks.txt").write_text("".join(f"u{u} {u % 4} {(u + 1) % 4} {(u + 2) % 4}\n" for u in range(9)))
    (root / "map.tsv").write_text("number\tcode\n0\ta\n1\tb\n2\tc\n3\tzz\n")
    (root / "items.csv").write_text("id,words\na,_red|#12|_hat for cold days\nb,_blue|_scarf of soft wool\nc,_red|_scarf of soft wool\n")
    for n in range(3):
        Image.new("RGB", (8, 8), (80 * n, 10, 10)).save(root / "pictures" / f"{n}.png")
    return root


def told(**changes: object) -> Data:
    ingest = {"files": ["walks.txt"], "flags": {"ordered": True, "item_key": "number", "columns": {"words": "text"}, "images": "pictures"}}
    content = {"text": {"encoder": "tfidf", "columns": ["words"]}, "pictures": {"encoder": "colour-texture", "kind": "image"}}
    return Data.of({"name": "walks", "ingest": ingest, "join": JOIN, "content": content, **changes})


def test_joined_cleaned_and_encoded_once(root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    data = prepare(told(), data_root=root, work=tmp_path / "runs", say=said.append)
    words = dict(zip(data.items["item"], data.items["words"], strict=True))
    assert words["0"].split() == ["red", "hat", "for", "cold", "days"] and words["3"] is None
    assert data.vector_names() == ["pictures", "text"]
    assert data.vectors("text").mask.sum() == 3 and data.vectors("pictures").mask.sum() == 3
    assert any("vectors text: 3 items by tfidf, 3 contents encoded" in line for line in said)
    prepare(told(), data_root=root, work=tmp_path / "runs", say=said.append)
    assert "0 contents encoded" in said[-1], "what is there is not encoded again"


def test_content_may_be_added_and_joins_may_not_change(root: Path, tmp_path: Path) -> None:
    plain = prepare(told(content={}), data_root=root, work=tmp_path / "runs", say=lambda _: None)
    assert plain.vector_names() == []
    assert prepare(told(), data_root=root, work=tmp_path / "runs", say=lambda _: None).fingerprint == plain.fingerprint
    with pytest.raises(DataError, match="other settings than this recipe's"):
        prepare(told(join={**JOIN, "clean": {}}), data_root=root, work=tmp_path / "runs", say=lambda _: None)


def test_refusals(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="does not say of what"):
        prepare(told(content={"extra": {"encoder": "tfidf"}}), data_root=root, work=tmp_path / "a", say=lambda _: None)
    with pytest.raises(DataError, match=r"cannot be joined from map\.tsv"):
        prepare(told(join={**JOIN, "key": "cod"}), data_root=root, work=tmp_path / "b", say=lambda _: None)
    (root / "map.tsv").unlink()
    with pytest.raises(DataError, match=r"There is no .*map\.tsv"):
        prepare(told(), data_root=root, work=tmp_path / "c", say=lambda _: None)
