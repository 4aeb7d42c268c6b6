"""AdamW (Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101) as one fused call a step.

The arithmetic is PyTorch's own kernel and the state has the names of torch.optim.AdamW, so checkpoints of either can be resumed. Its
Python around the kernel takes as long as the kernel where tables are small, and making one imports the compiler: a second before
the first step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

EPS = 1e-8
"""Added to the root of the second moment."""
BLOCK = 1 << 18
"""Numbers of a table that are stepped at a time where its gradient holds some of its rows."""


class AdamW:
    """Steps parameters along their gradients; those without one stay as they are."""

    def __init__(self, parameters: Iterable[nn.Parameter], betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0) -> None:
        self._parameters, self._betas, self._decay = list(parameters), betas, weight_decay
        self._state: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        """index -> (steps taken, first moment, second moment)"""

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One step at learning rate `lr`."""
        moved = [(n, p, p.grad) for n, p in enumerate(self._parameters) if p.grad is not None]
        if not moved:
            return
        for n, p, _ in moved:
            if n not in self._state:
                # the moments lie in memory as the parameter does: the kernel reads all of them in one order
                self._state[n] = torch.zeros((), device=p.device), torch.zeros_like(p), torch.zeros_like(p)
        torch._foreach_add_([self._state[n][0] for n, _, _ in moved], 1)
        whole = [(p, g, *self._state[n]) for n, p, g in moved if not g.is_sparse]
        if whole:
            self._apply(lr, *map(list, zip(*whole, strict=True)))
        for n, p, g in moved:
            if g.is_sparse:
                self._by_blocks(lr, p, g.coalesce(), *self._state[n])

    def _apply(self, lr: float, tables: list[Tensor], gradients: list[Tensor], steps: list[Tensor], first: list[Tensor], second: list[Tensor]) -> None:
        torch._fused_adamw_(
            tables, gradients, first, second, [], steps, lr=lr, beta1=self._betas[0], beta2=self._betas[1],
            weight_decay=self._decay, eps=EPS, amsgrad=False, maximize=False,
        )  # fmt: skip

    def _by_blocks(self, lr: float, p: Tensor, gradient: Tensor, step: Tensor, first: Tensor, second: Tensor) -> None:
        """The step of a table of which the gradient holds some rows; the others have one of 0, which still moves them. Blocks lie in the cache."""
        rows, values, size = gradient.indices()[0], gradient.values(), max(1, BLOCK // p.shape[1])
        room = torch.zeros(min(size, len(p)), *p.shape[1:], dtype=p.dtype, device=p.device)
        starts = range(0, len(p), size)
        bounds = torch.searchsorted(rows, torch.tensor([*starts, len(p)], device=rows.device)).tolist()
        for start, a, b in zip(starts, bounds, bounds[1:], strict=False):
            part, there = slice(start, start + size), rows[a:b] - start
            room[there] = values[a:b]
            self._apply(lr, [p[part]], [room[: len(p) - start]], [step], [first[part]], [second[part]])
            room[there] = 0.0

    def fill(self) -> None:
        """Make gradients that hold some rows whole, for what reads all gradients as they are."""
        for p in self._parameters:
            if p.grad is not None and p.grad.is_sparse:
                p.grad = p.grad.to_dense()

    def clear(self) -> None:
        """Forget the gradients."""
        for p in self._parameters:
            p.grad = None

    def forget(self) -> None:
        """Forget gradients and moments: training is over."""
        self.clear()
        self._state = {}

    def tensors(self) -> dict[str, Tensor]:
        """The state as `<index of the parameter>.<name>` -> tensor."""
        names = ("step", "exp_avg", "exp_avg_sq")
        return {f"{n}.{name}": value for n, values in self._state.items() for name, value in zip(names, values, strict=True)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        for n, p in enumerate(self._parameters):
            if f"{n}.step" in tensors:
                step, first, second = (tensors[f"{n}.{name}"].to(p.device) for name in ("step", "exp_avg", "exp_avg_sq"))
                self._state[n] = step, torch.zeros_like(p).copy_(first), torch.zeros_like(p).copy_(second)
