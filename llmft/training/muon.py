"""Muon: steps of hidden matrices that turn all directions alike; torch has it since 2.9, for matrices alone.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", with the scale of Liu et al. 2025, "Muon
is Scalable for LLM Training", by which the learning rate of AdamW fits.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

# Jordan et al.: five turns of a * x + b * x³ + c * x⁵ bring every singular value from (0, 1] to about 0.7 to 1.2.
A, B, C = 3.4445, -4.7750, 2.0315
TURNS = 5


class Muon(torch.optim.AdamW):
    """AdamW, but for the groups with `hidden`, whose weights are matrices.

    With a gradient G of shape (n, m), a running mean M that begins at zero, and the decoupled weight decay d:

        M <- momentum * M + (1 - momentum) * G
        W <- W - lr * (0.2 * sqrt(max(n, m)) * orthogonal(momentum * M + (1 - momentum) * G) + d * W)
    """

    def __init__(self, params: Iterable[Any], momentum: float = 0.95, **adamw: Any) -> None:
        super().__init__(params, **adamw)
        for group in self.param_groups:
            group.setdefault("hidden", False)
            group["momentum"] = momentum
        # The fused kernel would take scaled gradients of fp16 and leave the scale to us.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; weights without a gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        taken = []
        for group in self.param_groups:
            for weight in group["params"] if group["hidden"] else ():
                if (gradient := weight.grad) is not None:
                    self._turn(weight, gradient, group)
                    taken.append((weight, gradient))
                    weight.grad = None  # so that AdamW leaves it alone
        super().step()
        for weight, gradient in taken:
            weight.grad = gradient
        return loss

    def _turn(self, weight: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            # AdamW loads no state without the number of steps.
            state["step"], state["mean"] = torch.tensor(0.0), torch.zeros_like(weight)
        state["step"] += 1
        mean = state["mean"]
        mean.lerp_(gradient, 1 - group["momentum"])
        step = orthogonal(gradient.lerp(mean, group["momentum"]))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(step, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Near U Vᵀ of the singular value decomposition U S Vᵀ, in bfloat16, by the iteration of Newton and Schulz."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()
    x = x / x.norm().clamp(min=1e-7)  # no singular value is above 1
    for _ in range(TURNS):
        square = x @ x.T
        x = A * x + (B * square + C * square @ square) @ x
    return x if wide else x.T
