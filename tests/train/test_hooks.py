"""The three hooks: a loss, something redrawn each epoch, something held after each step; all of it survives a stop."""

import numpy as np
import pytest
import torch

from vitrail.data.log import Log
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.bpr_mf import BPRMF
from vitrail.systems.sequential.sasrec import SASRec
from vitrail.train.checkpoint import Checkpoints
from vitrail.train.loop import train

LOG = Log(np.array([0, 3, 6, 8]), np.array([0, 1, 2, 2, 3, 4, 5, 0], dtype=np.int32), 6)


class Masked(BPRMF):
    """Draws a mask over items each epoch and holds the masked rows at zero."""

    def build(self, config, sizes, given):
        super().build(config, sizes, given)
        self.register_buffer("mask", torch.ones(sizes.items, 1))
        self.drawn = []

    def on_epoch(self, epoch, rng):
        self.mask.copy_(torch.from_numpy(rng.random((len(self.mask), 1)) > 0.3))
        self.drawn.append((epoch, self.mask.flatten().tolist()))

    def after_step(self, parameters):
        with torch.no_grad():
            self.items *= self.mask


def make(cls=Masked):
    torch.manual_seed(0)
    return cls(cls.Config(dim=4, batch=2, epochs=4, checkpoint_seconds=0.0), Sizes(3, 6), Given.of(LOG, cls.needs))


def test_the_mask_is_redrawn_and_held():
    model = make()
    train(model, LOG, model.config, seed=0, validate=None)
    assert [epoch for epoch, _ in model.drawn] == [0, 1, 2, 3]
    assert len({tuple(mask) for _, mask in model.drawn}) > 1
    assert not (model.items * (1 - model.mask)).any()


def test_a_stop_in_the_middle_of_an_epoch_does_not_redraw(tmp_path):
    whole = make()
    train(whole, LOG, whole.config, seed=0, validate=None)

    class Stopping(Masked):
        steps = 0

        def after_step(self, parameters):
            super().after_step(parameters)
            Stopping.steps += 1
            if Stopping.steps == 7:
                raise KeyboardInterrupt

    stopped = make(Stopping)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, LOG, stopped.config, seed=0, validate=None, checkpoints=Checkpoints(tmp_path))
    resumed = make()
    done = train(resumed, LOG, resumed.config, seed=0, validate=None, checkpoints=Checkpoints(tmp_path), resume=True)
    assert done.resumed and [epoch for epoch, _ in resumed.drawn] == [2, 3]
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))


@pytest.mark.parametrize("precision", ["bf16", "fp32", "auto"])
def test_number_formats(precision):
    torch.manual_seed(0)
    settings = SASRec.Config(dim=8, length=4, epochs=2, batch=2, precision=precision)
    model = SASRec(settings, Sizes(3, 6), Given())
    curve = train(model, LOG, settings, seed=0, validate=None).progress.curve
    assert np.isfinite([record["loss"] for record in curve]).all()
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_bf16_stays_near_fp32():
    losses = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        settings = SASRec.Config(dim=8, length=4, epochs=1, batch=4, precision=precision, dropout=0.0)
        model = SASRec(settings, Sizes(3, 6), Given())
        losses[precision] = train(model, LOG, settings, seed=0, validate=None).progress.curve[0]["loss"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-2) and losses["bf16"] != losses["fp32"]
