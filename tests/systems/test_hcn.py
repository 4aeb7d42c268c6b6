"""HCN by the checks of its card that hand values allow; how centres compete is checked in tests/blocks/test_multi_interest.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.data.batchers_rows import gather
from vitrail.testing_rank import toy_ranker, toy_rows


def batch_of(length=2, long=4, n=40):
    return gather(toy_rows(n), np.arange(n), length, long)


@pytest.mark.parametrize("settings", [{}, {"routing": "attention", "read": "softmax", "apart": 0.1}, {"routing": "capsules"}])
def test_hcn_trains_and_reads_no_target_before_the_inner_product(settings):
    model, batch = toy_ranker("hcn", length=2, long=4, interests=2, **settings), batch_of()
    model.train().loss(batch).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
    other = replace(batch, items=(batch.items + 1) % 8)
    torch.testing.assert_close(model._read(batch)[1], model._read(other)[1])


def test_hcn_without_a_short_history_is_the_long_one():
    model, batch = toy_ranker("hcn", length=2, long=4, interests=2), batch_of()
    interests, there = model.interests(model.look(batch), 0)
    look = model.look(batch)
    places, mask = look.windows.places()
    alone = model.of_long(F.embedding(look.events[places], look.values), mask)
    assert not there[:, 2:].any()
    torch.testing.assert_close(interests[there].view(-1, 2, 12), alone[mask.any(1)])
    nobody = replace(batch, mask=torch.zeros_like(batch.mask), long=replace(batch.long, stops=batch.long.starts))
    assert bool(torch.isfinite(model.logit(nobody)).all())


def test_hcn_takes_the_nearest_interest():
    model, batch = toy_ranker("hcn", length=2, long=4, interests=2), batch_of()
    look = model.look(batch)
    interests, there = model.interests(look, 2)
    others = model.features.others(batch.users, batch.fields).flatten(1)
    for b in range(40):
        w = int(batch.long.of[b])
        near = [((interests[w, k] + model.person(others[b])) @ look.target[b]).item() for k in range(4) if there[w, k]]
        wanted = (max(near) if near else 0.0) + model.rest(others[b]).item() + model.level[batch.items[b]].item()
        assert model.logit(batch)[b].item() == pytest.approx(wanted, abs=1e-5)
