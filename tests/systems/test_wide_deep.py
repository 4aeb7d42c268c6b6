"""Wide & Deep: the checks of its card."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitrail.data.fields import Field
from vitrail.errors import SettingError
from vitrail.testing_rank import tiny, tiny_batch, tiny_rows

TWO = [Field(name=name, whose="event", kind="category", codes=4, values=["0", "1"]) for name in "ab"]


def silent(*parts):
    for part in parts:
        for p in part.parameters():
            torch.nn.init.zeros_(p)


def test_the_sum_of_both_halves_by_hand():
    """Bias -.1, active weights .3 and .2, a deep logit of .6: z = 1, p = .731059, the loss of a success .313262."""
    model, batch = tiny("wide-deep"), tiny_batch(tiny_rows(1))
    silent(model.linear, model.deep)
    with torch.no_grad():
        model.linear.bias.fill_(-0.1)
        model.linear.features.of_items.weight[batch.items + 2] = 0.3
        model.linear.features.of_events.weight[batch.fields[0]] = 0.2
        model.deep.layers[-1].bias.fill_(0.6)
    assert float(model.logit(batch).detach()) == pytest.approx(1.0)
    assert float(model.loss(replace(batch, labels=torch.ones(1))).detach()) == pytest.approx(0.313262, abs=1e-6)
    assert float(model.calibrator(model.logit(batch).detach())) == pytest.approx(0.731059, abs=1e-6)


def test_a_silent_half_leaves_the_other():
    model, batch = tiny("wide-deep", crosses=[["category", "slot"]]), tiny_batch()
    torch.nn.init.normal_(model.linear.features.of_items.weight)
    torch.nn.init.normal_(model.crosses[0])
    whole, wide = model.logit(batch), model.linear(batch.items, batch.users, batch.fields) + model.crossed(batch)
    silent(model.deep)
    torch.testing.assert_close(model.logit(batch), wide)
    other = tiny("wide-deep", crosses=[["category", "slot"]])
    torch.testing.assert_close(other.logit(batch), whole - wide)  # its wide half starts at 0


def test_one_loss_goes_through_both_halves():
    """The gradient of both biases is the mean of p - y."""
    model, batch = tiny("wide-deep"), tiny_batch()
    wanted = (torch.sigmoid(model.logit(batch)) - batch.labels).mean()
    model.train().loss(batch).backward()
    torch.testing.assert_close(model.linear.bias.grad, wanted)
    torch.testing.assert_close(model.deep.layers[-1].bias.grad, wanted[None])


def fitted_loss(train, lr=0.1, **settings):
    """The loss on XOR after 200 steps on the parameters that `train` picks."""
    model = tiny("wide-deep", fields=TWO, history=False, hidden=[32], dim=4, **settings).train()
    silent(model.linear)
    four = tiny_rows(4, fields=2)
    codes = np.array([[2, 2], [2, 3], [3, 2], [3, 3]], dtype=np.int32)
    labels = np.array([0, 1, 1, 0], dtype=np.float32)
    batch = tiny_batch(replace(four, users=four.users * 0, items=four.items * 0, stops=four.stops * 0, fields=codes, labels=labels))
    for name, p in model.named_parameters():
        p.requires_grad_(any(name.startswith(start) for start in train))
        if name.startswith("deep") and "deep" not in train:
            torch.nn.init.zeros_(p)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(200):
        optimiser.zero_grad()
        loss = model.loss(batch)
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def test_what_is_true_of_two_fields_together_needs_a_cross_or_the_mlp():
    """XOR: weights of fields cannot go below ln 2; with the crossed values, and by the MLP alone, the loss vanishes."""
    assert fitted_loss(["linear"]) == pytest.approx(math.log(2), abs=1e-4)
    assert fitted_loss(["linear", "crosses"], crosses=[["a", "b"]], cross_space=1000) < 0.01
    assert fitted_loss(["deep", "features"], lr=0.03) < 0.01


def test_a_cross_with_a_value_that_is_missing_or_unseen_weighs_nothing():
    model = tiny("wide-deep", fields=TWO, crosses=[["a", "b"], ["city", "category", "a"]], cross_space=50)
    for weights in model.crosses:
        torch.nn.init.ones_(weights)
    rows = tiny_rows(3, fields=2)
    rows = replace(rows, users=rows.users * 0, stops=rows.stops * 0, fields=np.array([[2, 3], [1, 3], [2, 0]], dtype=np.int32))
    assert model.crossed(tiny_batch(rows)).tolist() == [2.0, 0.0, 1.0]


def test_crosses_that_cannot_be_are_sentences():
    with pytest.raises(SettingError, match='There is no field of one value "tags"'):
        tiny("wide-deep", crosses=[["tags", "city"]])
    with pytest.raises(SettingError, match="made of at least two fields"):
        tiny("wide-deep", crosses=[["city", "city"]])
