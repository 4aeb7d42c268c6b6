"""The ranker's training data: from the past only, as retrieval finds candidates."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

import vitrail.train.fit as fitting
from vitrail.data.dataset import Dataset
from vitrail.data.declared import Asked
from vitrail.data.features import learn
from vitrail.data.fields import FieldSettings
from vitrail.data.impressions import make_impressions
from vitrail.data.log import Log
from vitrail.data.splits import Shown, parse_split
from vitrail.errors import DataError, SettingError
from vitrail.files import read_json
from vitrail.funnel.build import load_funnel, run_funnel
from vitrail.funnel.file import FunnelFile
from vitrail.funnel.sources import SystemSource
from vitrail.funnel.training import MIXES, NEWEST, _asked, _requests, _static_requests, _write, impressions, moments, try_mixes
from vitrail.systems import base, registry


class FakeRanker(torch.nn.Module):
    """Orders candidates by how retrieval did; a stand-in under the names of a ranker."""

    fitted_on = None

    class Config(base.Settings):
        """None."""

    def score(self, histories, candidates, now=None, context=None):
        return torch.from_numpy(np.nan_to_num(context["retrieval score"].fill_null(0.0).to_numpy()).reshape(candidates.shape)).float()


@pytest.fixture
def fake(monkeypatch):
    """`fake-ranker` in the registry, fitted by keeping the data it was given."""
    monkeypatch.setitem(base._REGISTRY, "fake-ranker", FakeRanker)
    real = fitting.fit

    def fit(system, data, **more):
        if system != "fake-ranker":
            return real(system, data, **more)
        FakeRanker.fitted_on = data
        assert more["split"] == "shown"
        model = FakeRanker()
        return type("Result", (), {"recommender": type("R", (), {"model": model})()})()

    monkeypatch.setattr(fitting, "fit", fit)


def test_three_moments_with_as_much_between():
    log = Log(np.array([0, 100]), np.zeros(100, dtype=np.int32), 1, np.arange(100) * 1000)
    assert moments(log, parse_split("temporal:valid=0.2,test=0.1")) == (50_000, 70_000, 89_001)
    with pytest.raises(DataError, match="no validation part"):
        moments(log, parse_split("temporal:valid=0"))
    with pytest.raises(DataError, match="smaller"):
        moments(log, parse_split("temporal:valid=0.6,test=0.3"))


def test_requests_have_a_past_and_lie_in_between():
    log = Log(np.array([0, 3, 5]), np.zeros(5, dtype=np.int32), 1, np.array([1, 5, 7, 5, 6]))
    assert _requests(log, 5, 8, 10).tolist() == [1, 4, 2]  # place 3 is its user's first event
    assert _requests(log, 5, 8, 2).tolist() == [4, 2]
    with pytest.raises(DataError, match="Fewer than 2"):
        _requests(log, 6, 7, 10)


def test_static_requests_are_the_first_events_from_a_moment_on_of_who_has_a_past():
    log = Log(np.array([0, 3, 5, 8]), np.zeros(8, dtype=np.int32), 1, np.array([1, 5, 7, 5, 6, 2, 3, 9]))
    assert _static_requests(log, 5, 9).tolist() == [1]  # the second has nothing before 5, the third nothing within
    assert _static_requests(log, 5, 10).tolist() == [1, 7]


@pytest.fixture(scope="module")
def made(shop):
    """Sources fitted early, and the rows made of them."""
    retrieve = [{"system": "item-knn", "k": 30}, {"system": "popular", "k": 20}]
    file = FunnelFile.of({"funnel": "x", "retrieve": retrieve, "rank": {"system": "ease", "negatives": 3, "horizon": None}})
    split = parse_split("temporal")
    log = shop.log()
    t0, t1, t2 = moments(log, split)
    from vitrail.data.splits import Temporal
    from vitrail.funnel.training import _moment

    early = Temporal(valid_from=_moment(t0), test_from=_moment(t1))
    fitted = [fitting.fit(told.system, shop, split=early, quiet=True).recommender for told in file.retrieve]
    sources = [SystemSource(told.label, one, fitted[0]._ties) for told, one in zip(file.retrieve, fitted, strict=True)]
    requests = _requests(log, t1, t2, 1000)
    return file, log, sources, fitted[0]._ties.numpy(), requests, (t0, t1, t2), fitted


def test_rows_are_of_the_past_alone(shop, made):
    file, log, sources, ties, requests, (_, t1, t2), fitted = made
    assert all(one.known.times.max() < t1 for one in fitted)
    table = impressions(file, shop, log, sources, ties, requests, t2, None)
    when = table["timestamp"].dt.epoch("us")
    assert when.min() >= t1 and when.max() < t2
    users, items = shop.user_ids.encode(table["user"]), shop.item_ids.encode(table["item"])
    edge = log.times[requests[len(requests) - int(NEWEST * len(requests))]]
    assert when.filter(table["part"] == "train").max() < edge <= when.filter(table["part"] != "train").min()
    rows = list(zip(users, items, when.to_list(), table["clicked"].to_list(), strict=True))
    for user, item, time, clicked in [*rows[:400], *rows[-200:]]:
        span = slice(log.indptr[user], log.indptr[user + 1])
        # what is taken where validation asks was not learned before
        mine = (log.items[span] == item) & (log.times[span] < (edge if time < edge else t2))
        assert bool((mine & (log.times[span] >= time)).any()) == bool(clicked)
        assert not (mine & (log.times[span] < time)).any()  # what was seen before is no candidate


def test_each_request_has_a_success_and_a_few_others(shop, made):
    file, log, sources, ties, requests, (_, _, t2), _ = made
    table = impressions(file, shop, log, sources, ties, requests, t2, None)
    per = table.group_by("request").agg(pl.col("clicked").sum().alias("good"), (1 - pl.col("clicked")).sum().alias("other"), pl.col("part").n_unique())
    assert per["good"].min() >= 1 and per["other"].max() <= 3 and per["part"].max() == 1
    assert {"retrieval score", "retrieval sources", "rank item-knn", "score item-knn", "rank popular", "score popular"} <= set(table.columns)
    assert table["rank popular"].null_count() > 0 and set(table["part"]) == {"train", "valid", "test"}
    order = table.group_by("part").agg(pl.col("timestamp").min().alias("from"), pl.col("timestamp").max().alias("to")).sort("from")
    assert order["part"].to_list() == ["train", "valid", "test"]
    assert table.equals(impressions(file, shop, log, sources, ties, requests, t2, None))


def test_nothing_found_is_a_sentence(shop, made):
    file, log, _, ties, requests, (_, _, t2), _ = made

    class Blind:
        def search(self, ask, k):
            from vitrail.funnel.fuse import Found

            return Found("blind", np.full((len(ask), 1), -1), np.zeros((len(ask), 1)))

    one = file.model_copy(update={"retrieve": file.retrieve[:1]})
    with pytest.raises(DataError, match="found none"):
        impressions(one, shop, log, [Blind()], ties, requests, t2, None)


def test_the_mix_is_chosen_where_it_is_better(made):
    file, log, sources, ties, requests, (_, _, t2), _ = made

    class Noise(FakeRanker):
        def score(self, histories, candidates, now=None, context=None):
            return torch.rand(candidates.shape, generator=torch.Generator().manual_seed(0))

    good, bad = (try_mixes(file, model, log, sources, ties, requests, t2, None) for model in (FakeRanker(), Noise()))
    assert set(good) == {*MIXES, 1.0} and len(set(good.values())) == 1  # it orders as retrieval does
    assert bad[0.0] < bad[1.0] == good[1.0]


def test_the_mix_of_static_requests_is_by_all_that_comes_after_one_moment(made):
    file, log, sources, ties, requests, (_, _, t2), _ = made
    near = file.model_copy(update={"rank": file.rank.model_copy(update={"horizon": 1})})
    moment = int(log.times[requests[len(requests) // 2]])
    asked = _static_requests(log, moment, t2)
    seen = []
    for places, histories, fused, taken, now, known in _asked(near, log, sources, ties, asked, t2, None, at=moment):
        assert (now == moment).all() and (known == t2 - 1).all() and int(histories.times.max()) < moment
        for row, user in enumerate(log.users[places]):
            span = slice(log.indptr[user], log.indptr[user + 1])
            coming = set(log.items[span][(log.times[span] >= moment) & (log.times[span] < t2)].tolist())
            assert [code in coming for code in fused.codes[row].tolist()] == taken[row].tolist()
        seen += places.tolist()
    assert seen == asked.tolist() and len(seen) > 10
    found = try_mixes(near, FakeRanker(), log, sources, ties, asked, t2, None, at=moment)
    assert found != try_mixes(near, FakeRanker(), log, sources, ties, asked, t2, None)


@pytest.mark.parametrize("rolling", [True, False])
def test_rolling_and_static_each_have_a_mix(keys, fake, tmp_path, monkeypatch, rolling):
    """The one by which the split asks is the funnel's own; each way is measured with its own."""
    values = {None: {0.0: 0.1, 0.25: 0.3, 0.5: 0.2, 0.75: 0.2, 1.0: 0.9}, "static": {0.0: 0.1, 0.25: 0.2, 0.5: 0.2, 0.75: 0.3, 1.0: 0.0}}
    monkeypatch.setattr("vitrail.funnel.training.try_mixes", lambda *_, at=None: values[None if at is None else "static"])
    monkeypatch.setattr("vitrail.funnel.build.load_funnel", lambda folder: folder)
    file = FunnelFile.of({**keys, "split": f"temporal:rolling={str(rolling).lower()}", "rank": {"system": "fake-ranker", "negatives": 2}})
    few = read_json(run_funnel(file, tmp_path / "few") / "funnel.json")["chosen"]
    assert few["mixes"] == {"rolling": 0.25} and few["mix"] == 0.25, "too few people have something to come for a choice of its own"
    monkeypatch.setattr("vitrail.funnel.training.FEWEST", 10)
    chosen = read_json(run_funnel(file, tmp_path / "out") / "funnel.json")["chosen"]
    assert chosen["mixes"] == {"rolling": 0.25, "static": 0.75} and chosen["mix"] == (0.25 if rolling else 0.75)
    assert chosen["validation"]["rolling"]["1"] == 0.9 and set(chosen["validation"]) == {"rolling", "static"}


