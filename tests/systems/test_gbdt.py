"""Boosted trees as a ranker: columns, the checks of the card that need no data, and the artifact."""

import sys

import numpy as np
import pytest
import torch

from vitrail.data.fields import Field
from vitrail.errors import ResourceError, SettingError
from vitrail.evaluation.binary import chosen_by
from vitrail.testing_rank import tiny, tiny_batch, tiny_rows

pytest.importorskip("lightgbm")

SCORE = [Field(name="retrieval score", whose="event", kind="number", codes=22, edges=list(range(19)))]
SMALL = {"least": 1, "leaves": 4, "rounds": 30, "columns": 1.0, "patience": 0}


def measure(labels, scores, users):
    return chosen_by("auc", labels, scores, users)


def fitted(rows, **changed):
    model = tiny("lightgbm", fields=SCORE, **(SMALL | changed))
    model.learn(rows, rows, measure)
    return model


def scored(n=400):
    """Rows whose one number is the score of a retriever."""
    return tiny_rows(n, codes=22, fields=1)


def test_columns_by_hand():
    vectors = torch.tensor([[1.0, 0], [2, 0], [0, 3], [1, 1], [0, 1], [0, 0], [-1, 0], [5, 5]])
    model = tiny("lightgbm", fields=SCORE, vectors={"text": vectors}, masks={"text": torch.arange(8) != 5}, most_values=4)
    assert model.names[:3] == ["category", "city", "retrieval score"] and model.names[3:6] == ["tags: 2", "tags: 3", "tags: 4"]
    assert model.names[6:] == ["times in history", "text: nearest", "text: mean", "text: newest"] and model.categorical == [0, 1]
    rows = tiny_rows(12, codes=22)
    X = model.matrix(tiny_batch(rows)).numpy()
    unit = (vectors / vectors.norm(dim=1, keepdim=True)).numpy()
    for r in range(12):
        item, user = int(rows.items[r]), int(rows.users[r])
        history = rows.log.items[rows.log.indptr[user] : rows.stops[r]]
        code = int(rows.fields[r, 0])
        assert X[r, 0] == item % 2 + 2 and X[r, 3:6].tolist() == ([1, 1, 0] if item % 2 == 0 else [0, 0, 1])
        np.testing.assert_equal(X[r, 1:3], [[2, 3, 2, np.nan][user], code if code > 1 else np.nan])
        assert X[r, 6] == (history == item).sum()
        cosines = [float(unit[item] @ unit[i]) for i in history if i != 5 and item != 5]
        wanted = [max(cosines), np.mean(cosines), cosines[-1]] if cosines else [np.nan] * 3
        np.testing.assert_allclose(X[r, 7:], wanted, atol=1e-6)


def test_what_has_too_many_values_is_no_column():
    assert tiny("lightgbm", most_values=2).names == ["category", "city", "slot", "times in history"]


def test_a_single_rising_column_keeps_the_order_of_retrieval():
    rows = scored()
    rows.labels[:] = rows.fields[:, 0] + np.random.default_rng(1).normal(size=400) * 8 > 11
    model = fitted(rows, rising=["retrieval score"], attributes=[])
    grid = torch.full((22, len(model.names)), 3.0)
    grid[:, model.names.index("retrieval score")] = torch.arange(22.0)
    model.matrix = lambda batch: grid
    assert bool((model.logit(None).diff() >= 0).all())
    free = fitted(rows, leaves=16)
    free.matrix = model.matrix
    assert bool((free.logit(None).diff() < 0).any())


def test_lambdarank_learns_what_stands_beside_what():
    rows = scored()
    rows.labels[:] = rows.fields[:, 0] > 15
    model = fitted(rows, objective="lambdarank")
    assert chosen_by("gauc", rows.labels, model.predict(rows).numpy(), rows.users) > 0.95


def test_growth_is_chosen_by_the_measure_of_the_house():
    rows = scored()
    assert fitted(rows, patience=1).text.numel() > 0
    asked = []
    model = tiny("lightgbm", fields=SCORE, **(SMALL | {"patience": 5}))
    steps = model.learn(rows, rows, lambda labels, scores, users: asked.append(len(labels)) or -len(asked))
    assert steps == 1 and asked == [400] * 6
    alone = tiny("lightgbm", fields=SCORE, **SMALL)
    assert alone.learn(rows) == 30


def test_saved_text_answers_as_before():
    rows = scored()
    model, again = fitted(rows), tiny("lightgbm", fields=SCORE, **SMALL)
    again.restore(model.state_dict())
    assert torch.equal(model.predict(rows), again.predict(rows)) and model.text.dtype == torch.uint8
    assert type(model).memory(model.config, model.sizes, 100) > 0


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(SettingError, match='There is no column "retrieval scor"'):
        tiny("lightgbm", fields=SCORE, rising=["retrieval scor"])


def test_without_the_library_it_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ResourceError, match="Boosted trees need lightgbm"):
        tiny("lightgbm")
