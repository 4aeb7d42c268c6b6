"""DiffuMIN by the checks of its card that hand values allow; its schedule is checked in tests/blocks/test_diffusion.py."""

import math

import numpy as np
import pytest
import torch

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
