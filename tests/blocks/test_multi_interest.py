"""Several interests: the checks of the MIND/ComiRec, HCN and DiffuMIN cards that hand values allow."""

import math

import pytest
import torch
import torch.nn.functional as F

from vitrail.blocks.multi_interest import MultiInterestExtractor, compete, orthogonal, redundancy, squash

MASK = torch.arange(6) < torch.tensor([[6], [3], [0]])


def test_squash():
    """|[3, 4]| = 5, so the length becomes 25 / 26."""
    torch.testing.assert_close(squash(torch.tensor([3.0, 4.0])), torch.tensor([0.576923, 0.769231]))


@pytest.mark.parametrize("routing", ["capsules", "attention", "slots"])
def test_padding_and_order_do_not_matter_and_nothing_is_nothing(routing):
    torch.manual_seed(0)
    extract, events = MultiInterestExtractor(routing, 4, 3), torch.randn(3, 6, 4)
    found = extract(events, MASK)
    assert found.shape == (3, 3, 4) and not found[2].any()
    torch.testing.assert_close(extract(events[1:2, :3], MASK[1:2, :3]), found[1:2])
    turned = torch.stack([events[0].flip(0), torch.cat([events[1, :3].flip(0), torch.full((3, 4), 9.0)]), events[2]])
    torch.testing.assert_close(extract(turned, MASK), found)
    found.sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in extract.parameters())


def test_one_capsule_has_everything():
    torch.manual_seed(0)
    extract, events = MultiInterestExtractor("capsules", 4, 1), torch.randn(3, 6, 4)
    wanted = squash((extract.maps(events) * MASK[..., None]).sum(1))
    torch.testing.assert_close(extract(events, MASK)[:, 0], wanted)


def test_attention_that_knows_nothing_is_the_mean():
    extract, events = MultiInterestExtractor("attention", 4, 3), torch.randn(3, 6, 4)
    torch.nn.init.zeros_(extract.score.weight)
    torch.testing.assert_close(extract(events, MASK)[1, 2], events[1, :3].mean(0))


def test_one_centre_moves_to_the_mean():
    events = torch.randn(3, 6, 4)
    torch.testing.assert_close(compete(torch.randn(3, 1, 4), events, MASK)[1, 0], events[1, :3].mean(0))


def test_centres_that_compete_part_and_others_collapse():
    """Two clusters of 20 around (4, 0) and (0, 4); centres start at (1, .1) and (.9, .2)."""
    torch.manual_seed(0)
    events = (torch.tensor([[4.0, 0.0], [0.0, 4.0]]).repeat_interleave(20, 0) + 0.1 * torch.randn(40, 2))[None]
    mask, ends = torch.ones(1, 40, dtype=torch.bool), {}
    for over in ("centres", "time"):
        centres = torch.tensor([[[1.0, 0.1], [0.9, 0.2]]])
        for _ in range(3):
            centres = compete(centres, events, mask, over=over)
        ends[over] = centres[0]
    torch.testing.assert_close(ends["centres"], torch.tensor([[4.0, 0.0], [0.0, 4.0]]), atol=0.15, rtol=0)
    torch.testing.assert_close(ends["time"], torch.tensor([[4.0, 0.0], [4.0, 0.0]]), atol=0.15, rtol=0)


def test_slots_are_less_alike_than_attention():
    torch.manual_seed(0)
    events, mask = torch.randn(30, 20, 8) + 2 * torch.randn(30, 1, 8), torch.ones(30, 20, dtype=torch.bool)

    def alike(x):
        unit = F.normalize(x, dim=-1)
        return float(((unit @ unit.transpose(1, 2)).sum((1, 2)) - 4).mean().detach() / 12)

    assert alike(MultiInterestExtractor("slots", 8, 4)(events, mask)) < alike(MultiInterestExtractor("attention", 8, 4)(events, mask)) - 0.1


def test_orthogonal_channels():
    torch.manual_seed(0)
    x = torch.randn(5, 6, 3, requires_grad=True)
    Q = orthogonal(x)
    torch.testing.assert_close(Q.transpose(1, 2) @ Q, torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(orthogonal(7 * x), Q)
    torch.testing.assert_close(Q[:, :, 0], F.normalize(x[:, :, 0], dim=1))  # a positive diagonal: the first keeps its direction
    Q.sum().backward()
    assert bool(torch.isfinite(x.grad).all())


def test_redundancy():
    assert redundancy(torch.eye(3)[None]).item() == 0.0 and redundancy(torch.ones(2, 3, 4)).item() == pytest.approx(1.0)
    half = torch.tensor([[[1.0, 0.0], [math.sqrt(0.5), math.sqrt(0.5)]]])
    assert redundancy(half).item() == pytest.approx(0.5) and redundancy(torch.ones(2, 1, 4)).item() == pytest.approx(0.0, abs=1e-6)
