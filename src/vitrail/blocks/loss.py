"""Losses as plain functions of tensors. Letters: B rows, K negatives, N items, D width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al., UAI 2009): mean of -log sigmoid(positive - negative).

    positive (B,), negative (B, K) -> scalar.
    """
    return F.softplus(negative - positive[:, None]).mean()


def bce(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy of SASRec: the mean over positives plus the mean over negatives.

    positive (B,), negative (B, K) -> scalar; 2 ln 2 where all logits are 0.
    """
    return F.softplus(-positive).mean() + F.softplus(negative).mean()


def gbce(positive: Tensor, negative: Tensor, n_items: int, calibration: float) -> Tensor:
    """Generalised BCE (Petrov and Macdonald, RecSys 2023): the positive probability is raised to the power beta.

    positive (B,), negative (B, K) -> scalar. calibration t in [0, 1]: 0 is plain BCE, 1 fully corrects the sampling rate
    alpha = K / (N - 1); beta = alpha (t (1 - 1/alpha) + 1/alpha).
    """
    alpha = negative.shape[1] / max(n_items - 1, 1)
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    return beta * F.softplus(-positive).mean() + F.softplus(negative).mean()


def sampled_softmax(positive: Tensor, negative: Tensor, same: Tensor | None = None) -> Tensor:
    """Cross-entropy of the positive against K sampled negatives (drawn uniformly, so no correction of logits).

    positive (B,), negative (B, K), same (B, K) true where a negative is the positive itself (left out) -> scalar.
    """
    if same is not None:
        negative = negative.masked_fill(same, -torch.inf)
    return (torch.logsumexp(torch.cat([positive[:, None], negative], 1), 1) - positive).mean()


class _BlockedCrossEntropy(torch.autograd.Function):
    """Computes loss and both gradients block by block in the forward pass: no (B, N) matrix is ever kept."""

    @staticmethod
    def forward(ctx, h: Tensor, E: Tensor, targets: Tensor, block: int) -> Tensor:  # type: ignore[no-untyped-def]
        rows = len(h)
        grad_h, grad_E = torch.empty_like(h), torch.zeros_like(E)
        total = h.new_zeros(())
        for start in range(0, rows, block):
            x, t = h[start : start + block], targets[start : start + block]
            logits = x @ E.T
            picked = logits.gather(1, t[:, None])
            top = logits.amax(1, keepdim=True)
            p = logits.sub_(top).exp_()
            mass = p.sum(1, keepdim=True)
            total += (mass.log() + top - picked).sum()
            p /= mass
            p.scatter_add_(1, t[:, None], p.new_full((len(t), 1), -1.0))
            torch.mm(p, E, out=grad_h[start : start + block])
            grad_E.addmm_(p.T, x)
        ctx.save_for_backward(grad_h.div_(rows), grad_E.div_(rows))
        return total / rows

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[no-untyped-def]
        grad_h, grad_E = ctx.saved_tensors
        return gradients[0] * grad_h, gradients[0] * grad_E, None, None


def full_softmax(h: Tensor, E: Tensor, targets: Tensor, block: int | None = None) -> Tensor:
    """Cross-entropy over all N items, mean over rows, in blocks of rows whose logits stay in the processor's cache.

    h (B, D) float32, E (N, D), targets (B,) -> scalar; ln N where all logits are 0.
    """
    if block is None:
        block = max(32, min(len(h), (1 << 21 if h.device.type == "cpu" else 1 << 26) // max(len(E), 1)))
    loss: Tensor = _BlockedCrossEntropy.apply(h.contiguous(), E, targets, block)
    return loss


def l2_of_batch(*embeddings: Tensor) -> Tensor:
    """Half the summed squared norm of embeddings (B, D), divided by B: the regulariser of LightGCN and BPR."""
    total = sum((e.square().sum() for e in embeddings), start=embeddings[0].new_zeros(()))
    return total / 2 / len(embeddings[0])
