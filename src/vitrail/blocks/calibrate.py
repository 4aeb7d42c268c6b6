"""Logits -> probabilities that mean what they say: Platt scaling and isotonic regression, fitted on held-out logits.

Platt, "Probabilistic outputs for support vector machines", 1999; Zadrozny and Elkan, KDD 2002. What is fitted lives in buffers of fixed size, so that it
is saved with the system.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Float = npt.NDArray[np.float64]
Method = Literal["platt", "isotonic", "none"]
KNOTS = 256
"""Points of the isotonic curve that are kept."""


class Calibrator(nn.Module):
    """Until it is fitted it is the plain sigmoid."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("line", torch.tensor([1.0, 0.0], dtype=torch.float64))
        self.register_buffer("knots", torch.full((2, KNOTS), torch.nan, dtype=torch.float64))

    def forward(self, logits: Tensor) -> Tensor:
        """logits (...,) -> probabilities (...,) float32"""
        line, knots = self.get_buffer("line"), self.get_buffer("knots")
        if self.method != "isotonic" or bool(knots.isnan().any()):
            return torch.sigmoid(logits.double() * line[0] + line[1]).float()
        found = np.interp(logits.detach().cpu().double().numpy(), *knots.cpu().numpy())
        return torch.from_numpy(np.asarray(found)).to(logits.device).float()

    def fit(self, logits: Float, labels: Float) -> None:
        """Fit to (R,) logits and (R,) labels of 0 and 1; nothing happens where a class is absent."""
        if self.method == "none" or labels.min(initial=1) == labels.max(initial=0):
            return
        if self.method == "platt":
            self.get_buffer("line").copy_(torch.from_numpy(platt(logits, labels)))
        else:
            self.get_buffer("knots").copy_(torch.from_numpy(isotonic(logits, labels)))


def platt(logits: Float, labels: Float) -> Float:
    """(2,) slope and intercept of the logistic curve of least log loss, with Platt's smoothed targets (n+ + 1)/(n+ + 2) and 1/(n- + 2)."""
    from scipy.optimize import minimize

    positives = labels.sum()
    targets = np.where(labels > 0.5, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))

    def loss(line: Float) -> tuple[float, Float]:
        z = line[0] * logits + line[1]
        error = 1 / (1 + np.exp(-np.clip(z, -500, 500))) - targets
        return float(np.mean(np.logaddexp(0, z) - targets * z)), np.array([np.mean(error * logits), np.mean(error)])

    found: Float = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    return found


def isotonic(logits: Float, labels: Float, knots: int = KNOTS) -> Float:
    """(2, knots): places and values of the rising curve nearest to the labels; between places it is straight.

    Steps of the fitted stairs become one point each, at their mean logit; rates are smoothed by half a positive and half a negative a step, so that
    none is exactly 0 or 1.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(logits, kind="stable")
    x, first = np.unique(logits[order], return_index=True)
    sizes = np.diff(np.append(first, len(order)))
    rates = np.add.reduceat(labels[order], first) / sizes
    stairs = isotonic_regression(rates, weights=sizes)
    starts = stairs.blocks[:-1]
    n = np.add.reduceat(sizes, starts).astype(np.float64)
    places = np.add.reduceat(x * sizes, starts) / n
    values = np.maximum.accumulate((stairs.x[starts] * n + 0.5) / (n + 1))
    if len(places) > knots:
        wanted = np.interp(np.linspace(0, 1, knots), np.cumsum(n) / n.sum(), places)
        places, values = wanted, np.interp(wanted, places, values)
    lack = knots - len(places)  # what is lacking repeats the last point: np.interp takes it for one
    return np.stack([np.pad(places, (0, lack), mode="edge"), np.pad(values, (0, lack), mode="edge")])
