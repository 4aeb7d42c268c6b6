"""QIN by the checks of its card that hand values allow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.blocks.interest import TargetAttention
from vitrail.data.batchers_rows import gather
from vitrail.testing_rank import toy_ranker, toy_rows


def batch_of(length=2, long=4, n=40, weights=False):
    return gather(toy_rows(n, weights), np.arange(n), length, long)


def test_sparse_attention():
    """s = [2, -1, 1] over [1, 0], [0, 1], [1, 1] is [3, 1]; scores of 0 and less leave the target alone."""
    attention = TargetAttention(2, "multihead", "relu", inner=2)
    with torch.no_grad():
        for layer in (attention.of_query, attention.of_key, attention.of_value, attention.out):
            layer.weight.copy_(torch.eye(2))
    events, mask = torch.tensor([[[1.0, 0], [0, 1], [1, 1]]]), torch.ones(1, 3, dtype=torch.bool)
    torch.testing.assert_close(attention(torch.tensor([[2.0, -1.0]]), events, mask), torch.tensor([[3.0, 1.0]]))
    assert not attention(-torch.ones(1, 2), events, mask).any()


@pytest.mark.parametrize("vectors", [(), ("text",)])
def test_qin_without_a_history_reads_the_target(vectors):
    model = toy_ranker("qin", vectors=vectors, attention_dim=6, layers=2)
    batch = batch_of()
    target, summed = model.attended(batch)
    empty = ~batch.mask.any(1)
    assert torch.equal(summed[empty], target[empty]) and target.shape[1] == 12 + 4 * len(vectors)
    model.train().loss(batch).backward()
    assert all(p.grad is not None for p in model.attention.parameters())
    padded = replace(batch, history=F.pad(batch.history, (0, 2)), mask=F.pad(batch.mask, (0, 2)))
    torch.testing.assert_close(model.eval().logit(padded), model.logit(batch))
