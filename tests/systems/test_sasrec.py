"""Checks of the card sequential/sasrec that hand values allow; numbers on Beauty are in the recipes."""

import math

import numpy as np
import pytest
import torch

from vitrail.data.batchers import SequenceBatcher
from vitrail.data.batches import Sequences, Sets
from vitrail.data.log import Log
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes
from vitrail.systems.sequential.sasrec import SASRec


def make(items=30, **settings):
    torch.manual_seed(0)
    return SASRec(SASRec.Config(**({"dim": 8, "heads": 2, "length": 10} | settings)), Sizes(5, items), Given()).eval()


def sequence(*items, width=None):
    width = width or len(items)
    row = torch.zeros(1, width, dtype=torch.int64)
    row[0, : len(items)] = torch.tensor(items)
    return Sequences(torch.tensor([-1]), row, torch.arange(width)[None] < len(items))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_causality(norm):
    model = make(norm=norm)
    a, b = sequence(1, 2, 3, 4, 5), sequence(1, 2, 9, 4, 5)
    torch.testing.assert_close(model.encode(a)[:, :2], model.encode(b)[:, :2], atol=0, rtol=0)
    assert not torch.allclose(model.encode(a)[:, 2:], model.encode(b)[:, 2:])


def test_padding_changes_nothing():
    model = make()
    short, long = model.encode(sequence(1, 2, 3, 4, 5)), model.encode(sequence(1, 2, 3, 4, 5, width=10))
    torch.testing.assert_close(short[0, 4], long[0, 4])


def log_of(*histories, items=30):
    return Log(np.concatenate([[0], np.cumsum([len(h) for h in histories])]), np.concatenate(histories).astype(np.int32), items)


@pytest.mark.parametrize(("loss", "expected"), [("bce", 2 * math.log(2)), ("full_softmax", math.log(30)), ("sampled_softmax", math.log(4))])
def test_zero_embeddings_give_the_loss_of_ignorance(loss, expected):
    model = make(loss=loss, negatives=1 if loss == "bce" else 3)
    with torch.no_grad():
        model.items.weight.zero_()
    # four distinct targets and negatives outside them, so that no negative is a target
    batch = next(model.batcher(log_of([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]), 0, 0, 1).epoch(0))
    if loss == "sampled_softmax":
        batch = Sequences(batch.users, batch.items, batch.mask, None, batch.targets, torch.tensor([20, 21, 22]))
    assert float(model.loss(batch).detach()) == pytest.approx(expected, abs=1e-5)


def test_without_body_it_is_a_first_order_chain():
    model = make(heads=1, layers=1, scale=False)
    model.body.layers = torch.nn.ModuleList()
    model.body.edge = torch.nn.Identity()
    with torch.no_grad():
        model.body.positions.weight.zero_()
        model.prepare()
        scores = model.scores(Sets(torch.tensor([-1]), torch.tensor([0, 3]), torch.tensor([4, 9, 7])))
    torch.testing.assert_close(scores[0], model.items.weight @ model.items.weight[7])


def test_the_newest_position_has_the_last_position_id():
    from vitrail.blocks.sequence import positions_from_end

    ids = positions_from_end(torch.tensor([[True, True, False], [True, True, True]]), 10)
    assert ids.tolist() == [[8, 9, 0], [7, 8, 9]]


def test_targets_are_the_next_items():
    batch = next(SequenceBatcher(log_of([1, 2, 3, 4], [5, 6]), batch=8, length=3, negatives=0, seed=0).epoch(0))
    rows = {tuple(i[m].tolist()): t[t >= 0].tolist() for i, m, t in zip(batch.items, batch.mask, batch.targets, strict=True)}
    assert rows == {(1, 2, 3): [2, 3, 4], (5,): [6]}


def test_heads_must_divide_the_width():
    with pytest.raises(SettingError, match="does not divide"):
        make(dim=10, heads=3)
    with pytest.raises(SettingError, match="causal"):
        make(target="cloze")


def test_many_histories_answer_as_each_does_alone():
    model = make(dropout=0.0)
    model.prepare()
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 15, 150)
    indptr = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]))
    histories = Sets(torch.full((150,), -1), indptr, torch.from_numpy(rng.integers(0, 30, int(indptr[-1]))))
    with torch.no_grad():
        together = model.query_vectors(histories)
        alone = torch.cat([model.query_vectors(histories.slice(row, row + 1)) for row in range(150)])
    known = histories.lengths > 0
    torch.testing.assert_close(together[known], alone[known])
