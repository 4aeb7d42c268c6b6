"""Checks of the card sequential/bert4rec that hand values allow. The number of masks is checked with the batcher."""

import math

import numpy as np
import pytest
import torch

from vitrail.data.batches import Sequences, Sets
from vitrail.data.log import Log
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes
from vitrail.systems.sequential.bert4rec import BERT4Rec
from vitrail.systems.sequential.sasrec import SASRec

ITEMS = 30
MASK = ITEMS


def make(cls=BERT4Rec, items=ITEMS, **settings):
    torch.manual_seed(0)
    return cls(cls.Config(**({"dim": 8, "heads": 2, "length": 10} | settings)), Sizes(5, items), Given()).eval()


def sequence(*items, width=None):
    width = width or len(items)
    row = torch.zeros(1, width, dtype=torch.int64)
    row[0, : len(items)] = torch.tensor(items)
    return Sequences(torch.tensor([-1]), row, torch.arange(width)[None] < len(items))


def test_it_sees_both_sides():
    model = make()
    a, b = model.encode(sequence(1, MASK, 3, 4)), model.encode(sequence(1, MASK, 3, 9))
    assert not torch.allclose(a[0, 1], b[0, 1])
    model.body.causal = True
    a, b = model.encode(sequence(1, MASK, 3, 4)), model.encode(sequence(1, MASK, 3, 9))
    torch.testing.assert_close(a[0, 1], b[0, 1], atol=0, rtol=0)


def test_padding_changes_nothing():
    model = make()
    short, long = model.encode(sequence(1, 2, MASK)), model.encode(sequence(1, 2, MASK, width=8))
    torch.testing.assert_close(short[0], long[0, :3])


def test_causal_with_one_mask_at_the_end_it_is_sasrec():
    bert = make(head=False, bias=False)
    sasrec = make(SASRec, items=ITEMS + 1, norm="post", activation="gelu", inner=32, scale=False)
    sasrec.items.load_state_dict(bert.items.state_dict())
    sasrec.body.load_state_dict(bert.body.state_dict())
    bert.body.causal = True
    bert.prepare()
    history = Sets(torch.tensor([-1]), torch.tensor([0, 3]), torch.tensor([4, 9, 7]))
    last = sasrec.encode(sequence(4, 9, 7, MASK))[0, 3]
    torch.testing.assert_close(bert.scores(history)[0], sasrec.items.weight[:ITEMS] @ last)


def test_equal_logits_give_the_loss_of_ignorance_over_items_without_the_mask():
    model = make()
    with torch.no_grad():
        model.items.weight[:ITEMS] = 0
    log = Log(np.array([0, 5]), np.array([1, 2, 3, 4, 5], dtype=np.int32), ITEMS)
    batch = next(model.batcher(log, 0, 0, 1).epoch(0))
    assert (batch.items == MASK).any()
    assert float(model.loss(batch).detach()) == pytest.approx(math.log(ITEMS), abs=1e-5)


def test_the_mask_is_never_a_candidate_and_biases_count():
    model = make()
    with torch.no_grad():
        model.biases[7] = 50.0
    model.prepare()
    scores = model.scores(Sets(torch.tensor([-1]), torch.tensor([0, 2]), torch.tensor([4, 9])))
    assert scores.shape == (1, ITEMS) and scores.argmax() == 7
    near = model.similarity(torch.tensor([3]))
    assert near[0].argmax() == 3 and near.max() <= 1 + 1e-6


def test_a_long_history_leaves_room_for_the_mask():
    model = make()
    model.prepare()
    long, short = (Sets(torch.tensor([-1]), torch.tensor([0, n]), torch.arange(20 - n, 20)) for n in (20, 9))
    torch.testing.assert_close(model.scores(long), model.scores(short))


def test_settings_that_cannot_be_are_sentences():
    with pytest.raises(SettingError, match="use cloze"):
        make(target="shifted")
    with pytest.raises(SettingError, match="does not divide"):
        make(heads=3)
    with pytest.raises(SettingError, match="bias=false"):
        make(cosine=True)
