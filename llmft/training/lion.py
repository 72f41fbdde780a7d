"""Lion, the optimizer of Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms"; torch has none."""

from collections.abc import Callable, Iterable
from typing import Any

import torch


class Lion(torch.optim.Optimizer):
    """A step by the sign of a mean of gradients: every weight moves by the learning rate.

    With a gradient g, a running mean m that begins at zero, and the decoupled weight decay d:

        w <- w - lr * (sign(beta1 * m + (1 - beta1) * g) + d * w)
        m <- beta2 * m + (1 - beta2) * g
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; weights without a gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                if (gradient := weight.grad) is None:
                    continue
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(mean.lerp(gradient, 1 - beta1).sign_(), alpha=-group["lr"])
                mean.lerp_(gradient, 1 - beta2)
        return loss
