"""Diffusion: the schedule of the DiffuMIN card, and the way back to a start that is known."""

import pytest
import torch

from vitrail.blocks.diffusion import Denoiser, Schedule, one_noisy, sinusoid


def test_the_schedule():
    kept = Schedule().get_buffer("kept")
    assert kept[9].item() == pytest.approx(0.998105, abs=1e-6) and kept[499].item() == pytest.approx(0.078587, abs=1e-6)
    assert kept[999].item() == pytest.approx(4.04e-5, rel=1e-2)


def test_ten_steps_back_towards_the_truth_end_at_it():
    torch.manual_seed(0)
    schedule, truth, x = Schedule(), torch.randn(3, 4), torch.randn(3, 4)
    for t in range(9, -1, -1):
        x = schedule.back(x, truth, t, torch.randn(3, 4))
    torch.testing.assert_close(x, truth, atol=1e-5, rtol=1e-4)
    noise, t = torch.randn(3, 4), torch.tensor([5, 5, 5])
    torch.testing.assert_close(schedule.start_of(schedule.noised(truth, t, noise), noise, 5), truth, atol=1e-5, rtol=1e-4)


def test_the_mean_of_a_step_back_is_that_of_the_posterior():
    """By the product of two normal densities: q(x_{t-1} | x0) and q(x_t | x_{t-1})."""
    schedule, start, now, t = Schedule(), torch.tensor(2.0), torch.tensor(-1.0), 300
    kept, before = schedule.get_buffer("kept")[t].double(), schedule.get_buffer("kept")[t - 1].double()
    alpha = kept / before
    precision = 1 / (1 - before) + alpha / (1 - alpha)
    wanted = (before.sqrt() * start / (1 - before) + alpha.sqrt() * now / (1 - alpha)) / precision
    assert schedule.back(now, start, t).item() == pytest.approx(wanted.item(), rel=1e-4)
    drawn = schedule.back(now, start, t, torch.tensor(1.0)) - schedule.back(now, start, t)
    assert drawn.item() == pytest.approx((1 / precision).sqrt().item(), rel=1e-3)


def test_a_denoiser_reads_the_token_it_is_told():
    torch.manual_seed(0)
    denoise = Denoiser(4).eval()
    tokens, view, t = torch.randn(2, 3, 4), torch.randn(2, 4), torch.tensor([0, 700])
    out = denoise(tokens, view, t, torch.tensor([1, 2]))
    swapped = denoise(tokens[:, [1, 0, 2]], view, t, torch.tensor([0, 2]))
    torch.testing.assert_close(out, swapped)  # tokens have no order
    assert not torch.allclose(out, denoise(tokens, view, t + 9, torch.tensor([1, 2])))
    assert sinusoid(t, 5).shape == (2, 5)


def test_all_tokens_are_clean_but_one():
    tokens, place = one_noisy(torch.zeros(2, 3, 12), torch.ones(2, 3, 12))
    assert place.tolist() == [0, 1, 2, 0, 1, 2] and tokens.sum((1, 2)).tolist() == [12.0] * 6
    assert all(bool(tokens[row, c].all()) for row, c in enumerate(place.tolist()))