def test_a_horizon_counts_the_next_events_alone(shop, made):
    file, log, sources, ties, requests, (_, _, t2), _ = made
    near = file.model_copy(update={"rank": file.rank.model_copy(update={"horizon": 1})})
    table = impressions(near, shop, log, sources, ties, requests, t2, None).filter(pl.col("clicked") == 1)
    assert table["request"].n_unique() == table.height
    places = requests[table["request"].cast(pl.Int64).to_numpy()]
    assert (log.items[places] == shop.item_ids.encode(table["item"])).all()


@pytest.mark.parametrize("horizon", [None, 2])
def test_no_label_is_a_feature_before_it_is_known(shop, made, tmp_path, horizon):
    """Whatever came of a row, the features of the rows up to the moment at which that is known stay as they are; what comes later counts it."""
    file, log, sources, ties, requests, (_, _, t2), _ = made
    near = file.model_copy(update={"rank": file.rank.model_copy(update={"horizon": horizon})})
    table = impressions(near, shop, log, sources, ties, requests, t2, None)
    _write(tmp_path / "rows", shop, table, t2)
    split = make_impressions(Dataset(tmp_path / "rows"), Shown())
    settings = FieldSettings(features={"worth": {"kind": "rate", "by": "item", "source": "impressions", "hit": "clicked > 0"}})
    features, _ = learn(Dataset(tmp_path / "rows"), split, settings, length=5)
    rates = [place for place, f in enumerate(features.spec.owned("event")) if f.name in ("item rate", "worth")]
    rows, edge = split.shown, log.times[requests[len(requests) - int(NEWEST * len(requests))]]
    before, late = features.fill(rows).fields, 0
    places = {(int(log.users[place]), int(log.times[place])): place for place in requests[::-1]}
    for row in np.random.default_rng(0).choice(len(rows), 25, replace=False):
        labels = rows.labels.copy()
        labels[row] = 1 - labels[row]
        after = features.showing([replace(rows, labels=labels)]).fill(rows).fields
        changed = (before != after).any(1)
        end = edge if rows.times[row] < edge else t2
        place = places[int(rows.users[row]), int(rows.times[row])]
        coming = log.times[place : log.indptr[log.users[place] + 1]]
        coming = coming[coming < end][:horizon]
        over = horizon is not None and len(coming) == horizon
        assert rows.known[row] == (coming[-1] if over else end - 1) >= coming.max()
        assert set(np.flatnonzero((before != after).any(0))) <= set(rates)
        assert not changed[rows.times <= rows.known[row]].any()
        late += int(changed.any())
    assert late > 0 or horizon is None, "once it is known it counts; where that is the end, no training row saw a rate, and it has one bucket"


