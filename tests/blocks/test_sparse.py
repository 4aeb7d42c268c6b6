"""Masks whose number of ones never changes, and where they go."""

import pytest
import torch

from vitrail.blocks.sparse import Masks, cosine


def test_the_share_that_moves_falls_along_a_cosine():
    assert [round(cosine(t, 100, 0.5, 0.005), 4) for t in (0, 50, 100, 200)] == [0.5, 0.2525, 0.005, 0.005]


def test_a_move_by_hand():
    p = torch.tensor([[5.0, 1, 0, 0], [3, 2, 0, 0]], requires_grad=True)
    masks = Masks([p], 1.0)
    masks.mask_0.copy_(p != 0)
    p.grad = torch.tensor([[0.0, 9, 4, 1], [0, 7, 8, -6]])
    masks.move([p], 0.5)  # 1 and 2 go; of what is free, the gradients 9 (where a weight just went) and 8 are the largest
    assert p.tolist() == [[5, 0, 0, 0], [3, 0, 0, 0]]
    assert masks.mask_0.tolist() == [[True, True, False, False], [True, False, True, False]]
    p.grad = torch.tensor([[0.0, 1, 2, 3], [0, 4, 5, -6]])
    masks.move([p], 0.01)  # one at least goes; both weights that are still 0 are equal, and go first
    assert masks.mask_0.tolist() == [[True, False, False, False], [True, False, True, True]]


def test_equal_weights_go_together_and_as_many_come():
    p = torch.ones(4, 4, requires_grad=True)
    masks = Masks([p], 1.0)
    masks.mask_0[2:] = False
    masks.clear([p])
    p.grad = torch.arange(16.0).view(4, 4)
    masks.move([p], 0.1)
    assert not p.any() and masks.mask_0.tolist() == [[False] * 4, [False] * 4, [True] * 4, [True] * 4]


def test_nothing_moves_without_a_gradient_or_a_share():
    p = torch.randn(5, 5, requires_grad=True)
    masks = Masks([p], 0.5)
    before = masks.mask_0.clone()
    masks.move([p], 0.5)
    p.grad = torch.randn(5, 5)
    masks.move([p], 0.0)
    assert torch.equal(before, masks.mask_0)


def test_starts():
    torch.manual_seed(0)
    small, large = torch.randn(40, 40), 10 * torch.randn(40, 40)
    masks = Masks([small, large], 0.5, "magnitude")
    assert int(sum(m.sum() for m in masks.every())) == 1600 and masks.mask_1.sum() > 2 * masks.mask_0.sum()
    masks = Masks([small, large], 0.3)
    assert all(0.25 < float(m.float().mean()) < 0.35 for m in masks.every())


def distance(growth: str | None) -> float:
    """A quadratic with few true weights: the share of them that a mask has found in the end."""
    torch.manual_seed(0)
    truth = torch.zeros(20, 20)
    truth.view(-1)[torch.randperm(400)[:60]] = torch.randn(60).sign() * (1 + torch.rand(60))
    p = torch.nn.Parameter(torch.randn(20, 20) * 0.1)
    masks = Masks([p], 0.15)
    masks.clear([p])
    sizes = [int(masks.mask_0.sum())]
    optimizer = torch.optim.Adam([p], lr=0.1)
    for step in range(1, 201):
        optimizer.zero_grad()
        (p - truth).square().sum().backward()
        optimizer.step()
        masks.clear([p])
        assert not p[~masks.mask_0].any()
        if growth and step % 10 == 0:
            masks.move([p], cosine(step, 200, 0.5, 0.005), growth, seed=step)
            sizes.append(int(masks.mask_0.sum()))
    assert len(set(sizes)) == 1, "the budget is constant"
    return float(masks.mask_0[truth != 0].float().mean())


def test_what_moves_by_its_gradient_finds_the_weights_that_matter():
    fixed, by_lot, by_gradient = distance(None), distance("random"), distance("gradient")
    assert by_gradient > 0.9 > by_lot > fixed
    assert fixed == pytest.approx(0.15, abs=0.1)
