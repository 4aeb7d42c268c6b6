"""A variational autoencoder whose code has a part for each of several prototypes (MacridVAE, Ma et al., NeurIPS 2019), and attention across two such codes
(DGVAE, Zhou and Miao, TMM 2024).

Letters: B rows, N things that rows weigh (items or words), K prototypes, D width of a part.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.blocks.drop import dropout


class Prototypes(nn.Module):
    """Rows of weights over N things -> K parts (D), by what of each row belongs to each prototype; and back."""

    def __init__(self, things: int, dim: int, prototypes: int, *, temperature: float, noise: float) -> None:
        """`temperature` divides cosines, `noise` is the standard deviation of the code in training."""
        super().__init__()
        self.temperature, self.noise = temperature, noise
        self.read = nn.Parameter(nn.init.xavier_normal_(torch.empty(max(things, 1), 2 * dim)))
        self.shift = nn.Parameter(nn.init.normal_(torch.empty(2 * dim), std=0.01))
        self.things = nn.Parameter(nn.init.xavier_normal_(torch.empty(max(things, 1), dim)))
        self.prototypes = nn.Parameter(nn.init.xavier_normal_(torch.empty(prototypes, dim)))

    def belonging(self) -> Tensor:
        """(N, K) the logarithm of the share of each thing that belongs to each prototype; in training a draw around it (Gumbel-softmax)."""
        logits = F.normalize(self.things, dim=1) @ F.normalize(self.prototypes, dim=1).T / self.temperature
        if self.training:
            logits = logits - torch.empty_like(logits).exponential_().log()
        return logits.log_softmax(1)

    def encode(self, x: Tensor, belonging: Tensor, rate: float, smooth: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """x (B, N), log shares (N, K), rate of dropout, what x is smoothed by -> code (B, K, D), of length 1, and log variances (B, K, D)."""
        codes, variances = [], []
        for share in belonging.exp().T:
            part = F.normalize(x * share, dim=1)
            part = part if smooth is None else (smooth(part) + part) / 2
            mean, logvar = (dropout(part, rate) @ self.read + self.shift).chunk(2, 1)
            code, logvar = F.normalize(mean, dim=1), -logvar
            if self.training:
                code = F.normalize(code + self.noise * torch.randn_like(code) * torch.exp(logvar / 2), dim=1)
            codes.append(code)
            variances.append(logvar)
        return torch.stack(codes, 1), torch.stack(variances, 1)

    def decode(self, code: Tensor, belonging: Tensor) -> Tensor:
        """code (B, K, D), log shares (N, K) -> (B, N) log of the sum over prototypes of share times exp(cosine-like logit)."""
        unit, total = F.normalize(self.things, dim=1), None
        for part, share in zip(code.unbind(1), belonging.T, strict=True):
            logits = part @ unit.T / self.temperature + share
            total = logits if total is None else torch.logaddexp(total, logits)
        assert total is not None
        return total


def spread_kl(logvar: Tensor) -> Tensor:
    """KL divergence from a standard normal that the variances alone make, summed over parts and width, mean over rows: (B, K, D) -> scalar."""
    return -0.5 * (1 + logvar - logvar.exp()).sum((1, 2)).mean()


def across(asks: Tensor, told: Tensor) -> Tensor:
    """asks, told (B, K, D) -> (B, K, D): each part of `asks` reads the parts of `told`, by tanh of their product times the sigmoid of how much nearer than
    the others they are (minus L1 distance, less its mean)."""
    near = -(asks[:, :, None] - told[:, None]).abs().sum(-1)
    return (torch.tanh(asks @ told.transpose(1, 2)) * torch.sigmoid(near - near.mean(2, keepdim=True))) @ told


def parts_agree(a: Tensor, b: Tensor) -> Tensor:
    """Low where part k of `a` goes with part k of `b` and with no other (a bound on mutual information): a, b (B, K, D) -> scalar."""
    products = a @ b.transpose(1, 2)
    kinds = products.shape[1]
    same = F.softplus(-products.diagonal(dim1=1, dim2=2)).mean()
    if kinds == 1:
        return same
    off = ~torch.eye(kinds, dtype=torch.bool, device=a.device)
    return same + F.softplus(products[:, off]).mean()
