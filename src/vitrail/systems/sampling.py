"""The losses every trained host shares, as slots, and the correction of logits for how negatives were drawn."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from vitrail.blocks import loss as losses
from vitrail.config import NonNegativeFloat, PositiveFloat, PositiveInt, Share
from vitrail.errors import SettingError
from vitrail.systems.base import Given, TrainSettings

Loss = Literal["bpr", "bpr_max", "bce", "gbce", "ccl", "sampled_softmax", "full_softmax"]


class LossSettings(TrainSettings):
    """Settings of the losses; every two-tower and next-item system has them."""

    loss: Loss = "bpr"
    """What the training minimises."""
    negatives: PositiveInt = 1
    """Sampled items K beside each positive."""
    power: NonNegativeFloat = 0.0
    """Negatives are drawn with chance ~ count ** power among the items seen in training; 0: uniformly."""
    correct: bool = True
    """logQ correction: sampled_softmax takes the log chance of being drawn off every logit (no effect with power 0)."""
    cosine: bool = False
    """Score by cosine instead of the dot product; ccl is meant for it."""
    temperature: PositiveFloat = 1.0
    """Divides the scores in the softmax losses."""
    calibration: Share = 0.75
    """t of gbce."""
    margin: float = 0.9
    """m of ccl: the cosine above which a negative counts."""
    negative_weight: PositiveFloat = 150.0
    """Weight of the negatives in ccl."""
    score_penalty: NonNegativeFloat = 1.0
    """Weight of the score penalty in bpr_max."""
    nested: tuple[PositiveInt, ...] = ()
    """Widths whose prefixes are trained to be good vectors of their own (Matryoshka), rising, the last the full one; none: the full one alone."""


def log_chance(config: LossSettings, given: Given, n_items: int) -> Tensor | None:
    """(N,) log Q, the log chance of each item to be drawn, up to a constant; none where no correction is asked or needed.

    Items without a training event, never drawn, get the lowest finite value. Raises TypeError where the system did not
    declare the counts it needs.
    """
    if config.loss != "sampled_softmax" or not config.correct or config.power == 0:
        return None
    counts = given.counts(n_items)
    if counts is None:
        raise TypeError('a system with sampled_softmax must declare needs.given "item_counts" or "interactions"')
    return config.power * counts.clamp(min=1).double().log().float()


def only_loss(name: str, config: LossSettings, known: Loss) -> None:
    """Raises SettingError where `loss` is set for a system whose paper has one of its own, which stands under `known`."""
    if config.loss != known:
        raise SettingError(f'System "{name}" has a loss of its own and cannot be trained with loss={config.loss}: leave it at {known}.')
    if config.nested:
        raise SettingError(f'System "{name}" has a loss of its own, which is not summed over nested widths: leave nested out.')


def from_samples(
    config: Any, positive: Tensor, negative: Tensor, items: Tensor, negatives: Tensor, n_items: int, log_q: Tensor | None
) -> Tensor:
    """The chosen loss from scores of positives and of sampled negatives.

    positive (B,), negative (B, K) scores; items (B,), negatives (B, K) or shared (K,) codes; log_q (N,) or none -> scalar.
    """
    if config.loss == "bpr":
        return losses.bpr(positive, negative)
    if config.loss == "bce":
        return losses.bce(positive, negative)
    if config.loss == "gbce":
        return losses.gbce(positive, negative, n_items, config.calibration)
    if config.loss == "ccl":
        return losses.ccl(positive, negative, config.margin, config.negative_weight)
    same = items[:, None] == negatives
    if config.loss == "bpr_max":
        return losses.bpr_max(positive, negative, config.score_penalty, same)
    positive, negative = positive / config.temperature, negative / config.temperature
    if log_q is not None:
        positive, negative = positive - log_q[items], negative - log_q[negatives]
    return losses.sampled_softmax(positive, negative, same)
