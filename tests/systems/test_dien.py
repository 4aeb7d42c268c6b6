"""DIEN by the checks of its card that hand values allow; the cells are checked in tests/blocks/test_recurrent.py."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitrail.data.batchers_rows import gather
from vitrail.testing_rank import toy_ranker as make
from vitrail.testing_rank import toy_rows as rows


def batch_of(n=40):
    return gather(rows(n), np.arange(n), 5)


def test_padding_changes_nothing_and_order_does():
    model, batch = make("dien", activation="relu"), batch_of()
    logits = model.logit(batch)
    more = {key: torch.nn.functional.pad(getattr(batch, key), (0, 3)) for key in ("history", "mask")}
    torch.testing.assert_close(model.logit(replace(batch, **more)), logits)
    full = batch.mask.all(1)
    turned = replace(batch, history=torch.where(full[:, None], batch.history.flip(1), batch.history))
    assert not torch.allclose(model.logit(turned)[full], logits[full])


def test_the_auxiliary_loss_is_2_ln_2_where_it_knows_nothing():
    model, batch = make("dien").train(), batch_of()
    with torch.no_grad():
        for parameter in model.foresees.parameters():
            parameter.zero_()
    _, events, states = model._read(batch)
    assert model.auxiliary(events, states, batch.mask).item() == pytest.approx(2 * math.log(2), abs=1e-6)
    short = batch.mask & (torch.arange(batch.mask.shape[1]) < 1)
    assert float(model.auxiliary(events, states, short)) == 0.0  # no next event to foresee


def test_loss_is_the_log_loss_and_so_much_of_the_auxiliary_loss():
    model, batch = make("dien", auxiliary=0.5), batch_of()
    torch.manual_seed(3)
    whole = float(model.loss(batch).detach())
    torch.manual_seed(3)
    _, events, states = model._read(batch)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(model.logit(batch), batch.labels)
    assert whole == pytest.approx(float((plain + 0.5 * model.auxiliary(events, states, batch.mask)).detach()), rel=1e-5)
    assert make("dien", auxiliary=0.0).foresees is None


@pytest.mark.parametrize("cell", ["augru_released", "agru", "aigru", "gru"])
def test_slots_train(cell):
    model = make("dien", cell=cell, attention="mlp", attention_hidden=[6]).train()
    model.loss(batch_of()).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
    none = batch_of()
    none = replace(none, mask=torch.zeros_like(none.mask))
    assert bool(torch.isfinite(model.logit(none)).all())
