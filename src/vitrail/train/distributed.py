"""Several processes, one model: gradients are averaged after each backward pass. Start with torchrun."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn


def start() -> tuple[int, int]:
    """(rank, world). Joins the process group where torchrun set WORLD_SIZE; (0, 1) otherwise."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(_leave)
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _leave() -> None:
    """Its threads are ended before the interpreter is: else a process that is done aborts now and then."""
    if dist.is_initialized():
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter], world: int) -> None:
    """Every process ends with the mean gradient."""
    if world == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world


def share(model: nn.Module, world: int) -> None:
    """Every process starts from the weights of the first."""
    if world > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)
