"""AdamW against PyTorch's own, state included."""

import pytest
import torch
from torch import nn

from vitrail.train.optimise import AdamW


def parameters():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(4, 6).T), nn.Parameter(torch.randn(2))]


def gradients(step, tables):
    torch.manual_seed(step)
    for n, p in enumerate(tables):
        p.grad = None if n == 2 and step % 2 else torch.randn_like(p)  # the third now and then has no part in the loss


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_steps_as_torch_does(decay):
    ours, theirs = parameters(), parameters()
    optimizer, plain = AdamW(ours, (0.8, 0.95), decay), torch.optim.AdamW(theirs, lr=0.1, betas=(0.8, 0.95), weight_decay=decay, fused=True)
    for step in range(6):
        gradients(step, ours)
        gradients(step, theirs)
        plain.param_groups[0]["lr"] = rate = 0.1 / (step + 1)
        optimizer.step(rate)
        plain.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    state = {f"{n}.{name}": value for n, values in plain.state_dict()["state"].items() for name, value in values.items()}
    assert state.keys() == optimizer.tensors().keys()
    assert all(torch.equal(state[name], value) for name, value in optimizer.tensors().items())


def test_restored_it_goes_on_as_before():
    whole, half = parameters(), parameters()
    a, b = AdamW(whole), AdamW(half)
    for step in range(4):
        gradients(step, whole)
        a.step(0.01)
        gradients(step, half)
        b.step(0.01)
        saved = {name: value.clone() for name, value in b.tensors().items()}
        b = AdamW(half)
        b.restore(saved)
    assert all(torch.equal(x, y) for x, y in zip(whole, half, strict=True))


def test_nothing_happens_without_gradients():
    tables = parameters()
    optimizer = AdamW(tables)
    gradients(0, tables)
    optimizer.clear()
    optimizer.step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(tables, parameters(), strict=True)) and optimizer.tensors() == {}
