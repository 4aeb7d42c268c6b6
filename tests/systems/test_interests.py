"""DiffuMIN, HCN and MIM by the checks of their cards that hand values allow."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.data.batchers_rows import gather
from vitrail.errors import SettingError
from vitrail.testing_rank import toy_ranker, toy_rows

DIFFUMIN = {"channels": 3, "long": 4, "length": 2, "noise_steps": 20, "draw_steps": 2, "layers": 1, "activation": "relu"}


def batch_of(length=2, long=4, n=40):
    return gather(toy_rows(n), np.arange(n), length, long)


def windows_of(n=40, long=4):
    rows = toy_rows(n)
    return [torch.from_numpy(rows.log.items[max(rows.starts[b], rows.stops[b] - long) : rows.stops[b]].astype(np.int64)) for b in range(n)]


def test_every_event_goes_to_one_channel_and_is_kept():
    model, batch = toy_ranker("diffumin", **DIFFUMIN), batch_of()
    channels, found = model.interests(model.look(batch))
    torch.testing.assert_close(channels.transpose(1, 2) @ channels, torch.eye(3).expand(40, 3, 3), atol=1e-5, rtol=0)
    for b, items in enumerate(windows_of()):
        events = model.features.item(items)
        near = events @ channels[b]
        wanted = torch.stack([(near[:, c : c + 1] * (near.argmax(1) == c)[:, None] * events).sum(0) for c in range(3)]) / max(len(items), 1)
        torch.testing.assert_close(found[b], wanted, atol=1e-5, rtol=1e-4)
    single = toy_ranker("diffumin", **(DIFFUMIN | {"channels": 1}))
    channel, one = single.interests(single.look(batch))
    events = single.features.item(windows_of()[0])
    torch.testing.assert_close(one[0, 0], ((events @ channel[0]) * events).mean(0) if len(events) else torch.zeros(12), atol=1e-5, rtol=1e-4)


def test_a_channel_keeps_so_many():
    model, batch = toy_ranker("diffumin", **(DIFFUMIN | {"channels": 1, "chosen": 1})), batch_of()
    channel, found = model.interests(model.look(batch))
    b, items = next((b, items) for b, items in enumerate(windows_of()) if len(items) > 2)
    events = model.features.item(items)
    near = (events @ channel[b]).squeeze(1)
    torch.testing.assert_close(found[b, 0], near.max() * events[near.argmax()] / len(items), atol=1e-6, rtol=1e-4)


def test_answers_do_not_hang_on_chance_and_training_does():
    model, batch = toy_ranker("diffumin", **DIFFUMIN), batch_of()
    torch.testing.assert_close(model.logit(batch), model.logit(batch), rtol=0, atol=0)
    model.train()
    assert not torch.equal(model.logit(batch), model.logit(batch))
    model.loss(batch).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in [*model.denoiser.parameters(), *model.heads.parameters(), *model.encoder.parameters()] if p.requires_grad)
    released = toy_ranker("diffumin", output="noise", **DIFFUMIN)
    assert bool(torch.isfinite(released.logit(batch)).all())


def test_without_its_losses_nothing_is_drawn():
    model = toy_ranker("diffumin", diffusion=0.0, contrast=0.0, **DIFFUMIN)
    assert not hasattr(model, "denoiser")
    model.loss(batch_of()).backward()
    with pytest.raises(SettingError, match="channels=99 must be at most the width 12"):
        toy_ranker("diffumin", **(DIFFUMIN | {"channels": 99}))
    with pytest.raises(SettingError, match="draw_steps=99 must be at most noise_steps=20"):
        toy_ranker("diffumin", **(DIFFUMIN | {"draw_steps": 99}))


def test_contrast_of_a_person_with_themselves():
    """Identical pairs and orthogonal people: ln(1 + (B - 1) exp(-1 / .05))."""
    from vitrail.blocks.loss import info_nce

    assert info_nce(torch.eye(4), torch.eye(4), 0.05).item() == pytest.approx(math.log(1 + 3 * math.exp(-20)), abs=1e-8)


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


def test_mim_without_content_is_din():
    batch = batch_of()
    mim, din = toy_ranker("mim", content=False), toy_ranker("din")
    din.load_state_dict(mim.state_dict())
    assert torch.equal(mim.logit(batch), din.logit(batch))
    assert torch.equal(mim.loss(batch), din.loss(batch))


def test_the_histogram_of_mim():
    model = toy_ranker("mim")
    counts = torch.expm1(model.histogram(torch.tensor([[0.95, 0.4, 0.41, -0.5, 1.0]]), torch.tensor([[True, True, True, True, False]])))
    torch.testing.assert_close(counts, torch.tensor([[1.0, 0, 0, 0, 2, 0, 0, 0, 0, 1]]))


def test_the_contrast_of_mim():
    """Without a memory it is in-batch; where nothing is told apart it is ln(1 + negatives)."""
    batch = batch_of()
    model = toy_ranker("mim", memory=0, temperature=1e9)
    rows = (batch.labels > 0.5) & batch.mask.any(1)
    before = batch.history[rows, batch.mask[rows].sum(1) - 1]
    wanted = [math.log(1 + int((before != item).sum())) for item in before]
    assert model.contrast(batch).item() == pytest.approx(float(np.mean(wanted)), abs=1e-5)
    held = toy_ranker("mim", memory=30, temperature=1e9)
    held.contrast(batch)
    assert int(held.queued) == len(before)
    twice = [math.log(1 + 2 * int((before != item).sum())) for item in before]
    assert held.contrast(batch).item() == pytest.approx(float(np.mean(twice)), abs=1e-5) and int(held.queued) == min(2 * len(before), 30)
    assert model.contrast(replace(batch, labels=torch.zeros(40))).item() == 0.0
    held.train().loss(batch).backward()
    assert held.project.weight.grad.any()


def test_mim_reads_content_of_what_it_never_met():
    """Two items with one content and the same fields answer alike in the parts that content makes."""
    model, batch = toy_ranker("mim"), batch_of()
    assert model.seen(torch.tensor([0])).any() and model.seen(torch.arange(8)).norm(dim=1).max().item() == pytest.approx(1.0)
    nobody = replace(batch, mask=torch.zeros_like(batch.mask))
    assert bool(torch.isfinite(model.logit(nobody)).all())