def test_the_whole_protocol_with_a_fake(shop, keys, fake, tmp_path, monkeypatch):
    monkeypatch.setattr("vitrail.funnel.build.load_funnel", lambda folder: folder)
    file = FunnelFile.of({**keys, "rank": {"system": "fake-ranker", "negatives": 2}})
    assert run_funnel(file, tmp_path / "out") == tmp_path / "out"
    data = FakeRanker.fitted_on
    assert isinstance(data, Dataset) and data.item_ids.ids.equals(shop.item_ids.ids) and data.user_ids.ids.equals(shop.user_ids.ids)
    t2 = moments(shop.log(), parse_split("temporal"))[2]
    assert data.log().times.max() < t2 and len(data.log()) < len(shop.log())
    table = pl.read_parquet(data.path / "impressions.parquet")
    assert "impressions.parquet" in data.info.files and table["timestamp"].dt.epoch("us").max() < t2
    fixed = file.model_copy(update={"rank": file.rank.model_copy(update={"mix": 0.25})})
    run_funnel(fixed, tmp_path / "fixed")
    assert read_json(tmp_path / "fixed" / "funnel.json")["chosen"] == {"mix": 0.25}
    before = (data.path / "impressions.parquet").stat().st_mtime_ns
    run_funnel(file, tmp_path / "out")  # what is made is not made again
    assert (data.path / "impressions.parquet").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"split": "leave-last-out"}, SettingError, "not in time"),
        ({"retrieve": [{"run": "RUN"}]}, SettingError, "finished run has none"),
    ],
)
def test_what_a_ranker_cannot_be_trained_on(shop, keys, fake, tmp_path, changes, kind, words):
    if "retrieve" in changes:
        fitting.fit("item-knn", shop, split="temporal", out=tmp_path / "run", quiet=True)
        changes = {"retrieve": [{"run": str(tmp_path / "run")}]}
    with pytest.raises(kind, match=words):
        run_funnel(FunnelFile.of({**keys, **changes, "rank": {"system": "fake-ranker"}}), tmp_path / "out")


