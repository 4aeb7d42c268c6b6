"""One person's candidates: a history given once, with everything that hangs on it worked out once, answers as a history a row does."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from vitrail.data.batchers_rows import gather
from vitrail.data.batches import Sets
from vitrail.systems import registry
from vitrail.testing_rank import TOY, toy_ranker

RANKERS = [name for name in registry.names() if registry.card(name).stage == "rank" and registry.find(name).trained]
SLOTS = [
    *((name, {}) for name in RANKERS),
    ("din", {"attention": "dot", "weights": "softmax", "attention_scale": True}),
    ("din", {"attention": "bilinear", "weights": "relu"}),
    ("din", {"attention": "multihead", "heads": 2}),
    ("din", {"attention": "mean", "activation": "relu"}),
    *(("dien", {"cell": cell, "attention": "mlp"}) for cell in ("augru_released", "agru", "aigru", "gru")),
    ("sim", {"search": "hard", "category": "category"}),
    ("sim", {"attention": "mlp"}),
    ("muse", {"store": "float32", "vectors": ["text"]}),
    ("dare", {"decoupled": False}),
    ("qin", {"vectors": ["text"]}),
    ("tin", {"form": "released"}),
]


def model_of(name, settings):
    long = {"long": 40, "chosen": 2} if "long" in registry.find(name).Config.model_fields else {}
    fields = registry.find(name).Config.model_fields
    model = toy_ranker(name, signal=True, **{key: value for key, value in (long | settings).items() if key in fields})
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def histories(events):
    rng = np.random.default_rng(0)
    items, signals = rng.integers(0, TOY, events), rng.random(events).astype(np.float32)
    return Sets(torch.tensor([1]), torch.tensor([0, events]), torch.from_numpy(items), None, torch.from_numpy(signals))


def plain(model, asked, candidates, context):
    """As rankers that do not share are asked: the history copied to each row."""
    rows = model.rows_at(asked, candidates, None, context)
    batch = gather(rows, np.arange(len(rows)), model.config.length, model.config.searched)
    with torch.no_grad():
        return model.logit(replace(batch, users=asked.users.repeat_interleave(candidates.shape[1])))[None]


@pytest.mark.parametrize(("name", "settings"), SLOTS)
def test_a_history_given_once_answers_as_one_a_row(name, settings):
    model = model_of(name, settings)
    assert model.shares
    for events in (0, 1, 4, 30):
        for K in (1, 9):
            asked, candidates = histories(events), torch.arange(K)[None] % TOY
            context = {"slot": pl.Series(["left", "right", None, "else"] * 3)[:K]}
            found = model.score(asked, candidates, context=context, raw=True)
            torch.testing.assert_close(found, plain(model, asked, candidates, context), rtol=1e-5, atol=1e-5)


def test_rows_are_answered_in_parts(monkeypatch):
    model, asked, candidates = model_of("din", {}), histories(4), torch.arange(TOY)[None]
    whole = model.score(asked, candidates)
    monkeypatch.setattr("vitrail.systems.ranker.ROWS", 3)
    torch.testing.assert_close(model.score(asked, candidates), whole)
