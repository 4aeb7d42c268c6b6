"""Checks of the card sequential/gru4rec that hand values allow; BPR-max is checked with the losses."""

import math

import numpy as np
import pytest
import torch

from vitrail.data.batches import Sequences, Sets
from vitrail.data.log import Log
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes
from vitrail.systems.sequential.gru4rec import GRU4Rec


def make(items=30, **settings):
    torch.manual_seed(0)
    given = Given(item_counts=torch.full((items,), 3))
    return GRU4Rec(GRU4Rec.Config(**({"dim": 6, "hidden": 5, "length": 10} | settings)), Sizes(5, items), given).eval()


def sequence(*items, width=None):
    width = width or len(items)
    row = torch.zeros(1, width, dtype=torch.int64)
    row[0, : len(items)] = torch.tensor(items)
    return Sequences(torch.tensor([-1]), row, torch.arange(width)[None] < len(items))


def test_a_prefix_equals_steps_through_a_cell():
    model = make()
    cell = torch.nn.GRUCell(6, 5)
    cell.load_state_dict({name.removesuffix("_l0"): weights for name, weights in model.gru.state_dict().items()})
    history, state = [3, 8, 1, 8, 20], torch.zeros(1, 5)
    for item in history:
        state = cell(model.items.weight[item][None], state)
    torch.testing.assert_close(model.encode(sequence(*history))[0, -1], state[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(model.encode(sequence(*history, width=9))[0, 4], state[0], atol=1e-6, rtol=0)
    model.prepare()
    scores = model.scores(Sets(torch.tensor([-1]), torch.tensor([0, 5]), torch.tensor(history)))
    torch.testing.assert_close(scores[0], model.items.weight @ model.out(state[0]))


LOG = Log(np.array([0, 5, 10]), np.arange(10, dtype=np.int32), 30)


@pytest.mark.parametrize(("loss", "expected"), [("full_softmax", math.log(30)), ("sampled_softmax", math.log(5)), ("bpr_max", math.log(2))])
def test_zero_embeddings_give_no_state_and_the_loss_of_ignorance(loss, expected):
    model = make(loss=loss, negatives=4, project=False, hidden=6)
    with torch.no_grad():
        model.items.weight.zero_()
    batch = next(model.batcher(LOG, 0, 0, 1).epoch(0))
    if loss != "full_softmax":
        batch = Sequences(batch.users, batch.items, batch.mask, None, batch.targets, torch.tensor([20, 21, 22, 23]))
    assert not model.encode(batch).any()
    assert float(model.loss(batch).detach()) == pytest.approx(expected, abs=1e-5)


def test_logq_with_a_constant_popularity_changes_nothing():
    values = []
    for correct in (True, False):
        model = make(loss="sampled_softmax", negatives=4, power=0.5, correct=correct)
        batch = next(model.batcher(LOG, 0, 0, 1).epoch(0))
        values.append(float(model.loss(batch).detach()))
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_the_future_is_not_read():
    model = make(layers=2)
    a, b = model.encode(sequence(1, 2, 3, 4)), model.encode(sequence(1, 2, 9, 4))
    torch.testing.assert_close(a[:, :2], b[:, :2], atol=0, rtol=0)
    assert not torch.allclose(a[:, 2:], b[:, 2:])


def test_separate_tables():
    model = make(embedding="separate", project=False)
    assert model.item().shape == (30, 5) and model.items.weight.shape == (30, 6)


def test_settings_that_cannot_be_are_sentences():
    with pytest.raises(SettingError, match="set hidden=6"):
        make(project=False)
    with pytest.raises(SettingError, match="forward only"):
        make(target="cloze")
