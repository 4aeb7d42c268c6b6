"""AdamW against PyTorch's own, state included."""

import pytest
import torch
from torch import nn

from vitrail.blocks import embed
from vitrail.train import optimise
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


@pytest.mark.parametrize("block", [4, 6, optimise.BLOCK])
def test_a_gradient_that_holds_some_rows_steps_as_a_whole_one_does(block, monkeypatch):
    monkeypatch.setattr(optimise, "BLOCK", block)  # a row at a time, two, all
    whole, few = (nn.Parameter(torch.arange(14.0).view(7, 2).sin()) for _ in range(2))
    a, b = AdamW([whole], weight_decay=0.1), AdamW([few], weight_decay=0.1)
    for step in range(4):
        codes = torch.tensor([0, 2 + step, 6][: 3 - step % 2])
        for table in (whole, few):
            read = embed.few_rows(table, codes) if table is few else table[codes]
            (read.square() * (step + 1)).sum().backward()
        assert few.grad.is_sparse and few.grad._values().shape == (len(codes), 2)
        a.step(0.1)
        b.step(0.1)
        a.clear()
        b.clear()
        assert torch.equal(whole, few)
    assert all(torch.equal(x, y) for x, y in zip(a.tensors().values(), b.tensors().values(), strict=True))


def test_a_gradient_of_some_rows_is_made_whole_where_that_is_asked():
    table = nn.Parameter(torch.ones(4, 2))
    (embed.few_rows(table, torch.tensor([1])) + embed.few_rows(table, torch.tensor([3]))).sum().backward()
    AdamW([table]).fill()
    assert table.grad.tolist() == [[0, 0], [1, 1], [0, 0], [1, 1]]
