"""The one training loop: every trained system goes through it, none has a trainer of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from vitrail.data.batchers import draws
from vitrail.errors import VitrailError
from vitrail.resources import give_back
from vitrail.systems.base import System, TrainSettings
from vitrail.train import distributed
from vitrail.train.checkpoint import Best, Checkpoints, Progress
from vitrail.train.optimise import AdamW
from vitrail.train.progress import Bar, silent

Validate = Callable[[System], float]
Watch = Callable[[int, float], None]
"""(epoch from 1, validation value) after each validation; raising ends the fit."""
Left = Callable[[], float]
"""Seconds until training must stop; asked after each step."""


@dataclass
class Trained:
    """What the loop hands back; the model holds its best weights."""

    progress: Progress
    resumed: bool


def rate(settings: TrainSettings, step: int, total: int) -> float:
    """Learning rate of `step` out of `total` steps of the whole run."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(total - settings.warmup, 1)
    shape = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return settings.lr * shape[settings.schedule]


def number_format(settings: TrainSettings, device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bf16 where asked, or where a GPU has it; on a CPU fp32 is as fast for our sizes, and exact."""
    wanted = settings.precision == "bf16" or (settings.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


def reseed(seed: int, device: torch.device) -> None:
    """`torch.manual_seed` without a look at the devices that are not used: it takes a tenth of a short step otherwise."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def train(
    model: System,
    log: Any,
    settings: TrainSettings,
    *,
    seed: int,
    validate: Validate | None,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    device: torch.device | None = None,
    bar: Bar = silent,
    epochs: int | None = None,
    watch: Watch | None = None,
    left: Left | None = None,
) -> Trained:
    """Fit `model` on `log` (a Log; for a ranker, its training rows); with `validate`, stop early on it and end with the weights that did best.

    `epochs` fixes the number of epochs (a refit). `watch` is told each validation, after a resume those before it too. A run
    killed at any moment and resumed from `checkpoints` ends with the weights of an uninterrupted run, bit for bit on a CPU; so
    does one that `left` stopped, in the middle of an epoch, with the best weights so far (`progress.cut`).
    Raises VitrailError where the loss is no longer finite.
    """
    device = device or torch.device("cpu")
    rank, world = distributed.start()
    model.to(device)
    batcher = model.batcher(log, seed, rank, world)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = AdamW(parameters, settings.betas, settings.weight_decay)
    best = Best(checkpoints.run if checkpoints else None)
    progress = checkpoints.load(model, optimizer, best) if checkpoints and resume else Progress()
    resumed, progress.cut = progress.epoch > 0 or progress.step > 0, False
    distributed.share(model, world)
    last, steps = epochs or settings.epochs, batcher.steps()
    saved = time.monotonic()
    for record in progress.curve if watch else ():
        _tell(watch, record, settings)

    def checkpoint(now: bool = False) -> None:
        nonlocal saved
        if checkpoints and rank == 0 and (now or time.monotonic() - saved >= settings.checkpoint_seconds):
            checkpoints.save(model, optimizer, progress, best)
            saved = time.monotonic()

    with bar(last * steps, progress.epoch * steps + progress.step) as advance:
        while progress.epoch < last and not progress.finished:
            started, epoch, mark = time.monotonic(), progress.epoch, progress.seconds
            if progress.step == 0:
                give_back()
                model.on_epoch(epoch, draws(seed, epoch, 0, purpose=9))
            model.train()
            seeds = draws(seed, epoch, 0, purpose=7 + 1000 * rank).integers(2**62, size=steps)
            for batch in batcher.epoch(epoch, progress.step):
                reseed(int(seeds[progress.step]), device)
                with number_format(settings, device):
                    loss = model.loss(batch.to(device))
                optimizer.clear()
                loss.backward()
                if settings.clip or world > 1:
                    optimizer.fill()
                distributed.average_gradients(parameters, world)
                if settings.clip:
                    torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
                optimizer.step(rate(settings, epoch * steps + progress.step, last * steps))
                model.after_step(parameters)
                progress.loss_sum += float(loss.detach())
                progress.step += 1
                progress.seconds = mark + time.monotonic() - started
                advance(1, f"epoch {epoch + 1} loss {progress.loss_sum / progress.step:.4f}" + _best(progress, settings))
                checkpoint()
                if left is not None and progress.step < steps and left() <= 0:
                    progress.cut = True
                    break
            if progress.cut:
                break
            record = {"epoch": epoch + 1, "loss": progress.loss_sum / max(progress.step, 1), "seconds": round(progress.seconds - mark, 3)}
            if not math.isfinite(record["loss"]):
                raise VitrailError(f"The loss is no longer finite in epoch {epoch + 1}: lower lr, or set clip (a largest gradient norm).")
            if validate and ((epoch + 1) % settings.validate_every == 0 or epoch + 1 == last):
                record[settings.metric] = value = validate(model)
                if progress.best_value is None or value > progress.best_value:
                    progress.best_value, progress.best_epoch, progress.bad = value, epoch + 1, 0
                    best.keep(model.state_dict())
                else:
                    progress.bad += 1
                progress.finished = bool(settings.patience) and progress.bad >= settings.patience
            progress.curve.append(record)
            _tell(watch, record, settings)
            progress.epoch, progress.step, progress.loss_sum = epoch + 1, 0, 0.0
            checkpoint()
        progress.finished = not progress.cut
    if checkpoints and rank == 0:
        checkpoint(now=True)
    optimizer.forget()
    if progress.cut and not best and validate:  # stopped before the first validation: what there is, is measured, and no resumed run knows it
        progress.best_value, progress.best_epoch = validate(model), progress.epoch + 1
        best.keep(model.state_dict())
    if best:
        model.load_state_dict(best.tensors())
        best.clear()
    return Trained(progress, resumed)


def _tell(watch: Watch | None, record: dict[str, Any], settings: TrainSettings) -> None:
    if watch and settings.metric in record:
        watch(record["epoch"], record[settings.metric])


def _best(progress: Progress, settings: TrainSettings) -> str:
    return "" if progress.best_value is None else f", best {settings.metric} {progress.best_value:.4f} (epoch {progress.best_epoch})"
