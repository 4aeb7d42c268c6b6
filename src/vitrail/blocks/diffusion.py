"""Gaussian diffusion of vectors: noise by a schedule, and back. Ho et al., NeurIPS 2020, arXiv:2006.11239. B rows, C tokens, H width."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vitrail.blocks.sequence import Attention


class Schedule(nn.Module):
    """Linear betas; alpha-bar and the means of the reverse steps. `kept[t]` is alpha-bar after t + 1 steps."""

    def __init__(self, steps: int = 1000, low: float = 1e-4, high: float = 0.02) -> None:
        super().__init__()
        beta = torch.linspace(low, high, steps, dtype=torch.float64)
        kept = torch.cumprod(1 - beta, dim=0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        tables = {"kept": kept, "of_start": beta * before.sqrt() / (1 - kept), "of_now": (1 - before) * (1 - beta).sqrt() / (1 - kept)}
        tables["spread"] = (beta * (1 - before) / (1 - kept)).sqrt()
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)
        self.steps = steps

    def noised(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x (B, ..., H), t (B,) steps from 0, noise like x -> like x"""
        kept = self.get_buffer("kept")[t].view(-1, *[1] * (x.ndim - 1))
        return kept.sqrt() * x + (1 - kept).sqrt() * noise

    def back(self, x: Tensor, start: Tensor, t: int, noise: Tensor | None = None) -> Tensor:
        """One step back from x at t towards `start`, the x0 that is believed; noise like x for a draw, none for the mean."""
        mean = self.get_buffer("of_start")[t] * start + self.get_buffer("of_now")[t] * x
        return mean if noise is None or t == 0 else mean + self.get_buffer("spread")[t] * noise

    def start_of(self, x: Tensor, noise: Tensor, t: int) -> Tensor:
        """x0, where `noise` is the noise in x at t."""
        kept = self.get_buffer("kept")[t]
        return (x - (1 - kept).sqrt() * noise) / kept.sqrt()


class Denoiser(nn.Module):
    """Tokens, one of them noisy, and the single token they are read in view of -> the token without its noise.

    Blocks of self-attention, cross-attention to the one token (which, being one, is a map of it) and a feed-forward net, LayerNorm after each.
    """

    def __init__(self, width: int, layers: int = 2, heads: int = 2, inner: int = 3) -> None:
        """`width` H must be a multiple of `heads`; `inner`: times H is the width of the feed-forward net"""
        super().__init__()
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        self.attend = nn.ModuleList(Attention(width, heads, 0.0) for _ in range(layers))
        self.cross = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Linear(width, width)) for _ in range(layers))
        self.net = nn.ModuleList(nn.Sequential(nn.Linear(width, inner * width), nn.ReLU(), nn.Linear(inner * width, width)) for _ in range(layers))
        self.after_attend, self.after_cross, self.after_net = (nn.ModuleList(nn.LayerNorm(width) for _ in range(layers)) for _ in range(3))

    def forward(self, tokens: Tensor, view: Tensor, t: Tensor, place: Tensor) -> Tensor:
        """tokens (B, C, H), view (B, H), t (B,) steps, or (1,) one for all, place (B,) of the noisy token -> (B, H)"""
        x, row = tokens + self.time(sinusoid(t, tokens.shape[-1]))[:, None], torch.arange(tokens.shape[0], device=tokens.device)
        last, all_of = len(self.attend) - 1, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        for layer, attend in enumerate(self.attend):
            told = self.cross[layer](view)
            if layer == last:  # nothing but the noisy token is read of the last block
                x = x[row, place] + attend.at(x, place, all_of)  # type: ignore[operator]
            else:
                x = x + attend(x, False, None)
            x = self.after_cross[layer](self.after_attend[layer](x) + (told if layer == last else told[:, None]))
            x = self.after_net[layer](x + self.net[layer](x))
        return x if self.attend else x[row, place]


def one_noisy(clean: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (B, C, H) and noisy ones -> (B C, C, H), for each token all clean but itself; and (B C,) which that is."""
    B, C, H = clean.shape
    token = torch.arange(C, device=clean.device)
    own = (token[:, None] == token)[None, :, :, None]
    return torch.where(own, noisy[:, None], clean[:, None]).reshape(B * C, C, H), token.repeat(B)


def sinusoid(t: Tensor, width: int) -> Tensor:
    """t (B,) -> (B, width) sines and cosines of t at falling frequencies"""
    rates = torch.exp(-math.log(10_000) * torch.arange((width + 1) // 2, device=t.device) / max((width + 1) // 2, 1))
    angles = t[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]
