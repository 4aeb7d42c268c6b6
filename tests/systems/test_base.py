"""What reaches `build`: the facts and the content a system declared, nothing else, and back from named tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vitrail.data.log import Log
from vitrail.data.schema import Needs
from vitrail.data.vectors import Vectors, VectorsInfo, read_vectors, write_vectors
from vitrail.data.vocabulary import Vocabulary
from vitrail.systems.base import Can, ContentSettings, Given, Sizes, System

LOG = Log(np.array([0, 2, 3]), np.array([0, 1, 1], dtype=np.int32), 3)
INFO = VectorsInfo(encoder="hand", dim=2, rows=2, sha256="", ids_sha256="")
TEXT = Vectors("text", np.array([[1, 2], [0, 0], [3, 4]], dtype=np.float32), np.array([True, False, True]), INFO)


def test_exactly_what_is_declared_and_back() -> None:
    given = Given.of(LOG, Needs(given=("item_counts",), vectors=("text",)), {"text": TEXT, "image": TEXT})
    assert given.indptr is None and given.vectors.keys() == {"text"}
    tensors = given.tensors()
    assert set(tensors) == {"item_counts", "vectors.text", "masks.text"}
    again = Given.from_tensors(tensors)
    assert torch.equal(again.vectors["text"], torch.from_numpy(TEXT.values)) and again.masks["text"].tolist() == [True, False, True]
    assert again.item_counts is not None and again.item_counts.tolist() == [1, 2, 0]


def test_content_is_read_where_it_lies(tmp_path: Path) -> None:
    ids = Vocabulary.of(["a", "b", "c"])
    write_vectors(tmp_path, "text", TEXT.values, ids.ids.to_list(), encoder="hand", kind="text")
    given = Given.of(LOG, Needs(vectors=("text",)), {"text": read_vectors(tmp_path, "text", ids)})
    before = given.vectors["text"].clone()
    given.vectors["text"][0] = 9.0
    again = Given.of(LOG, Needs(vectors=("text",)), {"text": read_vectors(tmp_path, "text", ids)})
    assert torch.equal(again.vectors["text"], before), "nothing is written back"


def test_settings_say_which_vectors_and_abilities_follow_settings() -> None:
    class Reads(System):
        needs = Needs(given=("item_counts",))

        class Config(ContentSettings):
            cold: bool = False

        @classmethod
        def abilities(cls, config: Reads.Config) -> Can:
            return Can(cold_items=config.cold)

    config = Reads.Config(vectors=("plot",), cold=True)
    assert Reads.wants(config) == Needs(given=("item_counts",), vectors=("plot",)) and Reads.needs.vectors == ()
    assert Reads(config, Sizes(1, 1), Given()).can.cold_items and not Reads(Reads.Config(), Sizes(1, 1), Given()).can.cold_items
    assert not Reads.can.cold_items
    assert System.wants(System.Config()) == System.needs
