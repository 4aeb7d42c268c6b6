"""Checks of the card collaborative/dsl that hand values allow; Yelp2018 needs its data."""

import numpy as np
import pytest
import torch

from vitrail.data.log import Log
from vitrail.systems import registry
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.dsl import DSL
from vitrail.train.loop import train

rng = np.random.default_rng(0)
HAVE = rng.random((20, 15)) < 0.3
LOG = Log(np.concatenate([[0], np.cumsum(HAVE.sum(1))]), np.nonzero(HAVE)[1].astype(np.int32), 15)
TOY = {"epochs": 6, "batch": 32, "lr": 0.02, "schedule": "constant"}
HOSTS = {"lightgcn": {"dim": 6}, "multvae": {"dim": 4, "hidden": 8}, "bpr-mf": {"dim": 6}}


def make(host="lightgcn", **settings):
    torch.manual_seed(0)
    config = DSL.Config.of({**TOY, "host": host, "host_settings": HOSTS[host], "interval": 4, **settings})
    return DSL(config, Sizes(20, 15), Given.of(LOG, DSL.wants(config)))


def fit(model):
    return [r["loss"] for r in train(model, LOG, model.config, seed=0, validate=None).progress.curve]


@pytest.mark.parametrize("host", list(HOSTS))
def test_the_number_of_weights_never_changes_and_what_is_masked_is_zero(host):
    model = make(host)
    start = [mask.clone() for mask in model.masks.every()]
    assert len(start) == len(model.masked()) > 0 and all(p.ndim > 1 for p in model.masked())
    curve = fit(model)
    assert curve[-1] < curve[0]
    moved = False
    for before, mask, p in zip(start, model.masks.every(), model.masked(), strict=True):
        assert int(before.sum()) == int(mask.sum()) and not p[~mask].any()
        moved |= not torch.equal(before, mask)
    assert moved


@pytest.mark.parametrize("host", list(HOSTS))
def test_with_all_weights_it_is_the_host_alone(host):
    model = make(host, density=1.0)
    cls, settings = DSL.hosted(model.config)
    torch.manual_seed(0)
    alone = cls(settings, Sizes(20, 15), Given.of(LOG, cls.wants(settings)))
    assert fit(model) == fit(alone)
    assert all(torch.equal(a, b) for a, b in zip(model.host.parameters(), alone.parameters(), strict=True))


def test_fixed_masks_never_move():
    model = make(fixed=True)
    start = [mask.clone() for mask in model.masks.every()]
    fit(model)
    assert all(torch.equal(a, b) for a, b in zip(start, model.masks.every(), strict=True))


def test_the_share_that_moves_over_the_steps_of_a_run():
    model = make()
    steps = model.batcher(LOG, 0, 0, 1).steps() * 6
    assert [round(model.ratio(t), 4) for t in (0, steps // 2, steps)] == [0.5, 0.2525, 0.005]


def test_settings_of_the_paper_for_each_host():
    assert make(interval=None).interval == 3000 and make("multvae", interval=None).interval == 100 and make("bpr-mf", interval=None).interval == 2000
    config = DSL.Config.of({})
    assert (config.lr, config.schedule, config.batch) == (1e-2, "cosine", 1024)
    assert DSL.Config.of({"host": "multvae"}).batch == 16
    assert registry.find("lightgcn").Config().lr == 1e-3


def test_biases_only_where_they_are_asked_for():
    assert sum(p.ndim == 1 for p in make("multvae", biases=True).masked()) == 4
