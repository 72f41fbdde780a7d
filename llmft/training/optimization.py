"""Optimizers, parameter groups, learning rate schedules, and the number of steps.

At the end are three optimizers that torch does not have: Adam for tables of which a batch holds few rows, Lion, and
Muon with AdamW for all but hidden matrices.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from transformers.pytorch_utils import Conv1D

from llmft.models.id_embedding import IdEmbedding, rows_with_gradient
from llmft.models.layers import backbone_weights, layer_depths, parts
from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.schema.optimizer import OptimizerConfig, SchedulerConfig
from llmft.schema.problem import Problem, UserError
from llmft.training import processes
from llmft.training.features import FeatureSet
from llmft.training.hardware import bfloat16

COUPLED = ("adam", "sgd", "rmsprop", "adagrad")
"""Optimizers that add `weight_decay * w` to the gradient."""
MAX_TOKENS = 8192  # tokens, or rows of a table, in one forward pass of `trainer.batch_size=all`


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a run over the weights that train, with the penalties `l1` and `l2` as hooks on its step.

    Raises:
        UserError: for `layer_decay` or muon if the model has no numbered layers.
    """
    cls, keys = optimizer_class(config)
    tables = [module for module in model.modules() if isinstance(module, IdEmbedding)]
    for table in tables:
        # Of processes that share a step, not all hold the same rows.
        table.use_sparse_gradients(config.name in ("adam", "adamw") and processes.world_size() == 1)
    if any(table.sparse for table in tables):
        cls, keys = SparseRowsAdam, {"betas": config.betas, "eps": config.eps, "decoupled": config.name == "adamw"}
    built = cls(parameter_groups(config, model), lr=config.lr, **keys)
    if tables and config.weight_decay:
        built.register_step_pre_hook(_decay_rows)
    if config.l2:
        built.register_step_pre_hook(_add_l2)
    if config.l1:
        built.register_step_post_hook(_shrink_by_l1)
    return built


def optimizer_class(config: OptimizerConfig) -> tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]:
    """The optimizer's class and arguments, except learning rate and weight decay, which each group has."""
    adam = {
        "betas": config.betas,
        "eps": config.eps,
        # One kernel instead of a loop over tensors: a step of MiniLM takes 25 ms instead of 60 ms on 2 cores. In fp16
        # the fused kernel unscales the gradients itself, so a hook before the step would add to scaled ones.
        "fused": not (config.l1 or config.l2),
    }
    rules: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
        "adam": (torch.optim.Adam, adam),
        "adamw": (torch.optim.AdamW, adam),
        "sgd": (torch.optim.SGD, {"momentum": config.momentum, "nesterov": config.nesterov}),
        "rmsprop": (torch.optim.RMSprop, {"momentum": config.momentum, "alpha": config.alpha, "eps": config.eps}),
        "adagrad": (torch.optim.Adagrad, {"eps": config.eps}),
        "adafactor": (torch.optim.Adafactor, {"beta2_decay": config.beta2_decay}),
        "lion": (Lion, {"betas": config.betas}),
        "muon": (Muon, adam | {"momentum": config.momentum}),
    }
    return rules[config.name]


def parameter_groups(config: OptimizerConfig, model: nn.Module) -> list[dict[str, Any]]:
    """The weights that train, grouped by learning rate, weight decay, and for muon whether they are hidden matrices.

    The first group has the peak learning rate, `optimizer.lr`, which is the one that transformers logs.

    Returns:
        groups with `params`, `lr`, `weight_decay`, `l1`, `l2`, `hidden`, and `row_decay`, the highest layers first.
        That is the weight decay of tables of ids, whose rows are decayed here, and not by torch: see `IdEmbedding`.

    Raises:
        UserError: for `layer_decay` or muon if the model has no numbered layers, `backbone_lr` if it has no backbone.
    """
    plain = {id(parameter) for parameter in _without_decay(config, model)}
    hidden = {id(parameter) for parameter in _hidden_matrices(model)} if config.name == "muon" else set()
    depth, top = layer_depths(model) if config.layer_decay < 1 else ({}, 0)
    pretrained = backbone_weights(model) if config.backbone_lr is not None else set()
    # These two exist even if empty, so that group 0 has the peak learning rate, which transformers logs.
    tables = {id(module.weight) for module in model.modules() if isinstance(module, IdEmbedding)}
    coupled = config.name in COUPLED
    Kind = tuple[bool, int, bool, bool, bool]
    found: dict[Kind, list[nn.Parameter]] = {(False, 0, True, False, False): [], (False, 0, False, False, False): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            below = top - depth.get(name, top)  # layers between this weight and the head, itself included
            decays, rows = id(parameter) not in plain, id(parameter) in tables
            kind = name in pretrained, below, decays, id(parameter) in hidden, rows
            found.setdefault(kind, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": (config.backbone_lr if inside and config.backbone_lr else config.lr) * config.layer_decay**below,
            "weight_decay": config.weight_decay * (decays and not rows),
            "row_decay": config.weight_decay * (decays and rows and not coupled),
            "l1": config.l1 * decays,
            "l2": (config.l2 + config.weight_decay * (rows and coupled)) * decays,
            "rows": rows,
            "hidden": turned,
        }
        for (inside, below, decays, turned, rows), parameters in sorted(
            found.items(), key=lambda item: (*item[0][:2], not item[0][2], *item[0][3:])
        )
    ]


