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
        steps, first, second = ([self._state[n][place] for n, _, _ in moved] for place in range(3))
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            [p for _, p, _ in moved], [g for _, _, g in moved], first, second, [], steps, lr=lr, beta1=self._betas[0], beta2=self._betas[1],
            weight_decay=self._decay, eps=EPS, amsgrad=False, maximize=False,
        )  # fmt: skip

    def clear(self) -> None:
        """Forget the gradients."""
        for p in self._parameters:
            p.grad = None

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
