"""fMRLRec: a small model made of slices of the big one is the big one's prefix; items are their content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from vitrail.data.batches import Sequences
from vitrail.errors import SettingError
from vitrail.funnel.recommender import load
from vitrail.systems.base import Given, Sizes
from vitrail.systems.multimodal.fmrlrec import FMRLRec
from vitrail.testing import SIDE, checkerboard, quick, right_answers
from vitrail.train.fit import fit

N, WIDTHS = 9, {"text": 5, "image": 3}


def model(**settings: object) -> FMRLRec:
    torch.manual_seed(0)
    vectors = {name: torch.randn(N, width) for name, width in WIDTHS.items()}
    given = Given(item_counts=torch.ones(N, dtype=torch.int64), vectors=vectors, masks={name: torch.ones(N, dtype=torch.bool) for name in vectors})
    return FMRLRec(FMRLRec.Config.of({"dim": 8, "smallest": 2, **settings}), Sizes(4, N, WIDTHS), given).eval()


def batch() -> Sequences:
    items = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    return Sequences(torch.tensor([0, 1]), items, torch.tensor([[True] * 4, [True, True, False, False]]))


@pytest.mark.parametrize("m", [2, 4, 8])
def test_a_slice_of_the_weights_is_a_model(m: int) -> None:
    big, small = model(), model(dim=m)
    kept = small.state_dict()
    sliced = {name: value[:m] if value.shape != kept[name].shape else value for name, value in big.state_dict().items() if name in kept}
    small.load_state_dict(sliced)
    torch.testing.assert_close(small.encode(batch()), big.encode(batch())[..., :m], atol=1e-5, rtol=0)
    torch.testing.assert_close(small.item(), big.item()[:, :m], atol=1e-5, rtol=0)


def test_the_loss_is_the_mean_over_sizes_and_positions() -> None:
    one, asked = model(), batch()
    asked = Sequences(asked.users, asked.items, asked.mask, None, torch.tensor([[2, 3, 4, 5], [6, 7, -1, -1]]))
    h, targets = one.encode(asked)[asked.mask], torch.tensor([2, 3, 4, 5, 6, 7])
    by_hand = torch.stack([torch.nn.functional.cross_entropy(h[:, :m] @ one.item()[:, :m].T, targets) for m in (2, 4, 8)]).mean()
    torch.testing.assert_close(one.loss(asked), by_hand)
    one.zero_grad()
    torch.nn.functional.cross_entropy(h[:, :2] @ one.item()[:, :2].T, targets).backward()
    assert one.project.weight.grad is not None and not one.project.weight.grad[2:].any(), "a size moves nothing behind it"


def test_one_size_is_plain() -> None:
    plain = model(nested=[8])
    assert plain.widths == (8,) and sum(p.numel() for p in plain.blocks[0].gate.parameters()) == 8 * 8 + 8  # type: ignore[union-attr,operator]
    assert sum(p.numel() for p in model().blocks[0].gate.parameters()) == 2 * 2 + 4 * 2 + 8 * 4 + 8  # type: ignore[union-attr,operator]


def test_one_checkpoint_serves_every_size_and_new_items(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit("fmrlrec", checkerboard(tmp_path / "d"), split="none", settings=quick("fmrlrec"), out=run, quiet=True)
    assert right_answers(load(run, dim=8)) == right_answers(load(run)) == 1.0
    white = {"text": np.array([[6.0, *[0.0] * 11]], dtype=np.float32)}
    grown = load(run).with_items(pl.DataFrame({"item": ["new"]}), white)
    found = grown.recommend(users=["u1"], k=SIDE + 1, include_seen=True)["item"].to_list()
    assert found.index("new") < SIDE // 2 + 2, "among those of its colour"


@pytest.mark.parametrize(("settings", "words"), [({"vectors": []}, "content alone"), ({"target": "cloze"}, "the past alone"), ({"r_min": 0.5}, "below r_max")])
def test_refusals(settings: dict[str, object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        model(**settings)
