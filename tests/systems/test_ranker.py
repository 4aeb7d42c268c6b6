"""The skeleton Ranker: loss, questions of a service, and its systems by the checks of their cards that hand values allow."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitrail.data.batchers_rows import gather
from vitrail.data.batches import Sets
from vitrail.data.fields import Catalogue, FeatureSpec, Field
from vitrail.data.impressions import Rows, make_impressions
from vitrail.data.splits import Rated
from vitrail.errors import SettingError
from vitrail.systems import registry
from vitrail.systems.base import Given, Sizes
from vitrail.systems.ranking.din import DIN
from vitrail.testing import checkerboard
from vitrail.testing_rank import TOY as N
from vitrail.testing_rank import toy_ranker as make
from vitrail.testing_rank import toy_rows as rows
from vitrail.train.fit import fit
from vitrail.train.rank import part_rows, prepare


def logits(model, r=None):
    r = r or rows()
    return model.logit(gather(r, np.arange(len(r)), 5)).detach()


@pytest.mark.parametrize("name", ["din", "dcnv2"])
def test_order_and_padding_of_a_history_do_not_matter(name):
    model, batch = make(name), gather(rows(), np.arange(12), 5)
    more = {key: torch.nn.functional.pad(getattr(batch, key), (0, 3)) for key in ("history", "mask")}
    torch.testing.assert_close(model.logit(replace(batch, **more)), model.logit(batch))
    full = batch.mask.all(1)
    turned = replace(batch, history=torch.where(full[:, None], batch.history.flip(1), batch.history))
    assert bool(full.any())
    torch.testing.assert_close(model.logit(turned), model.logit(batch))


SLOTS = [
    {"attention": "mean"},
    {"attention": "dot", "weights": "softmax", "attention_scale": True},
    {"attention": "bilinear", "weights": "relu"},
    {"attention": "multihead", "heads": 3},
    {"product": False, "item_bias": False, "activation": "prelu", "norm": True, "dropout": 0.5},
]


@pytest.mark.parametrize("setting", SLOTS)
def test_slots_of_din_train(setting):
    model = make("din", **setting).train()
    model.loss(gather(rows(), np.arange(12), 5)).backward()
    assert all(p.grad is not None for p in model.attention.parameters())
    assert bool(torch.isfinite(model.features.of_items.weight.grad).all())


def test_a_ranker_without_impressions_is_a_sentence():
    with pytest.raises(SettingError, match="given no impressions"):
        DIN(DIN.Config(), Sizes(1, 1), Given())


def test_din_refuses_heads_that_do_not_divide():
    with pytest.raises(SettingError, match="heads=5 does not divide the width 12"):
        make("din", attention="multihead", heads=5)


def test_din_with_mean_attention_is_the_base_model():
    """The interest is the mean vector of the history, whatever the target."""
    model, r = make("din", attention="mean"), rows()
    batch = gather(r, np.arange(12), 5)
    target, events = model.items_and_events(batch)
    interest = model.attention.packed(target, events, batch.mask)
    for b in range(12):
        kept = batch.history[b][batch.mask[b]]
        wanted = model.features.item(kept).mean(0) if len(kept) else torch.zeros(12)
        torch.testing.assert_close(interest[b], wanted)


def test_what_happened_at_an_event_is_read_where_it_is_known():
    model = make("din", signal=True)
    assert torch.equal(logits(model, rows(weights=True)), logits(model, rows()))  # it starts as no difference
    torch.nn.init.normal_(model.signals.weight)
    assert not torch.allclose(logits(model, rows(weights=True)), logits(model, rows()))


@pytest.mark.parametrize("structure", ["parallel", "stacked", "stacked_parallel", "crossnet_only"])
@pytest.mark.parametrize("cross", ["full", "mix"])
def test_structures_of_dcnv2(structure, cross):
    model = make("dcnv2", structure=structure, cross=cross, history=structure != "stacked").train()
    model.loss(gather(rows(), np.arange(12), 5)).backward()
    assert all(p.grad is not None for p in [*model.crosses.parameters(), *model.out.parameters()])
    assert logits(model.eval(), rows(1)).shape == (1,)


def test_dcnv2_without_crosses_is_linear_in_its_fields():
    """W = 0 and b = 0 in every cross layer leave x0."""
    model = make("dcnv2", structure="crossnet_only")
    with torch.no_grad():
        for layer in model.crosses.layers:
            layer.weight.zero_()
    x0 = torch.randn(3, model.out.in_features)
    torch.testing.assert_close(model.out(model.interact(x0)), model.out(x0))


def test_logistic_is_a_sum_of_weights():
    model = make("logistic", scale=1.0)
    torch.nn.init.constant_(model.bias, 0.25)
    batch = gather(rows(), np.arange(12), 5)
    f, city = model.features, [2, 3, 2, 0]
    for b in range(12):
        i, u, e = int(batch.items[b]), int(batch.users[b]), int(batch.fields[b, 0])
        tags = f.of_lists[0].weight[[2, 3]].mean() if i % 2 == 0 else f.of_lists[0].weight[4]
        wanted = 0.25 + f.of_items.weight[i + 2] + f.of_items.weight[N + 2 + i % 2 + 2] + tags + f.of_users.weight[city[u]] + f.of_events.weight[e]
        torch.testing.assert_close(model.logit(batch)[b], wanted.squeeze())


def test_one_step_of_logistic_by_hand():
    """p = 1/2 at first, so the gradient of the bias is the mean of p - y."""
    model = make("logistic", scale=1e-12).train()
    r = rows()
    model.loss(gather(r, np.arange(12), 5)).backward()
    assert float(model.bias.grad) == pytest.approx(0.5 - r.labels.mean(), abs=1e-5)


def test_weights_of_rows_and_rare_rows_enter_the_loss():
    r = rows()
    batch = gather(r, np.arange(12), 5)
    model = make("logistic")
    half = replace(batch, weights=torch.full((12,), 0.5))
    assert float(model.loss(half).detach()) == pytest.approx(float(model.loss(batch).detach()) / 2)
    rare = make("din", rare=0.1)
    plain = make("din")
    plain.load_state_dict(rare.state_dict())
    seen = torch.unique(torch.cat([batch.items, batch.history[batch.mask]]))
    counts = torch.arange(N).float() + 1
    weights = rare.features.of_items.weight
    wanted = (weights[seen + 2].square().sum(1) / counts[seen]).sum()
    for colour in (0, 1):
        wanted = wanted + weights[N + 2 + colour + 2].square().sum() / counts[torch.arange(N) % 2 == colour].sum()
    tags = rare.features.of_lists[0].weight
    even, odd = counts[::2].sum(), counts[1::2].sum()
    wanted = wanted + (tags[2].square().sum() + tags[3].square().sum()) / even + tags[4].square().sum() / odd
    assert float((rare.loss(batch) - plain.loss(batch)).detach()) == pytest.approx(0.1 * float(wanted.detach()), rel=1e-4)


def test_a_question_is_answered_as_the_rows_are_predicted():
    model, r = make("din"), rows()
    histories = Sets(torch.arange(4), torch.from_numpy(r.log.indptr), torch.from_numpy(r.log.items.astype(np.int64)))
    chances = model.score(histories, torch.arange(N).expand(4, -1))
    flat = Rows(
        np.repeat(np.arange(4), N),
        np.tile(np.arange(N), 4),
        np.zeros(4 * N, np.float32),
        np.repeat(r.log.indptr[1:], N),
        r.log,
        fields=np.zeros((4 * N, 1), np.int32),
    )
    torch.testing.assert_close(chances, torch.sigmoid(model.predict(flat)).view(4, N))
    torch.testing.assert_close(model.scores(histories), model.score(histories, torch.arange(N).expand(4, -1), raw=True))
    import polars as pl

    told = model.score(histories.slice(0, 1), torch.tensor([[1, 1]]), context={"slot": pl.Series(["left", "right"])})
    assert float(told[0, 0]) != float(told[0, 1])
    assert model.score(histories, torch.empty(4, 0, dtype=torch.int64)).shape == (4, 0)


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    import polars as pl

    from vitrail.data.dataset import write_dataset
    from vitrail.data.schema import DatasetInfo

    board = checkerboard(tmp_path_factory.mktemp("c") / "board", side=10)
    table = board.interactions.with_columns(value=pl.Series([float(1 + k % 5) for k in range(board.interactions.height)]))
    info = DatasetInfo(name="rated", order="timestamp", columns={"items": {"colour": "category"}})
    return write_dataset(tmp_path_factory.mktemp("d") / "d", info, table, board.items)


def test_features_of_a_service_equal_those_of_the_test_rows(rated):
    recommender = fit("din", rated, split="rated:test=0.3,valid=0.2", settings={"dim": 4, "epochs": 1, "metric": "auc"}, quiet=True).recommender
    model = recommender.model
    rows_, split = part_rows(model, recommender.info, rated)
    full = split.test.log
    model.observe(full)
    model.source = replace(model.source, shown=replace(model.source.events, labels=np.asarray(full.weights)))
    for r in range(len(rows_)):
        histories = full.spans(rows_.users[r : r + 1], rows_.starts[r : r + 1], rows_.stops[r : r + 1])
        asked = model.features_at(histories, torch.from_numpy(rows_.items[r : r + 1])[None], now=int(rows_.times[r]))
        assert asked[0, 0].tolist() == rows_.fields[r].tolist()
        chance = model.score(histories, torch.from_numpy(rows_.items[r : r + 1])[None], now=int(rows_.times[r]), raw=True)
        torch.testing.assert_close(chance.flatten(), model.predict(rows_.where(np.arange(len(rows_)) == r)))


def test_what_an_artifact_counts_never_holds_the_test_part(rated):
    made = prepare(rated, Rated(test=0.3, valid=0.2), DIN.Config())
    test = make_impressions(rated, Rated(test=0.3, valid=0.2)).test
    for name in ("events", "shown"):
        assert int(made.given.tables[f"{name}.times"].max()) < test.times.min()
    model = DIN(DIN.Config(), made.sizes, made.given)
    assert model._moments(None, 2).tolist() == [int(made.given.tables["events.times"].max()) + 1] * 2
    assert DIN.memory(DIN.Config(), made.sizes, 100) > 0 and DIN.memory(DIN.Config(), Sizes(1, 1), 100) > 0


def test_what_din_reads_of_a_history_for_each_item():
    """Shares of the positive weights: with softmax they are the weights themselves; one event has it all; the base model reads no event more than another."""
    history, items = Sets(torch.tensor([0]), torch.tensor([0, 3]), torch.tensor([1, 4, 6])), torch.tensor([[2, 5]])
    model = make("din", weights="softmax")
    events, shares = model.attention_to(history, items)
    assert events.tolist() == [[1, 4, 6]] and shares.shape == (1, 2, 3)
    torch.testing.assert_close(shares.sum(2), torch.ones(1, 2))
    batch = gather(model.rows_at(history, items), np.arange(2), 5)
    target, vectors = model.items_and_events(batch)
    mixed = torch.einsum("kt,kth->kh", shares[0], vectors.view(2, 3, -1))
    torch.testing.assert_close(mixed, model.attention.packed(target, vectors, batch.mask))
    raw, single = make("din").attention_to(history, items)[1], Sets(torch.tensor([0]), torch.tensor([0, 1]), torch.tensor([4]))
    assert (raw >= 0).all() and (raw.sum(2) <= 1.0001).all()
    torch.testing.assert_close(model.attention_to(single, items)[1], torch.ones(1, 2, 1))
    assert make("din", attention="mean").attention_to(history, items) is None
    assert model.attention_to(Sets(torch.tensor([0]), torch.tensor([0, 0]), torch.zeros(0, dtype=torch.int64)), items) is None


def test_fields_of_several_values_are_those_of_the_spec_in_whatever_order_a_file_has_them():
    fields = [Field(name="item", whose="item", kind="id", codes=N + 2)]
    fields += [Field(name=name, whose="item", kind="categories", codes=codes) for name, codes in (("genres", 9), ("actors", 4))]
    lists = {"genres": np.full((N, 2), 8, dtype=np.int32), "actors": np.full((N, 1), 3, dtype=np.int32)}
    catalogue = Catalogue((np.arange(N) + 2)[:, None].astype(np.int32), np.zeros((5, 0), dtype=np.int32), lists)
    tables = {key: torch.from_numpy(value) for key, value in catalogue.arrays().items()}
    cls, found = registry.find("logistic"), []
    for order in (tables, {key: tables[key] for key in sorted(tables)}):
        torch.manual_seed(0)
        model = cls(cls.Config(dim=4, scale=0.5), Sizes(4, N, features=FeatureSpec(fields=fields)), Given(tables=order)).eval()
        found.append(model.features.item(torch.arange(N)))
    assert torch.equal(*found)
