"""SSL-items: plain two towers without the contrast, views that share nothing, and a contrast that duplicates cannot solve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from vitrail.data.batches import Pairs
from vitrail.systems.base import Given, Sizes
from vitrail.systems.multimodal.ssl_items import SSLItems
from vitrail.testing import checkerboard, quick
from vitrail.train.fit import fit
from vitrail.train.update import update

N = 64


def model(features: dict[str, np.ndarray], **settings: Any) -> SSLItems:
    torch.manual_seed(0)
    tables = {f"attribute.{name}": torch.from_numpy(values.reshape(N, -1).astype(np.int32)) for name, values in features.items()}
    given = Given(indptr=torch.tensor([0, N - 1]), items=torch.arange(N - 1), tables=tables)
    config = SSLItems.Config.of({"dim": 16, "width": 16, "hidden": [32], "value_dropout": 0.0, **settings})
    return SSLItems(config, Sizes(1, N), given)


def batch(count: int = 32) -> Pairs:
    return Pairs(torch.zeros(count, dtype=torch.int64), torch.arange(count), torch.arange(8))


def test_without_the_contrast_it_is_two_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = model({"a": np.arange(N) % 4 + 2}, alpha=0.0)
    value = plain.loss(batch())
    state = torch.get_rng_state()
    monkeypatch.setattr(SSLItems, "regulariser", lambda *_: 0.0)
    assert value.equal(plain.loss(batch())) and state.equal(torch.get_rng_state()), "nothing is drawn"


def test_views_hide_what_the_other_shows() -> None:
    one = model({"a": np.arange(N) % 4 + 2, "b": np.arange(N) % 8 + 2}, width=3)
    hide = torch.tensor([[True, False, True], [False, True, False]])
    items = torch.tensor([5, 5])
    shown, rest = (one.features(items, mask).view(2, 3, 3) for mask in (hide, ~hide))
    assert shown[0, 0].equal(one.masked[0]) and shown[0, 2].equal(one.masked[2]) and not shown[0, 1].equal(one.masked[1])
    whole = one.features(items).view(2, 3, 3)
    assert (torch.where(hide[..., None], rest, shown) == whole).all(), "together they are the item"
    cold = one.features(torch.tensor([N - 1])).view(3, 3)
    assert cold[2].equal(one.masked[2]), "who was never met has no id"


def test_values_of_a_list_are_left_out() -> None:
    one = model({"tags": np.tile(np.arange(2, 10), (N, 1))}, value_dropout=0.5, ids=False)
    items, shown = torch.arange(N), torch.zeros(N, 1, dtype=torch.bool)
    assert not one.features(items, shown).allclose(one.features(items)) and one.features(items).std(0).max() < 1e-6


def contrast(masking: str) -> float:
    """What is left of the contrast after training on two features of which each tells the other, and two that tell nothing of them."""
    rng = np.random.default_rng(0)
    own = rng.permutation(N) + 2
    one = model({"a": own, "b": own[::1] + 0, "c": rng.integers(2, 4, N), "d": rng.integers(2, 4, N)}, masking=masking, ids=False, alpha=1.0)
    optimiser = torch.optim.Adam(one.parameters(), lr=0.01)
    values = []
    for _ in range(90):
        loss = torch.as_tensor(one.regulariser(batch()))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        values.append(float(loss.detach()))
    return float(np.mean(values[-30:]))


def test_a_duplicate_makes_the_random_contrast_easy_and_not_the_correlated_one() -> None:
    assert contrast("correlated") > 1.5 * contrast("random")


def test_a_fitted_one_answers_strangers_and_new_items_and_is_updated(tmp_path: Path) -> None:
    board = checkerboard(tmp_path / "d")
    recommender = fit("ssl-items", board, split="none", settings=quick("ssl-items", ids=False), out=tmp_path / "run", quiet=True).recommender
    found = recommender.recommend(histories=[["i 1", "i 3"]], k=8)
    assert found["fallback"].null_count() == 8 and all(int(item.split()[1]) % 2 for item in found["item"])
    grown = recommender.with_items(pl.DataFrame({"item": ["new"], "colour": ["white"]}), {})
    assert len(grown.item_ids) == len(recommender.item_ids) + 1
    told = update(tmp_path / "run", board, tmp_path / "again", epochs=1, check=False, quiet=True)
    assert told["items"]["kept"] == len(recommender.item_ids)
