"""DiffuMIN. Jiang et al., RecSys 2025. The target spans orthogonal channels, and the events of a long history go each to one of them: interests. A
diffusion model draws further interests near them, and a contrastive loss holds the two kinds of a person together. Differs from the released code, where
it contradicts itself: the denoiser's output is x0 both in its loss and in drawing (`output: noise` draws as released); the encoder of the newest events
has weights of its own; padding goes to no channel; channels have one sign; answers take means in place of noise, so that a score is a score.
Numbers: none yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.diffusion import Denoiser, Schedule, one_noisy
from vitrail.blocks.loss import info_nce
from vitrail.blocks.multi_interest import orthogonal
from vitrail.blocks.recurrent import padded
from vitrail.blocks.search import best
from vitrail.blocks.sequence import TransformerStack
from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt
from vitrail.data.batches import Impressions
from vitrail.errors import SettingError
from vitrail.systems.base import Given, Sizes, system
from vitrail.systems.history_ranker import HistorySettings, LongRanker, Look


@system("diffumin", stage="rank", family="ranking", year=2025, status="works")
class DiffuMIN(LongRanker):
    """Interests along orthogonal channels of the target, and interests drawn beside them."""

    toy = {"channels": 2, "layers": 1, "draw_steps": 1, "hidden": [16], "contrast": 0.0}

    class Config(HistorySettings):
        """Settings of diffumin."""

        long: PositiveInt = 1000
        """Newest events that go to channels."""
        channels: PositiveInt = 4
        """Orthogonal channels C; at most H."""
        chosen: PositiveInt = 100
        """Events a channel keeps at most, by inner product."""
        heads: PositiveInt = 2
        """Heads of attention; must divide H."""
        layers: PositiveInt = 2
        """Blocks of the denoiser."""
        noise_steps: PositiveInt = 1000
        """Steps of the noise."""
        draw_steps: PositiveInt = 10
        """Steps back in which an interest is drawn."""
        output: Literal["start", "noise"] = "start"
        """What the denoiser's output is taken for in drawing: x0, as it learns, or noise, as the released code has it."""
        temperature: PositiveFloat = 0.05
        """Of the contrastive loss."""
        diffusion: NonNegativeFloat = 0.01
        """Weight of the denoiser's loss; 0 together with `contrast`: no interests are drawn."""
        contrast: NonNegativeFloat = 0.001
        """Weight of the contrastive loss."""
        hidden: list[PositiveInt] = [128, 64]
        """Widths of the MLP on top."""
        batch: PositiveInt = 256
        """Impressions a step."""

        @property
        def searched(self) -> int:
            """As of other systems that search."""
            return self.long

    def build(self, config: Any, sizes: Sizes, given: Given) -> None:
        H, C = self.features.item_width, config.channels
        if H < C or H % config.heads:
            raise SettingError(f"channels={C} must be at most the width {H} of an item's vector (dim times its fields), and heads={config.heads} divide it.")
        if config.draw_steps > config.noise_steps:
            raise SettingError(f"draw_steps={config.draw_steps} must be at most noise_steps={config.noise_steps}.")
        self.span = nn.Linear(H, C * H)
        self.encoder = TransformerStack(H, 1, config.heads, config.dropout, length=config.length + 1)
        self.draws = bool(config.diffusion or config.contrast)
        if self.draws:
            self.schedule, self.denoiser = Schedule(config.noise_steps), Denoiser(H, config.layers, config.heads)
            self.heads = nn.ModuleList(nn.Sequential(nn.Linear(H, 4 * H), nn.ReLU(), nn.Linear(4 * H, H)) for _ in range(2))
        self.top((C * (1 + self.draws) + 2) * H)

    def interests(self, look: Look) -> tuple[Tensor, Tensor]:
        """Channels (B, H, C), and interests (B, C, H): the mean over the window of (event . channel) event, over the events that the channel has and keeps."""
        channels = orthogonal(self.span(look.target).view(look.at.shape[0], -1, self.config.channels))
        near = torch.einsum("nh,bhc->cbn", look.values, channels)
        own = near.argmax(0)  # (B, n): each item goes to one channel
        C, B, n = near.shape
        scores = near.view(C * B, n)
        places, mask = best(scores, look.events, replace(look.windows, of=look.windows.of.repeat(C)), self.config.chosen)
        at = look.events[places]
        mine = own.repeat(C, 1).gather(1, at) == torch.arange(C, device=at.device).repeat_interleave(B)[:, None]
        found = torch.einsum("bk,bkh->bh", scores.gather(1, at) * (mask & mine), F.embedding(at, look.values))
        return channels, found.view(C, B, -1).transpose(0, 1) / look.windows.lengths[look.windows.of].clamp(min=1)[:, None, None]

    def recent_at_target(self, batch: Impressions, look: Look) -> Tensor:
        """(B, H) the newest events and the target behind them through a Transformer, read at the target."""
        length = batch.mask.sum(1).expand(look.at.shape[0])
        events = F.pad(padded(self.happened(look.vectors(look.newest), batch), batch.mask), (0, 0, 0, 1)).expand(length.shape[0], -1, -1)
        row = torch.arange(length.shape[0], device=length.device)
        events = events.index_put((row, length), look.target)
        mask = F.pad(batch.mask, (0, 1)).expand(length.shape[0], -1).index_put((row, length), torch.ones_like(length, dtype=torch.bool))
        return self.encoder(events, mask)[row, length] if self.training else self.encoder.newest(events, mask)  # type: ignore[no-any-return]

    def believed(self, clean: Tensor, noisy: Tensor, channels: Tensor, t: Tensor) -> Tensor:
        """What the denoiser makes of noisy interests (B, C, H) at t (B, C) or (1, 1) -> (B, C, H)"""
        tokens, place = one_noisy(clean, noisy)
        return self.denoiser(tokens, channels.transpose(1, 2).flatten(0, 1), t.flatten(), place).view_as(clean)  # type: ignore[no-any-return]

    def drawn(self, clean: Tensor, channels: Tensor) -> Tensor:
        """(B, C, H) interests drawn near the clean ones: noised at a random step, then so many steps back. Outside of training no noise is added."""
        last = self.config.draw_steps - 1
        t = torch.full(clean.shape[:1], last, device=clean.device)
        t = torch.randint_like(t, self.schedule.steps) if self.training else t
        x = self.schedule.noised(clean, t, self._noise(clean))
        for n in range(last, -1, -1):
            output = self.believed(clean, x, channels, torch.full((1, 1), n, device=clean.device))
            x = self.schedule.back(x, output if self.config.output == "start" else self.schedule.start_of(x, output, n), n, self._noise(clean))
        return x

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn_like(like) if self.training else torch.zeros_like(like)

    def _read(self, batch: Impressions) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        look = self.look(batch)
        channels, raw = self.interests(look)
        clean = F.normalize(raw, dim=2)
        drawn = self.drawn(clean, channels) if self.draws else None
        both = [raw.flatten(1)] if drawn is None else [raw.flatten(1), drawn.flatten(1)]
        return self.finish(batch, *both, self.recent_at_target(batch, look), look.target), channels, clean, drawn

    def logit(self, batch: Impressions) -> Tensor:
        """[interests ; drawn interests ; newest events at the target ; target ; other fields] -> MLP"""
        return self._read(batch)[0]

    def loss(self, batch: Impressions) -> Tensor:
        """Log loss, the denoiser's, and the contrastive loss of interests and drawn ones."""
        logit, channels, clean, drawn = self._read(batch)
        loss = self.loss_of(logit, batch)
        if drawn is None:
            return loss
        t = torch.randint(self.schedule.steps, clean.shape[:2], device=clean.device)
        noisy = self.schedule.noised(clean.flatten(0, 1), t.flatten(), torch.randn_like(clean).flatten(0, 1)).view_as(clean)
        loss = loss + self.config.diffusion * F.mse_loss(self.believed(clean, noisy, channels, t), clean)
        if not self.config.contrast:
            return loss
        pairs = zip(self.heads[0](clean).unbind(1), self.heads[1](drawn).unbind(1), strict=True)
        return loss + self.config.contrast * torch.stack([info_nce(a, b, self.config.temperature) for a, b in pairs]).mean()
