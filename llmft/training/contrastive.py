"""Tunes an encoder on pairs of labeled rows before its head is trained: rows of a label come together.

Eight rows a label make 120 pairs, so there is more to learn from than from 16 labels (Tunstall et al. 2022, SetFit,
https://arxiv.org/abs/2209.11055).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean
from typing import Any

import torch
from torch import nn

from llmft.models.adapters import trained_part
from llmft.models.layers import encoder_weights
from llmft.reporting.lines import phase
from llmft.schema.problem import Problem, UserError, plural
from llmft.tasks.objective import Batch
from llmft.tasks.retrieval.contrastive_losses import cosine, supervised_contrastive
from llmft.training.batches import epoch_generator, shuffle
from llmft.training.evaluation import Experiment

WARMUP = 0.1  # of the steps; the learning rate then falls to 0


def tune_encoder(experiment: Experiment) -> dict[str, Any]:
    """Tune all weights below the last layer in place as `task.contrastive` says; frozen ones are so only afterwards.

    What is compared are the vectors that the last layer reads, so that it finds rows of a label side by side. The same
    seed gives the same weights: a run that is resumed does it again, and reads the checkpoint after it.

    Returns:
        `contrastive_seconds` and `contrastive_steps`.

    Raises:
        UserError: for a model whose head does not read one vector a row, or rows of a single label.
    """
    config, task, device = experiment.config, experiment.task, experiment.hardware.device
    how, start = config.task.contrastive, time.perf_counter()  # type: ignore[attr-defined]
    model, features = trained_part(experiment.model), experiment.splits["train"].features
    labels = torch.tensor(features.table["labels"].to_pylist())
    if len(labels.unique()) < 2:
        raise UserError(Problem("task.contrastive", "needs training rows of two labels or more"), "the data")
    model.to(device).train()
    layer = last_layer(model, len(task.model_kwargs()["id2label"]))
    below = [weight for weight in model.parameters() if all(weight is not own for own in layer.parameters())]
    frozen = [weight for weight in below if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    bf16 = experiment.hardware.precision == "bf16"
    try:
        optimizer = torch.optim.AdamW(below, how.encoder_lr, weight_decay=0.01)
        orders = [
            shuffle(len(features), how.rows, None, epoch_generator(config.seed, epoch)) for epoch in range(how.epochs)
        ]
        parts = [order[at : at + how.rows] for order in orders for at in range(0, len(order), how.rows)]
        # A batch of a single row, or of a single label, has nothing to compare.
        parts = [part for part in parts if len(labels[part].unique()) > 1]
        warmup, losses = max(1, round(WARMUP * len(parts))), []
        for step, part in enumerate(parts):
            rate = min((step + 1) / warmup, (len(parts) - step) / max(len(parts) - warmup, 1))
            for group in optimizer.param_groups:
                group["lr"] = how.encoder_lr * rate
            batch = task.objective.collate(features.__getitems__(part))
            batch = {key: value.to(device) for key, value in batch.items()}
            with torch.autocast(torch.device(device).type, torch.bfloat16, bf16):
                vectors = read_vectors(model, layer, batch)
            loss = compare(vectors.float(), batch["labels"], how.loss)
            loss.backward()
            nn.utils.clip_grad_norm_(below, 1.0)
            optimizer.step()
            model.zero_grad()
            losses.append(loss.item())
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
    if losses:
        change = f"loss {losses[0]:.4f} to {mean(losses[-3:]):.4f}"
        phase("contrast", f"{plural(len(parts), 'steps')} on pairs of rows: {change}")
    return {"contrastive_seconds": time.perf_counter() - start, "contrastive_steps": len(parts)}


def compare(vectors: torch.Tensor, labels: torch.Tensor, loss: str) -> torch.Tensor:
    """The loss of all pairs of a batch.

    Args:
        vectors: (B, D).
        labels: (B,), at least two different ones.
        loss: `cosine`: the cosine is 1 for rows of a label and 0 for others, and both kinds of pairs weigh the same, as
            SetFit draws them. `supervised_contrastive`: see contrastive_losses.py.
    """
    if loss == "supervised_contrastive":
        return supervised_contrastive(vectors, labels, scale=10.0)
    first, second = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
    same = labels[first] == labels[second]
    kinds = [
        cosine(vectors[first[kind]], vectors[second[kind]], kind[kind].float() * value)
        for kind, value in ((same, 1.0), (~same, 0.0))
        if kind.any()
    ]
    return torch.stack(kinds).mean()


def last_layer(model: nn.Module, labels: int) -> nn.Linear:
    """The linear layer that gives the logits.

    Raises:
        UserError: for a model without one.
    """
    layers = [part for part in model.modules() if isinstance(part, nn.Linear) and part.out_features == labels]
    if not layers or not encoder_weights(model):
        what = f"is for models with a linear layer behind an encoder, and {type(model).__name__} has none"
        raise UserError(Problem("task.contrastive", what, hint="Leave it out."))
    return layers[-1]


def read_vectors(model: nn.Module, layer: nn.Linear, batch: Batch) -> torch.Tensor:
    """What the last layer reads of a batch, (B, D).

    Raises:
        UserError: if it reads every token of a row.
    """
    with _inputs_of(layer) as seen:
        model(**{key: value for key, value in batch.items() if key != "labels"})
    if seen[-1].dim() != 2:
        what = f"is for heads that read one vector a row, and that of {type(model).__name__} reads all tokens"
        raise UserError(Problem("task.contrastive", what, hint="Write model=minilm, or leave it out."))
    return seen[-1]


@contextmanager
def _inputs_of(layer: nn.Linear) -> Iterator[list[torch.Tensor]]:
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
