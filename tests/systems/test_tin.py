"""TIN by the checks of its card that hand values allow."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitrail.blocks.interest import RelativeTime, TargetAttention
from vitrail.data.batchers_rows import gather
from vitrail.errors import SettingError
from vitrail.testing_rank import toy_ranker as make
from vitrail.testing_rank import toy_rows as rows


def batch_of(n=40):
    return gather(rows(n), np.arange(n), 5)


def test_hand_values():
    """e1 = [1, 0], e2 = [0, 1] (newer), v = [1, 1], p0 = [.5, 0], p1 = [0, 1], p2 = [0, 0]."""
    ago = RelativeTime("position", 3, 2, 0.0)
    with torch.no_grad():
        ago.weight[:3] = torch.tensor([[0.5, 0], [0, 1], [0, 0]])
    events = torch.tensor([[[1.0, 0], [0, 1]]])
    ids = ago.ids(torch.tensor([[0, 1]]), torch.tensor([[2]]), None, None)
    assert ids.tolist() == [[2, 1]]
    timed, target = events + ago(ids), torch.tensor([[1.0, 1]]) + ago(torch.tensor([0]))
    assert timed.tolist() == [[[1, 0], [0, 2]]] and target.tolist() == [[1.5, 1]]
    attention, mask = TargetAttention(2, "dot", "softmax", scale=True), torch.ones(1, 2, dtype=torch.bool)
    rows_ = torch.tensor([0, 0])
    torch.testing.assert_close(attention.scores(target, timed[0], rows_, True)[:, 0] * attention.scale, torch.tensor([1.06066, 1.414214]))
    torch.testing.assert_close(attention.weigh(target, timed[0], mask, rows_, True)[:, 0], torch.tensor([0.412521, 0.587479]), atol=1e-6, rtol=0)
    interest = attention(target, timed, mask) * target
    torch.testing.assert_close(interest, torch.tensor([[0.618781, 1.174958]]), atol=1e-6, rtol=0)


def test_pooling_then_multiplying_is_multiplying_then_pooling():
    model, batch = make("tin"), batch_of()
    target, events = model.timed(batch)
    row = batch.mask.nonzero()[:, 0]
    weights = model.attention.weigh(target, events, batch.mask, row, False)
    later = torch.zeros_like(target).index_add(0, row, weights * (events * target[row]))
    torch.testing.assert_close(model.attention.packed(target, events, batch.mask) * target, later, atol=1e-6, rtol=1e-5)


def test_order_counts_only_by_the_vectors_of_time():
    batch = batch_of()
    full = batch.mask.all(1)
    turned = replace(batch, history=torch.where(full[:, None], batch.history.flip(1), batch.history))
    model = make("tin")
    assert not torch.allclose(model.logit(turned)[full], model.logit(batch)[full])
    with torch.no_grad():
        model.ago.weight.zero_()
    torch.testing.assert_close(model.logit(turned), model.logit(batch))
    torch.testing.assert_close(make("tin", time="none").logit(turned), make("tin", time="none").logit(batch))


def test_positions_hang_on_the_real_events_alone():
    model, batch = make("tin", form="released"), batch_of()
    more = {key: torch.nn.functional.pad(getattr(batch, key), (0, 7)) for key in ("history", "mask")}
    torch.testing.assert_close(model.logit(replace(batch, **more)), model.logit(batch))
    clamped = RelativeTime("position", 3, 2, 1.0)
    assert clamped.ids(torch.tensor([0, 9]), torch.tensor([10, 10]), None, None).tolist() == [3, 1]


def test_intervals():
    ago = RelativeTime("interval", 3, 2, 1.0)
    second = 1_000_000
    ids = ago.ids(torch.zeros(5, dtype=torch.long), torch.ones(5), torch.tensor([10, 10, 10, 10, 40]) * second, torch.tensor([10, 11, 13, 2**40, 20]) * second)
    assert ids.tolist() == [1, 2, 3, 32, 1]
    assert ago.ids(torch.zeros(2, dtype=torch.long), torch.ones(2), None, None).tolist() == [33, 33] and not ago.weight[-1].any()
    with pytest.raises(SettingError, match="without clock times"):
        make("tin", time="interval")
