"""MUSE by the checks of its card that hand values allow; its search and histogram are checked in tests/blocks/test_search.py."""

import numpy as np
import pytest
import torch

from vitrail.data.batchers_rows import gather
from vitrail.systems.ranking.muse import ToldAttention
from vitrail.testing_rank import toy_ranker, toy_rows

LONG = {"long": 4, "length": 2, "chosen": 50, "activation": "relu"}


def batch_of(length=2, long=4, n=40, weights=False):
    return gather(toy_rows(n, weights), np.arange(n), length, long)


@pytest.mark.parametrize(("b", "wanted"), [((1, 1, 1), [0.017986, 0.982014]), ((1, 0, 0), [0.731059, 0.268941]), ((0, 1, 0), [0.000911, 0.999089])])
def test_attention_that_is_told_cosines(b, wanted):
    attention = ToldAttention(2)
    with torch.no_grad():
        attention.b.copy_(torch.tensor(b, dtype=torch.float32))
    told = attention.told(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.2, 0.9]]))
    torch.testing.assert_close(torch.softmax(told, 1)[0].detach(), torch.tensor(wanted), atol=1e-6, rtol=0)


def test_muse_told_nothing_attends_and_finds_what_is_alike():
    attention, q, k = ToldAttention(4), torch.randn(3, 4), torch.randn(3, 5, 4)
    with torch.no_grad():
        attention.b.copy_(torch.tensor([1.0, 0, 0]))
    mask = torch.arange(5) < torch.tensor([[5], [3], [0]])
    weights = torch.softmax((attention.of_key(k) @ attention.of_query(q)[:, :, None])[:2, :, 0].masked_fill(~mask[:2], -1e9), 1)
    torch.testing.assert_close(attention(q, k, mask, torch.rand(3, 5))[:2], (weights[:, :, None] * attention.of_value(k)[:2]).sum(1))
    assert not attention(q, k, mask, torch.rand(3, 5))[2].any()
    model = toy_ranker("muse", **(LONG | {"chosen": 1}))
    batch = batch_of()
    units = model.frozen(torch.arange(8))
    assert model.frozen.kinds == 2 and model.frozen.get_buffer("values_0").shape == (8, 12)
    cosines = (units @ units.T)[batch.items]
    look = model.look(batch)
    from vitrail.blocks.search import best

    places, mask = best(cosines[:, look.items], look.events, look.windows, 1)
    for b in np.flatnonzero(mask[:, 0].numpy()):
        w = int(batch.long.of[b])
        window = batch.long.items[int(batch.long.starts[w]) : int(batch.long.stops[w])].long()
        assert float(cosines[b, batch.long.items[places[b, 0]].long()]) == pytest.approx(float(cosines[b, window].max()))
