"""Muon: steps of hidden matrices that turn all directions alike; torch has it since 2.9, for matrices alone.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", with the scale of Liu et al. 2025, "Muon
is Scalable for LLM Training", by which the learning rate of AdamW fits.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.adamw import adamw

from llmft.training.hardware import bfloat16

# Jordan et al.: five turns of a * x + b * x³ + c * x⁵ bring every singular value from (0, 1] to about 0.7 to 1.2.
A, B, C = 3.4445, -4.7750, 2.0315
TURNS = 5


class Muon(torch.optim.Optimizer):
    """For the groups with `hidden`, whose weights are matrices; for all others it is AdamW.

    With a gradient G of shape (n, m), a running mean M that begins at zero, and the decoupled weight decay d:

        M <- momentum * M + (1 - momentum) * G
        W <- W - lr * (0.2 * sqrt(max(n, m)) * orthogonal(momentum * M + (1 - momentum) * G) + d * W)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        fused: bool = True,
    ) -> None:
        own = {"betas": betas, "eps": eps, "momentum": momentum, "fused": fused, "hidden": False}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **own})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; weights without a gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not group["hidden"]:
                self._adamw(weights, group)
                continue
            for weight in weights:
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                step = orthogonal(weight.grad.lerp(mean, group["momentum"]))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(step, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)
        return loss

    def _adamw(self, weights: list[torch.Tensor], group: dict[str, Any]) -> None:
        states = [self.state[weight] for weight in weights]
        for weight, state in zip(weights, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=weight.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        if weights:
            adamw(
                weights,
                [weight.grad for weight in weights],  # type: ignore[misc]
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=group["fused"],
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Near U Vᵀ of the singular value decomposition U S Vᵀ, by the iteration of Newton and Schulz.

    In bfloat16 where the chip computes in it: without (AVX2), 384 x 384 took 576 ms in it, and 15 in float32.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).to(torch.bfloat16 if bfloat16(matrix.device.type)[0] else torch.float32)
    x = x / x.norm().clamp(min=1e-7)  # no singular value is above 1
    for _ in range(TURNS):
        square = x @ x.T
        x = A * x + (B * square + C * square @ square) @ x
    return x if wide else x.T
