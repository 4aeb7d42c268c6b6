"""Checks of the card base/content_knn: values by hand, invariances, and the limits in which it is another system."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.data.batches import Sets
from vitrail.data.log import Log
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.item_knn import ItemKNN
from vitrail.systems.multimodal.content_knn import ContentKNN

HAND = torch.tensor([[1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]])
RNG = np.random.default_rng(0)


def make(*kinds: torch.Tensor, masks: list[list[bool]] | None = None, counts: list[int] | None = None, **settings: object) -> ContentKNN:
    names = tuple(f"kind{n}" for n in range(len(kinds)))
    n = len(kinds[0])
    has = {name: torch.tensor(masks[m]) if masks else torch.ones(n, dtype=torch.bool) for m, name in enumerate(names)}
    given = Given(item_counts=torch.tensor(counts or [1] * n), vectors=dict(zip(names, kinds, strict=True)), masks=has)
    config = ContentKNN.Config.of({"vectors": names, "centre": False, **settings})
    return ContentKNN(config, Sizes(1, n, {name: k.shape[1] for name, k in zip(names, kinds, strict=True)}), given).eval()


def asked(*histories: list[int]) -> Sets:
    indptr = torch.tensor([0, *np.cumsum([len(h) for h in histories])])
    return Sets(torch.full((len(histories),), -1), indptr, torch.tensor([i for h in histories for i in h], dtype=torch.int64))


def test_mean_cosine_by_hand() -> None:
    scores = make(HAND, fusion="sum").scores(asked([0, 2]))
    torch.testing.assert_close(scores, torch.tensor([[0.8, 0.4, 0.8, 0.88]]))


def test_fusion_by_hand() -> None:
    cosines = [torch.tensor([[0.9, 0.1, 0.5]]), torch.tensor([[0.1, 0.2, 0.9]])]
    has = [torch.ones(3, dtype=torch.bool)] * 2
    two = (torch.eye(3), torch.eye(3))
    z = make(*two).fuse(cosines, has)
    torch.testing.assert_close(z, torch.tensor([[0.19091, -0.89335, 0.70244]]), atol=1e-5, rtol=0)
    rrf = 2 * make(*two, fusion="rrf").fuse(cosines, has)
    torch.testing.assert_close(rrf, torch.tensor([[0.032266, 0.032002, 0.032522]]), atol=1e-6, rtol=0)
    assert z.argsort(descending=True).tolist() == rrf.argsort(descending=True).tolist() == [[2, 0, 1]]


@pytest.mark.parametrize("fusion", ["zscore", "rrf"])
def test_length_rotation_and_scale_change_nothing(fusion: str) -> None:
    a, b = torch.from_numpy(RNG.normal(size=(12, 5))).float(), torch.from_numpy(RNG.normal(size=(12, 4))).float()
    rotation = torch.linalg.qr(torch.from_numpy(RNG.normal(size=(5, 5))).float())[0]
    history = asked([1, 5, 7], [2])
    plain = make(a, b, fusion=fusion).scores(history)
    long = a * torch.from_numpy(RNG.uniform(0.5, 9, size=(12, 1))).float()
    torch.testing.assert_close(make(long, b, fusion=fusion).scores(history), plain, atol=1e-4, rtol=0)
    torch.testing.assert_close(make(a @ rotation, b, fusion=fusion).scores(history), plain, atol=1e-4, rtol=0)
    model = make(a, b, fusion=fusion)
    cosines, has = [torch.rand(2, 12), torch.rand(2, 12)], [torch.ones(12, dtype=torch.bool)] * 2
    torch.testing.assert_close(model.fuse([3 * cosines[0] + 2, cosines[1]], has), model.fuse(cosines, has), atol=1e-4, rtol=0)


def test_one_item_is_its_nearest_neighbours() -> None:
    a = torch.from_numpy(RNG.normal(size=(12, 5))).float()
    unit = torch.nn.functional.normalize(a, dim=1)
    torch.testing.assert_close(make(a, fusion="sum").scores(asked([4])), unit[4:5] @ unit.T)
    torch.testing.assert_close(make(a).similarity(torch.tensor([4])), make(a).scores(asked([4])))


def test_max_is_the_nearest_history_item() -> None:
    scores = make(HAND, fusion="sum", aggregate="max").scores(asked([0, 2], [1]))
    torch.testing.assert_close(scores, torch.stack([torch.maximum(HAND @ HAND[0], HAND @ HAND[2]), HAND @ HAND[1]]))


def test_one_hot_content_knows_nothing_and_interaction_columns_are_item_knn() -> None:
    assert not make(torch.eye(6), fusion="sum").scores(asked([0, 3]))[0, [1, 2, 4, 5]].any()
    have = RNG.random((40, 15)) < 0.3
    have[0, :3] = True
    log = Log(np.concatenate([[0], np.cumsum(have.sum(1))]), np.nonzero(have)[1].astype(np.int32), 15)
    columns = torch.from_numpy(have.T.astype(np.float32))
    knn = ItemKNN(ItemKNN.Config(k=15), Sizes(40, 15), Given())
    knn.learn(log)
    knn.prepare()
    history = log.histories(np.arange(40))
    ours = make(columns, fusion="sum", history=15).scores(history) * history.lengths[:, None]
    seen = torch.from_numpy(have)  # the item itself has cosine 1 here, and 0 in item-knn's table
    torch.testing.assert_close(ours.masked_fill(seen, 0), knn.scores(history).masked_fill(seen, 0), atol=1e-5, rtol=0)


def test_missing_kinds_are_masks() -> None:
    masks = [[True] * 4, [True, False, True, True]]
    model = make(HAND, HAND.flip(1), masks=masks)
    scores = model.scores(asked([1], [0]))
    alone = make(HAND, weights=[1.0]).scores(asked([1], [0])) / 2
    torch.testing.assert_close(scores[0], alone[0])  # the history lacks the second kind: the first decides
    torch.testing.assert_close(scores[1, 1], alone[1, 1])  # the item lacks it: it gets the mean, 0
    neither = make(HAND, masks=[[True, True, True, False]])
    assert neither.answerable(asked([3], [3, 0], [])).tolist() == [False, True, False]


def test_recency_repeats_and_length_of_history() -> None:
    a = torch.from_numpy(RNG.normal(size=(8, 5))).float()
    unit = torch.nn.functional.normalize(a, dim=1)
    model = make(a, fusion="sum", gamma=0.5)
    expected = (0.25 * unit[1] + 0.5 * unit[2] + unit[3]) / 1.75
    torch.testing.assert_close(model.scores(asked([1, 2, 3]))[0], unit @ expected)
    torch.testing.assert_close(make(a, fusion="sum").scores(asked([1, 2, 1])), make(a, fusion="sum").scores(asked([2, 1])))
    torch.testing.assert_close(make(a, fusion="sum", history=2).scores(asked([5, 2, 1])), make(a, fusion="sum").scores(asked([2, 1])))


def test_the_mean_is_that_of_items_met_in_training() -> None:
    a = torch.from_numpy(RNG.normal(size=(6, 3))).float() + 3
    model = make(a, centre=True, counts=[1, 2, 1, 0, 0, 3])
    mean = a[[0, 1, 2, 5]].mean(0)
    torch.testing.assert_close(model.kind(0)[0], torch.nn.functional.normalize(a - mean, dim=1))


def test_shuffled_content_answers_no_better_than_chance() -> None:
    colours = torch.arange(200) % 2
    values = torch.nn.functional.one_hot(colours, 2).float() * 3 + torch.from_numpy(RNG.normal(size=(200, 2))).float()
    histories = asked(*[[u % 2 + 2 * j for j in RNG.permutation(50)[:6]] for u in range(100)])

    def share(values: torch.Tensor) -> float:
        best = make(values).scores(histories)[:, 100:].topk(10).indices + 100
        return float((colours[best] == (torch.arange(100) % 2)[:, None]).float().mean())

    assert share(values) > 0.95
    assert 0.35 < share(values[torch.from_numpy(RNG.permutation(200))]) < 0.65


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(SettingError, match="a number for each of vectors"):
        make(HAND, weights=[1.0, 2.0])
    with pytest.raises(SettingError, match="vectors"):
        ContentKNN(ContentKNN.Config(vectors=()), Sizes(1, 4), Given(item_counts=torch.ones(4)))