def _hidden_matrices(model: nn.Module) -> list[torch.Tensor]:
    """The weights of linear maps in numbered layers. Muon is not for embeddings and heads (Jordan et al. 2024)."""
    layers = [part for part in parts(model) if part.layer is not None]
    if not layers:
        what = f"muon is for the matrices of numbered layers, and {type(model).__name__} has none"
        raise UserError(Problem("optimizer.name", what, hint="Write optimizer=adamw."))
    inside = (module for part in layers for outer in part.modules for module in outer.modules())
    return [module.weight for module in inside if isinstance(module, nn.Linear | Conv1D)]


def _without_decay(config: OptimizerConfig, model: nn.Module) -> Iterator[nn.Parameter]:
    """The weights that `no_decay` excludes: biases by parameter name, norms and embeddings by the class of module."""
    for path, module in model.named_modules():
        norm = "norm" in config.no_decay and "norm" in type(module).__name__.lower()
        embedding = "embeddings" in config.no_decay and isinstance(module, nn.Embedding)
        for name, parameter in module.named_parameters(recurse=False):
            if norm or embedding or ("bias" in config.no_decay and "bias" in f"{path}.{name}"):
                yield parameter


@torch.no_grad()
def _decay_rows(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Decoupled weight decay of the rows of a table that the batch holds."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if group["row_decay"] and weight.grad is not None:
                rows = rows_with_gradient(weight)
                weight[rows] = weight[rows] * (1 - group["lr"] * group["row_decay"])


@torch.no_grad()
def _add_l2(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Add the gradient of `l2 / 2 * w²`; of a table, for the rows that the batch holds."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if not group["l2"] or weight.grad is None:
                continue
            if not group["rows"]:
                weight.grad.add_(weight, alpha=group["l2"])
            elif weight.grad.is_sparse:
                rows, gradient = rows_with_gradient(weight), weight.grad.coalesce()
                values = gradient.values() + group["l2"] * weight[rows]
                weight.grad = torch.sparse_coo_tensor(
                    gradient.indices(), values, gradient.shape, is_coalesced=True, check_invariants=False
                )
            else:
                rows = rows_with_gradient(weight)
                weight.grad[rows] += group["l2"] * weight[rows]


@torch.no_grad()
def _shrink_by_l1(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """The proximal step of `l1 * |w|`: soft thresholding (Parikh and Boyd 2014, section 6.5.2)."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if group["l1"] and weight.grad is not None:
                rows = rows_with_gradient(weight) if group["rows"] else slice(None)
                own = weight[rows]
                weight[rows] = own.sign() * (own.abs() - group["lr"] * group["l1"]).clamp(min=0)


def build_scheduler(config: Config, optimizer: torch.optim.Optimizer, epoch: int, total: int) -> LRScheduler:
    """The learning rate scheduler, stepped after each optimizer step, or for `plateau` after each evaluation.

    Args:
        epoch: steps per epoch.
        total: steps of the run.
    """
    scheduler = config.scheduler
    if scheduler.name == "plateau":
        better = METRICS[config.metric_for_best]
        floors = [group["lr"] * scheduler.min_ratio for group in optimizer.param_groups]
        return ReduceLROnPlateau(
            optimizer,
            mode="max" if better else "min",
            factor=scheduler.factor,
            patience=scheduler.patience,
            threshold=0,  # any improvement counts, as for early stopping and the best checkpoint
            min_lr=floors,
            eps=0,
        )
    return LambdaLR(optimizer, lambda step: lr_factor(scheduler, step, epoch, total))


def warmup_steps(scheduler: SchedulerConfig, total: int) -> int:
    """The number of steps in which the learning rate rises from 0 to its peak."""
    return scheduler.warmup_steps or math.ceil(scheduler.warmup_ratio * total)


def scheduler_notes(config: Config, total: int) -> list[str]:
    """A note if the warmup takes all steps, so that the learning rate never falls, or never reaches its peak."""
    warmup = warmup_steps(config.scheduler, total)
    if warmup < total or total == 1:
        return []
    return [
        f"the learning rate rises for {warmup:,} steps, and the run has {total:,}: it never reaches optimizer.lr. "
        f"Write scheduler.warmup_steps={max(1, total // 10)}, or train for longer"
    ]


def lr_factor(scheduler: SchedulerConfig, step: int, epoch: int, total: int) -> float:
    """The factor from 0 to 1 by which `optimizer.lr` is multiplied at a step.

    The formulas of linear, polynomial, cosine, cosine_with_restarts, wsd, and inverse_sqrt are those of
    transformers.optimization; tests/training/test_schedules.py compares them.

    Args:
        step: steps taken before, so 0 for the first one.
        epoch: steps per epoch.
        total: steps of the run.
    """
    warmup = warmup_steps(scheduler, total)
    if step < warmup:
        return step / warmup
    after = step - warmup
    left = max(0.0, 1 - after / max(total - warmup, 1))  # falls from 1, at the end of the warmup, to 0
    every = epoch if scheduler.every == "epoch" else scheduler.every
    floor = scheduler.min_ratio
    match scheduler.name:
        case "linear":
            shape = left
        case "polynomial":
            shape = left**scheduler.power
        case "cosine":
            shape = (1 + math.cos(math.pi * (1 - left))) / 2
        case "cosine_with_restarts":
            shape = (1 + math.cos(math.pi * (scheduler.cycles * (1 - left) % 1))) / 2 if left else 0.0
        case "wsd":
            shape = min(1.0, max(0, total - step) / (scheduler.decay_ratio * total))
        case "step":
            return max(floor, scheduler.gamma ** (after // every))
        case "exponential":
            return max(floor, scheduler.gamma ** (after / every))
        case "inverse_sqrt":
            return max(floor, math.sqrt(max(warmup, 1) / max(step, 1)))
        case _:
            return 1.0
    return floor + (1 - floor) * shape


def lr_curve(config: Config, epoch: int, total: int) -> list[tuple[float, float]]:
    """(step, learning rate) at up to 200 steps of the run, counted from 1, for a chart; empty for `plateau`."""
    if config.scheduler.name == "plateau":
        return []
    steps = sorted({1 + round(i * (total - 1) / 199) for i in range(200)})
    return [(step, config.optimizer.lr * lr_factor(config.scheduler, step - 1, epoch, total)) for step in steps]


def effective_batch_size(config: Config, examples: int) -> int:
    """Rows of one optimizer step, over all processes and accumulated batches.

    Args:
        examples: size of the training split, which is the answer for `trainer.batch_size=all`.
    """
    trainer = config.trainer
    if trainer.batch_size == "all":
        return examples
    return config.hardware.processes * trainer.batch_size * trainer.accumulation


def steps_per_epoch(config: Config, examples: int) -> int:
    """Steps of one pass over `examples`; the last one may have fewer rows."""
    return math.ceil(examples / effective_batch_size(config, examples))


def planned_steps(config: Config, examples: int) -> int:
    """Steps of the whole run. Early stopping may end it sooner."""
    return config.trainer.max_steps or math.ceil(steps_per_epoch(config, examples) * config.trainer.epochs)


def resolve_batch_size(config: Config, features: FeatureSet) -> Config:
    """The config with a number in place of `trainer.batch_size=all`, and accumulation so that a step has all rows.

    A forward pass then holds at most MAX_TOKENS tokens by the longest row.
    """
    trainer = config.trainer
    if trainer.batch_size != "all":
        return config
    own = math.ceil(len(features) / config.hardware.processes)
    batches = math.ceil(own * max(features.lengths or [int(features.mean_length or 1)]) / MAX_TOKENS)
    batch = math.ceil(own / min(batches, own))  # of equal sizes, so that the largest is as small as it can be
    whole = trainer.model_copy(update={"batch_size": batch, "accumulation": math.ceil(own / batch)})
    return config.model_copy(update={"trainer": whole})


class SparseRowsAdam(torch.optim.Optimizer):
    """Adam or AdamW, which of a weight with a sparse gradient updates the rows in it alone, moments included.

    For tables of many ids: of rows that no batch holds, moments do not decay, and the rows do not move on, as in
    torch's SparseAdam, which this is for them.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        own = {"betas": betas, "eps": eps, "decoupled": decoupled}
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
            dense = [weight for weight in weights if not weight.grad.is_sparse]
            dense_adam(self.state, dense, group, fused=True, decoupled=group["decoupled"])
            for weight in weights:
                if weight.grad.is_sparse:
                    self._step_rows(weight, group)
        return loss

    def _step_rows(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        gradient, state, (beta1, beta2) = weight.grad.coalesce(), adam_state(self.state, weight), group["betas"]  # type: ignore[union-attr]
        rows, values = gradient.indices()[0], gradient.values()
        state["step"] += 1
        step = state["step"].item()
        mean = state["exp_avg"][rows].lerp(values, 1 - beta1)
        square = state["exp_avg_sq"][rows].lerp(values.square(), 1 - beta2)
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
        size = (square / (1 - beta2**step)).sqrt() + group["eps"]
        weight.index_add_(0, rows, mean / size, alpha=-group["lr"] / (1 - beta1**step))


class Lion(torch.optim.Optimizer):
    """Steps by the sign of a mean of gradients, so every weight moves by the learning rate.

    Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms". With a gradient g, a running mean m that starts
    at zero, and decoupled weight decay d:

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


class Muon(torch.optim.Optimizer):
    """Muon for parameter groups with `hidden`, whose weights are matrices, and AdamW for all others.

    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", with the scale of Liu et al. 2025,
    "Muon is Scalable for LLM Training", which lets AdamW's learning rate fit both. torch has Muon since 2.9, for
    matrices only.

    With a gradient G of shape (n, m), a running mean M that starts at zero, and decoupled weight decay d:

        M <- momentum * M + (1 - momentum) * G
        W <- W - lr * (0.2 * sqrt(max(n, m)) * orthogonalize(momentum * M + (1 - momentum) * G) + d * W)
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
                dense_adam(self.state, weights, group, group["fused"], decoupled=True)
                continue
            for weight in weights:
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                step = orthogonalize(weight.grad.lerp(mean, group["momentum"]))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(step, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)
        return loss


def adam_state(states: Any, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """The moments of a weight and its number of steps, zeros at first."""
    state: dict[str, torch.Tensor] = states[weight]
    if not state:
        state["step"] = torch.zeros((), device=weight.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
    return state


def dense_adam(states: Any, weights: list[torch.Tensor], group: dict[str, Any], fused: bool, decoupled: bool) -> None:
    """A step of AdamW, or unless `decoupled` of Adam, on weights with dense gradients."""
    own = [adam_state(states, weight) for weight in weights]
    if weights:
        (adamw if decoupled else adam)(
            weights,
            [weight.grad for weight in weights],  # type: ignore[misc]
            [state["exp_avg"] for state in own],
            [state["exp_avg_sq"] for state in own],
            [],
            [state["step"] for state in own],
            fused=fused,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Approximately U Vᵀ, (n, m), of the singular value decomposition U S Vᵀ of a matrix (n, m).

    Newton-Schulz iteration with the coefficients of Jordan et al. 2024. In bfloat16 only where the chip computes in it:
    on a CPU without it (AVX2), a 384 x 384 matrix takes 576 ms in bfloat16 and 15 ms in float32.
    """
    # x @ x.T has the smaller side squared, so a tall matrix is transposed first.
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).to(torch.bfloat16 if bfloat16(matrix.device.type)[0] else torch.float32)
    x = x / x.norm().clamp(min=1e-7)  # the Frobenius norm bounds all singular values, so none is above 1
    # Five rounds of a * x + b * x³ + c * x⁵ take every singular value from (0, 1] to about 0.7 to 1.2.
    a, b, c = 3.4445, -4.7750, 2.0315
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.T
