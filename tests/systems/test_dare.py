"""DARE by the checks of its card that hand values allow."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitrail.data.batchers_rows import gather
from vitrail.testing_rank import toy_ranker, toy_rows

LONG = {"long": 4, "length": 2, "chosen": 50, "activation": "relu"}


def batch_of(length=2, long=4, n=40, weights=False):
    return gather(toy_rows(n, weights), np.arange(n), length, long)


def test_dare_scales_item_and_time_apart():
    """q = [1, 1], k = [2, 0]; time q = [1], k = [3]: 2 / sqrt 2 + 3."""
    model, batch = toy_ranker("dare", search_dim=1, **LONG), batch_of()
    look = model.look(batch)
    with torch.no_grad():
        model.deciding_ago.weight.fill_(3.0)
        model.deciding_ago.weight[0] = 1.0
    model.deciding.item = lambda items: torch.tensor([[1.0, 1.0], [2.0, 0.0]])[[0] + [1] * (len(items) - 1)]
    semantic, time = model.weighed(replace(look, at=torch.zeros_like(look.at)))
    assert (semantic[0, 1] + time[1]).item() == pytest.approx(4.414214, abs=1e-6)


def test_dare_with_one_set_of_tables_is_twin_and_its_gradient_the_sum():
    batch = batch_of()
    apart, one = toy_ranker("dare", search_dim=4, **LONG), toy_ranker("dare", decoupled=False, **LONG)
    one.load_state_dict({key: value for key, value in apart.state_dict().items() if not key.startswith("deciding")})
    known = apart.deciding.state_dict()
    same = {key: value for key, value in apart.features.state_dict().items() if key in known and value.shape == known[key].shape}
    assert {"of_items.weight", "of_lists.0.weight"} <= same.keys()
    apart.deciding.load_state_dict(same, strict=False)
    apart.deciding_ago.load_state_dict(apart.ago.state_dict())
    torch.testing.assert_close(apart.logit(batch), one.logit(batch))
    apart.loss(batch).backward()
    one.loss(batch).backward()
    both = apart.features.of_items.weight.grad + apart.deciding.of_items.weight.grad
    torch.testing.assert_close(one.features.of_items.weight.grad, both, atol=1e-7, rtol=1e-4)


def test_dare_learns_what_matters_and_what_it_means_apart():
    """Values give no gradient to the tables that decide, weights none to those that tell."""
    model, batch = toy_ranker("dare", **LONG), batch_of()
    look = model.look(batch)
    semantic, time = model.weighed(look)
    model.chosen(look, semantic.detach(), time.detach()).sum().backward(retain_graph=True)
    assert model.deciding.of_items.weight.grad is None and model.features.of_items.weight.grad.any()
    model.zero_grad()
    model.chosen(replace(look, item=lambda codes: model.features.item(codes).detach()), semantic, time).sum().backward()
    assert model.deciding.of_items.weight.grad.any() and model.features.of_items.weight.grad is None


def test_dare_with_as_many_chosen_as_events_has_one_stage():
    model, batch = toy_ranker("dare", **LONG), batch_of()
    look = model.look(batch)
    told = model.weighed(look)
    torch.testing.assert_close(model.chosen(look, *told), model.everything(look, *told), atol=1e-6, rtol=1e-4)
