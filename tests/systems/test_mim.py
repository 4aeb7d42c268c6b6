"""MIM by the checks of its card that hand values allow."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitrail.data.batchers_rows import gather
from vitrail.testing_rank import toy_ranker, toy_rows


def batch_of(length=2, long=4, n=40):
    return gather(toy_rows(n), np.arange(n), length, long)


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
