"""Checks of the card collaborative/rlmrec that hand values allow; the gain on Amazon-book, and its loss where profiles are shuffled, need its data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.blocks.loss import full_softmax, info_nce
from vitrail.data.batches import Pairs
from vitrail.data.log import Log
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes
from vitrail.systems.multimodal.rlmrec import RLMRec
from vitrail.train.loop import train

USERS, ITEMS, WIDTH = 20, 15, 6
have = np.random.default_rng(0).random((USERS, ITEMS)) < 0.3
have[0] = False
LOG = Log(np.concatenate([[0], np.cumsum(have.sum(1))]), np.nonzero(have)[1].astype(np.int32), ITEMS)
HOSTS = {"lightgcn": {"layers": 2}, "simgcl": {"layers": 2}, "dccf": {"intents": 3}}


def given(lacking: tuple[int, ...] = ()) -> Given:
    plain = Given.of(LOG, RLMRec.needs)
    mask = torch.ones(ITEMS, dtype=torch.bool)
    mask[list(lacking)] = False
    return Given(plain.indptr, plain.items, vectors={"text": torch.randn(ITEMS, WIDTH, generator=torch.Generator().manual_seed(1))}, masks={"text": mask})


def make(host: str = "lightgcn", facts: Given | None = None, *, of_host: dict | None = None, **settings: object) -> RLMRec:
    torch.manual_seed(0)
    told = {"dim": 4, **HOSTS[host], **(of_host or {})}
    config = RLMRec.Config.of({"host": host, "host_settings": told, "epochs": 3, "batch": 32, **settings})
    return RLMRec(config, Sizes(USERS, ITEMS, {"text": WIDTH}), facts or given())


def first(model: RLMRec) -> Pairs:
    return next(model.batcher(LOG, 0, 0, 1).epoch(0))


def curve(model: torch.nn.Module) -> list[float]:
    return [r["loss"] for r in train(model, LOG, model.config, seed=0, validate=None).progress.curve]


def test_a_row_that_finds_itself_beside_an_orthogonal_one_by_hand() -> None:
    rows = torch.tensor([[3.0, 0], [0, 2]])
    assert float(info_nce(rows, rows, 0.5)) == pytest.approx(0.12693, abs=1e-5)
    unit = F.normalize(rows, dim=1)
    assert float(full_softmax(unit[:1] / 0.5, unit, torch.tensor([0]))) == pytest.approx(0.12693, abs=1e-5)


@pytest.mark.parametrize("host", list(HOSTS))
def test_without_alignment_it_is_the_host_bit_for_bit(host: str) -> None:
    model = make(host, align=0.0, reg=0.0)
    cls, settings = RLMRec.hosted(model.config)
    torch.manual_seed(0)
    alone = cls(settings, Sizes(USERS, ITEMS), given())
    assert curve(model) == curve(alone)
    assert torch.equal(model.host.users, alone.users) and torch.equal(model.host.items, alone.items)


@pytest.mark.parametrize("form", ["contrastive", "generative"])
@pytest.mark.parametrize("host", list(HOSTS))
def test_every_host_learns_with_either_form(host: str, form: str) -> None:
    losses = curve(make(host, form=form, epochs=12, lr=0.02, align=0.1))
    assert losses[-1] < losses[0]


def test_the_contrastive_loss_is_that_of_the_equations() -> None:
    model = make(of_host={"edge_drop": 0.0}, align=0.7, align_temperature=0.3, reg=0.01)
    batch = first(model)
    users, items = model.host.nodes()
    said = model.net(model.profiles)

    def find(a: torch.Tensor, b: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        cosines = F.normalize(a, dim=1) @ F.normalize(keys, dim=1).T
        own = (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum(1)
        return (torch.logsumexp(cosines / 0.3, 1) - own / 0.3).mean()

    readers = said[:USERS][1:]  # user 0 has read nothing
    aligned = find(users[batch.users], said[batch.users], readers)
    for ids in (batch.items, batch.negatives[:, 0]):
        aligned = aligned + find(items[ids], said[USERS + ids], said[USERS + ids])
    plain = F.softplus(((items[batch.negatives[:, 0]] - items[batch.items]) * users[batch.users]).sum(1)).mean()
    torch.testing.assert_close(model.loss(batch), plain + 0.7 * aligned + 0.01 * sum(p.square().sum() for p in model.parameters()))


def test_a_profile_of_a_user_is_the_mean_of_those_of_their_items_that_have_one() -> None:
    model = make(facts=given((3,)))
    mine = [i for i in LOG.histories(np.array([2])).items.tolist() if i != 3]
    torch.testing.assert_close(model.profiles[2], given().vectors["text"][mine].mean(0))
    assert not model.profiled[0] and model.profiled[2] and not model.profiled[USERS + 3]


def test_who_has_no_profile_is_in_no_term() -> None:
    nobody = make(facts=given(tuple(range(ITEMS))), reg=0.0)
    torch.manual_seed(1)
    value = nobody.loss(first(nobody))
    torch.manual_seed(1)
    torch.testing.assert_close(value, nobody.host.loss(first(nobody)))
    few = make(facts=given(tuple(range(1, ITEMS))), reg=0.0)
    assert few.loss(first(few)).isfinite()
    hidden = make(facts=given(tuple(range(1, ITEMS))), form="generative", hide=1.0)
    chosen = hidden.choose()
    assert len(chosen) == int(hidden.profiled.sum()) and hidden.profiled[chosen].all()


def test_a_hidden_id_is_not_read_and_all_others_are() -> None:
    model = make(form="generative", hide=0.0, reg=0.0, align=1.0, of_host={"edge_drop": 0.0})
    assert len(model.choose()) == 1, "one at least"
    batch = first(model)
    hidden = torch.tensor([2, USERS + 4])
    model.choose = lambda: hidden  # type: ignore[method-assign]
    model.loss(batch).backward()
    assert not model.host.users.grad[2].any() and not model.host.items.grad[4].any() and model.token.grad.any()
    assert model.host.users.grad[1].any() and model.host.items.grad[5].any()
    with torch.no_grad():
        before = model.loss(batch)
        model.host.users[2] += 1.0
        assert torch.equal(model.loss(batch), before)
        model.token += 1.0
        assert not torch.equal(model.loss(batch), before)


def test_the_generative_loss_is_that_of_the_equations() -> None:
    model = make(form="generative", align=0.7, align_temperature=0.3, reg=0.0, of_host={"edge_drop": 0.0, "layers": 1})
    batch, hidden = first(model), torch.tensor([2, 5, USERS + 4])
    model.choose = lambda: hidden  # type: ignore[method-assign]
    x = torch.cat([model.host.users, model.host.items]).detach().clone()
    x[hidden] = 0.0
    nodes = x + model.host.adjacency.to_dense() @ x
    u, i, j = nodes[batch.users], nodes[USERS + batch.items], nodes[USERS + batch.negatives[:, 0]]
    cosines = F.normalize(model.net(nodes[hidden]), dim=1) @ F.normalize(model.profiles[hidden], dim=1).T / 0.3
    plain = F.softplus(((j - i) * u).sum(1)).mean() - 0.7 * cosines.log_softmax(1).diagonal().mean()
    torch.testing.assert_close(model.loss(batch), plain)


def test_profiles_are_not_read_in_answers() -> None:
    model = make()
    train(model, LOG, model.config, seed=0, validate=None)
    with torch.no_grad():
        model.eval().prepare()
        before = model.scores(LOG.histories(np.arange(5)))
        del model.net, model.profiles
        model.prepare()
        assert torch.equal(model.scores(LOG.histories(np.arange(5))), before)


def test_the_settings_of_the_paper() -> None:
    facts = Given(given().indptr, given().items, vectors={"text": torch.zeros(ITEMS, 1536)}, masks=given().masks)
    model = RLMRec(RLMRec.Config(), Sizes(USERS, ITEMS, {"text": 1536}), facts)
    assert [layer.out_features for layer in (model.net[0], model.net[2])] == [784, 32]
    assert model.host.config.readout == "sum" and model.config.batch == 4096 and model.config.lr == 1e-3
    with pytest.raises(SettingError, match="aligns with profiles"):
        make(vectors=[])
