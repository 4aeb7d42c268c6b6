"""Which items of the history carried a recommended one, and by whose word."""

import polars as pl
import torch

from vitrail.data.batches import Sets
from vitrail.funnel.why import carried
from vitrail.systems.base import Can, Given, Sizes
from vitrail.systems.registry import find

IDS = pl.Series(["a", "b", "c", "d"])


def history(*codes):
    return Sets(torch.tensor([-1]), torch.tensor([0, len(codes)]), torch.tensor(codes, dtype=torch.int64))


class Likes:
    can = Can()

    def similarity(self, items):
        return torch.eye(4)[items] + 0.1 * torch.arange(4)


class Reads:
    """A ranker that reads event t of the history with weight t + 1 for item 0, and the other way round for the others."""

    def attention_to(self, histories, items):
        n = len(histories.items)
        forth = torch.arange(1.0, n + 1)
        weights = torch.stack([forth if code == 0 else forth.flip(0) for code in items[0].tolist()])
        return histories.items[None], weights[None] / forth.sum()


def rows(n):
    return [{"why": None} for _ in range(n)]


def test_a_ranker_that_reads_anew_for_each_item():
    told = rows(2)
    carried(told, torch.tensor([0, 3]), history(1, 2, 1), IDS, [("likes", Likes()), ("reads", Reads())])
    assert told[0]["why"]["attention_by"] == "reads" and told[0]["why"]["history_by"] == "likes"
    assert [(one["item"], round(one["weight"], 4)) for one in told[0]["why"]["attention"]] == [("b", 0.6667), ("c", 0.3333)], "events of one item add up"
    assert [(one["item"], round(one["weight"], 4)) for one in told[1]["why"]["attention"]] == [("b", 0.6667), ("c", 0.3333)]
    assert [one["item"] for one in told[0]["why"]["history"]] == ["c", "b"]


def test_nothing_is_told_without_a_history_or_of_systems_that_cannot_tell():
    told = rows(1)
    carried(told, torch.tensor([0]), history(), IDS, [("likes", Likes())])
    carried(told, torch.tensor([0]), history(1), IDS, [("other", object())])
    assert told == rows(1)


def test_sequence_systems_tell_what_their_newest_position_read():
    for name, settings in (("sasrec", {"dim": 8, "length": 3}), ("bert4rec", {"dim": 8, "length": 4})):
        cls = find(name)
        torch.manual_seed(0)
        model = cls(cls.Config.of(settings), Sizes(2, 4), Given(item_counts=torch.ones(4, dtype=torch.int64))).eval()
        with torch.inference_mode():
            model.prepare()
            events, weights = model.attention(history(0, 1, 2, 3))
        assert events.tolist() == [[1, 2, 3]] and weights.shape == (1, 3)
        total = float(weights.sum())
        assert abs(total - 1) < 1e-5 if name == "sasrec" else 0 < total < 1, "the mask token of cloze reads itself too"
        told = rows(1)
        carried(told, torch.tensor([0]), history(1, 2), IDS, [(name, model)])
        assert told[0]["why"]["attention_by"] == name
    cls = find("gru4rec")
    model = cls(cls.Config.of({"dim": 8}), Sizes(2, 4), Given(item_counts=torch.ones(4, dtype=torch.int64))).eval()
    assert model.attention(history(1)) is None
