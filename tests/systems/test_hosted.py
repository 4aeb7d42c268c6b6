"""A host trained with something beside: its settings, its needs, its answers."""

import numpy as np
import pytest
import torch

from vitrail.data.log import Log
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.dsl import DSL
from vitrail.systems.hosted import Hosted
from vitrail.systems.multimodal.rlmrec import RLMRec

LOG = Log(np.array([0, 2, 4, 5]), np.array([0, 1, 1, 2, 0], dtype=np.int32), 4)


def test_what_is_told_outside_counts_then_what_is_told_of_the_host_then_the_paper():
    config = DSL.Config.of({"host": "multvae", "host_settings": {"hidden": 5, "batch": 7}, "lr": 0.5})
    host = DSL.hosted(config)[1]
    assert (host.hidden, host.batch, config.batch, host.lr, host.dim) == (5, 7, 7, 0.5, 200)
    assert DSL.Config.of(config.model_dump(mode="json")) == config
    assert config.but({"density": 0.2}).density == 0.2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"host": "popular"}, 'System "popular" cannot be a host'),
        ({"host": "din"}, "cannot be a host"),
        ({"host": "dsl"}, "cannot be a host"),
        ({"host": "lightgnc"}, 'Did you mean "lightgcn"'),
        ({"host_settings": {"layer": 2}}, 'Unknown key "layer" in host_settings of "lightgcn". Did you mean "layers"'),
        ({"host_settings": 3}, "host_settings must be settings of"),
        ({"dense": 1}, 'Unknown key "dense"'),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        DSL.Config.of(settings)


def test_needs_and_abilities_are_those_of_the_host_and_its_own():
    assert DSL.wants(DSL.Config.of({"host": "freedom"})).vectors == ("text", "image")
    assert DSL.abilities(DSL.Config.of({"host": "freedom"})).cold_items and not DSL.abilities(DSL.Config()).cold_items
    assert not DSL.abilities(DSL.Config.of({"host": "multvae"})).dense and DSL.abilities(DSL.Config()).dense
    wanted = RLMRec.wants(RLMRec.Config.of({"vectors": ["plot"]}))
    assert wanted.vectors == ("plot",) and "interactions" in wanted.given
    sizes = Sizes(1000, 500, {"plot": 8})
    assert RLMRec.memory(RLMRec.Config.of({"vectors": ["plot"]}), sizes, 5000) > DSL.memory(DSL.Config.of({"host_settings": {"dim": 32}}), sizes, 5000) > 0


def test_answers_are_those_of_the_host():
    torch.manual_seed(0)
    config = Hosted.Config.of({"host": "lightgcn", "host_settings": {"dim": 3}})
    model = Hosted(config, Sizes(3, 4), Given.of(LOG, Hosted.wants(config))).eval()
    with torch.no_grad():
        model.prepare()
        histories, host = LOG.histories(np.arange(3)), model.host
        assert torch.equal(model.scores(histories), host.scores(histories)) and torch.equal(model.answerable(histories), host.answerable(histories))
        assert torch.equal(model.item_vectors(), host.item_vectors()) and torch.equal(model.query_vectors(histories), host.query_vectors(histories))
        assert torch.equal(model.similarity(torch.tensor([1])), host.similarity(torch.tensor([1])))
    assert model.loss(next(model.batcher(LOG, 0, 0, 1).epoch(0))).isfinite()
    model.on_epoch(0, np.random.default_rng(0))
    model.after_step([])


def test_items_that_come_later_reach_the_host():
    config = DSL.Config.of({"host": "freedom", "host_settings": {"vectors": ["text"], "dim": 3, "neighbours": 2}})
    facts = Given.of(LOG, DSL.needs)
    text = torch.arange(12.0).view(6, 2).sin()
    given = [Given(facts.indptr, facts.items, vectors={"text": text[:n]}, masks={"text": torch.ones(n, dtype=torch.bool)}) for n in (4, 6)]
    model = DSL(config, Sizes(3, 4, {"text": 2}), given[0])
    model.host.graph.products()
    more = model.grown(Sizes(3, 6, {"text": 2}), given[1])
    assert torch.equal(more.host.items[:4], model.host.items) and more.host.graph.neighbours(0)[0][5, 0] == 5
