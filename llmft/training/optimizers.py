"""From the section `optimizer` to an optimizer over the weights of a model that train."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from llmft.models.layers import depths, parts
from llmft.schema.optimizer import OptimizerConfig
from llmft.schema.problem import Problem, UserError
from llmft.training.lion import Lion
from llmft.training.muon import Muon


def optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer, with L1 and L2 put in.

    Raises:
        UserError: for `layer_decay` or muon and a model without numbered layers.
    """
    cls, keys = rule(config)
    built = cls(groups(config, model), lr=config.lr, **keys)
    if config.l2:
        built.register_step_pre_hook(_add_l2)
    if config.l1:
        built.register_step_post_hook(_shrink_by_l1)
    return built


def rule(config: OptimizerConfig) -> tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]:
    """The class and its arguments, but for learning rate and weight decay, which are given by group."""
    adam = {
        "betas": config.betas,
        "eps": config.eps,
        # One fused kernel instead of a loop over tensors: a step of MiniLM takes 25 ms instead of 60 on 2 cores. In
        # fp16 it takes gradients before they are scaled back, so that no penalty can be added to them.
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


def groups(config: OptimizerConfig, model: nn.Module) -> list[dict[str, Any]]:
    """The weights that train, by learning rate, whether they decay, and for muon whether they are hidden matrices.

    The first group has the peak rate.

    Raises:
        UserError: for `layer_decay` or muon and a model without numbered layers.
    """
    plain = {id(parameter) for parameter in _left_alone(config, model)}
    hidden = {id(parameter) for parameter in _hidden(model)} if config.name == "muon" else set()
    depth, top = depths(model) if config.layer_decay < 1 else ({}, 0)
    found: dict[tuple[int, bool, bool], list[nn.Parameter]] = {(0, True, False): [], (0, False, False): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            below = top - depth.get(name, top)  # layers between this weight and the head, itself included
            kind = below, id(parameter) not in plain, id(parameter) in hidden
            found.setdefault(kind, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": config.lr * config.layer_decay**below,
            "weight_decay": config.weight_decay * decays,
            "l1": config.l1 * decays,
            "l2": config.l2 * decays,
            "hidden": turned,
        }
        for (below, decays, turned), parameters in sorted(
            found.items(), key=lambda item: (item[0][0], not item[0][1], item[0][2])
        )
    ]


def _hidden(model: nn.Module) -> list[torch.Tensor]:
    """The linear maps of numbered layers. Rows of embeddings and heads stand each for itself (Jordan et al. 2024)."""
    layers = [part for part in parts(model) if part.layer is not None]
    if not layers:
        what = f"muon is for the matrices of numbered layers, and {type(model).__name__} has none"
        raise UserError(Problem("optimizer.name", what, hint="Write optimizer=adamw."))
    inside = (module for part in layers for outer in part.modules for module in outer.modules())
    return [module.weight for module in inside if isinstance(module, nn.Linear | Conv1D)]


def _left_alone(config: OptimizerConfig, model: nn.Module) -> Iterator[nn.Parameter]:
    """The weights that `no_decay` names: biases by name, norms and embeddings by the kind of their module."""
    for path, module in model.named_modules():
        norm = "norm" in config.no_decay and "norm" in type(module).__name__.lower()
        embedding = "embeddings" in config.no_decay and isinstance(module, nn.Embedding)
        for name, parameter in module.named_parameters(recurse=False):
            if norm or embedding or ("bias" in config.no_decay and "bias" in f"{path}.{name}"):
                yield parameter


@torch.no_grad()
def _add_l2(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Add the gradient of `l2 / 2 * w²`."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if group["l2"] and weight.grad is not None:
                weight.grad.add_(weight, alpha=group["l2"])


@torch.no_grad()
def _shrink_by_l1(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """The proximal step of `l1 * |w|`: soft thresholding (Parikh and Boyd 2014, section 6.5.2)."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if group["l1"] and weight.grad is not None:
                weight.copy_(weight.sign() * (weight.abs() - group["lr"] * group["l1"]).clamp(min=0))