@pytest.mark.skipif("logistic" not in registry.names(), reason="no ranker is installed")
def test_a_real_ranker(keys, tmp_path):
    settings = {"epochs": 2, "dim": 4}
    funnel = run_funnel(FunnelFile.of({**keys, "rank": {"system": "logistic", "settings": settings, "negatives": 5}}), tmp_path / "out")
    assert funnel.ranking.ranker
    answer = funnel.answer(funnel.user_ids.ids[0], None, 5)
    assert len(answer["items"]) == 5 and all(0 < row["score"] < 1 for row in answer["items"])


DECLARED = {
    "mine": {"kind": "count", "by": "user", "window": "7d"},
    "alike": {"kind": "count", "by": ["user", "category"], "where": 'event == "view"'},
    "trend": {"kind": "count", "by": "item", "window": "3d"},
}


@pytest.mark.skipif("logistic" not in registry.names(), reason="no ranker is installed")
def test_a_ranker_with_declared_features_counts_what_happens_while_it_serves(keys, tmp_path):
    settings = {"epochs": 1, "dim": 4, "features": DECLARED}
    run_funnel(FunnelFile.of({**keys, "rank": {"system": "logistic", "settings": settings, "negatives": 5}}), tmp_path / "out")
    funnel = load_funnel(tmp_path / "out", seed=0)
    model, user = funnel.ranking.model, funnel.user_ids.ids[3]
    names = [f.name for f in model.spec.owned("event")]
    assert set(DECLARED) <= set(names) and model.spec.declared["alike"].by == ("user", "items.category")
    item, code = funnel.item_ids.ids[0], funnel.user_ids.code(user)
    newest = int(model.source.declared.moment)

    def mine():
        asked = Asked(np.array([code]), np.array([0]), np.array([newest + 100]))
        return {name: values[0] for name, values in model.source.declared.values(DECLARED, asked).items()}

    before = mine()
    rows = {"user": [user, user, "a stranger", user], "item": [item, item, item, "not there"], "timestamp": [newest + n for n in (1, 2, 3, 4)]}
    coming = pl.DataFrame(rows | {"event": ["view", "buy", "view", "view"], "value": [None] * 4})
    assert funnel.counts
    funnel.hear(coming)
    after = mine()
    assert [after[name] - before[name] for name in ("mine", "alike", "trend")] == [2.0, 1.0, 3.0]
    known = funnel.known.histories(np.array([code]))
    again = {"user": [user], "item": [funnel.item_ids.ids[int(known.items[-1])]], "timestamp": [int(known.times[-1])], "event": ["view"], "value": [None]}
    funnel.hear(pl.DataFrame(again))
    assert mine() == after, "what it was fitted on is not counted twice"
    answer = funnel.answer(user, [item], 5, times=[newest + 5])
    assert len(answer["items"]) == 5 and all(0 < row["score"] < 1 for row in answer["items"])
