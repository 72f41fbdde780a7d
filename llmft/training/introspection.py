"""What a torch model shows beyond its answers: how its gradients lead to an answer, and where its layers look."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy
import torch

from llmft.data.source import Rows
from llmft.models.weights import is_sharded
from llmft.tasks.explaining import Ask, Attention
from llmft.tasks.task import Answer, Task
from llmft.training.evaluation import float32
from llmft.training.features import encode
from llmft.training.processes import world_size

STEPS = 8  # between baseline and input; 20 lowered scores by no more (0.361 and 0.346 of probability, 40 reviews)
DIFFERENCE = 1e-3  # of an output, by which the slope of a strength is measured


class Introspection:
    """Asks a torch model, and reads its gradients and attention; the protocol `Introspects` of tasks/explaining.py."""

    def __init__(
        self,
        task: Task[Any],
        model: Any,
        answers: Callable[[Rows], list[Answer]],
        alone: AbstractContextManager[Any] | None = None,
    ) -> None:
        """Take what asks the model.

        Args:
            task: with its state.
            answers: gives the answers to rows, by the path that all rows take.
            alone: a lock while the model is changed; other threads must not compute with it then.
        """
        self.task, self.model, self.answers = task, model, answers
        self.alone = nullcontext() if alone is None else alone

    def __call__(self, rows: Rows) -> list[Answer]:
        return self.answers(rows)

    def integrate(
        self, row: Rows, tokens: Sequence[int], mask: int, strength: Callable[[Answer], float]
    ) -> list[float] | None:
        """Integrated gradients (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365), in STEPS steps.

        The gradient of `strength` is followed on the straight line from the baseline, in which the tokens are masked,
        to the input. The weights of all tokens together are the difference of the two strengths, except for the error
        of the sum.

        Args:
            row: one row by role.
            tokens: the places of its tokens that are weighed.
            mask: the token in their place in the baseline.
            strength: of an answer.

        Returns:
            a weight for each of `tokens`; None for a model without embeddings of tokens, or a row of several features.
        """
        features = encode(self.task, row)
        table = _embeddings(self.model)
        if len(features) != 1 or not isinstance(table, torch.nn.Embedding):
            return None
        batch = self._batch(features[0])
        places = torch.tensor(list(tokens), device=batch["input_ids"].device)
        total = torch.zeros(())
        with self.alone, _with_gradients(self.model):
            whole = table(batch["input_ids"]).detach()
            start = whole.clone()
            start[:, places] = table(torch.tensor(mask, device=places.device)).detach()
            for step in range(STEPS):
                # The middle of each step: with its end, 8 steps would be off by ten times as much.
                between = (start + (whole - start) * (step + 0.5) / STEPS).requires_grad_()
                with _output_of(table, partial(_instead, between)):
                    found = self.task.objective.read(self.model(**batch), batch)
                slope = torch.from_numpy(self._slope(found[0].detach().double().cpu().numpy(), strength)).to(found)
                (gradient,) = torch.autograd.grad(found, between, slope[None])
                total = total.to(gradient.device) + gradient
        weights = ((whole - start) * total / STEPS).sum(dim=-1)[0, places]
        return [float(weight) for weight in weights]

    def attention(self, rows: Rows) -> list[Attention | None]:
        """Where each layer looks for the answer to each row, of the first feature if it has several; None for a model
        that does not give its attention, or gives it by windows of an image."""
        features = encode(self.task, rows)
        return [self._attention(features[features.rows.index(row)]) for row in range(len(rows))]

    def _attention(self, feature: dict[str, Any]) -> Attention | None:
        batch, embeddings = self._batch(feature), _embeddings(self.model)
        if embeddings is None:
            return None
        with self.alone, _with_gradients(self.model), _eager(self.model):
            # With a gradient from the first layer on, though all weights may be frozen.
            with _output_of(embeddings, lambda given: given if given.requires_grad else given.requires_grad_()):
                try:
                    output = self.model(**batch, output_attentions=True, output_hidden_states=True)
                except (TypeError, ValueError, NotImplementedError):  # a model that has none, as it says in its own way
                    return None
            layers, states = getattr(output, "attentions", None), getattr(output, "hidden_states", None)
            if not layers or not states or any(layer is None for layer in layers):
                return None
            length = states[-1].shape[1]
            if any(layer.ndim != 4 or layer.shape[-2:] != (length, length) for layer in layers):
                return None
            # The tokens whose last states the outputs are computed from, such as the first of BERT.
            found = self.task.objective.read(output, batch).sum()
            (gradient,) = torch.autograd.grad(found, states[-1], allow_unused=True)
            reads = None if gradient is None else gradient[0].abs().sum(dim=-1) > 0
            if reads is None or not reads.any():
                reads = torch.ones(length, dtype=torch.bool)
            shares = torch.stack([layer[0].mean(dim=0)[reads].mean(dim=0) for layer in layers])
        ids = batch["input_ids"][0].tolist() if "input_ids" in batch else None
        weights = shares.detach().float().cpu().numpy()
        return Attention(weights, layers[0].shape[1], ids, self._patches(batch, length))

    def _patches(self, batch: dict[str, torch.Tensor], length: int) -> tuple[int, int] | None:
        """Rows and columns of the patches of an image, which are the last of all tokens."""
        side = getattr(self.model.config, "patch_size", None)
        if "pixel_values" not in batch or not isinstance(side, int):
            return None
        height, width = (extent // side for extent in batch["pixel_values"].shape[-2:])
        return (height, width) if 0 <= length - height * width <= 8 else None

    def _batch(self, feature: dict[str, Any]) -> dict[str, torch.Tensor]:
        batch = self.task.objective.collate([{k: v for k, v in feature.items() if k != "labels"}])
        device = next(self.model.parameters()).device
        return {name: value.to(device) for name, value in batch.items() if name not in self.task.objective.own_keys}

    def _slope(self, output: numpy.ndarray, strength: Callable[[Answer], float]) -> numpy.ndarray:
        """How much `strength` grows with each number of an output: by differences, so that any `decode` will do."""
        shifts = DIFFERENCE * numpy.eye(output.size).reshape(-1, *output.shape)
        shifted = [*(output + shifts), *(output - shifts)]
        strengths = numpy.array([strength(answer) for answer in self.task.decode(shifted, list(range(len(shifted))))])
        found: numpy.ndarray = (strengths[: output.size] - strengths[output.size :]) / (2 * DIFFERENCE)
        return found.reshape(output.shape)


def asking(
    task: Task[Any],
    model: Any,
    answers: Callable[[Rows], list[Answer]],
    alone: AbstractContextManager[Any] | None = None,
) -> Ask:
    """What explanations ask by; a torch model in one process also by its gradients and attention."""
    whole = isinstance(model, torch.nn.Module) and not is_sharded(model) and world_size() == 1
    return Introspection(task, model, answers, alone) if whole else answers


def _embeddings(model: Any) -> torch.nn.Module | None:
    try:
        found: torch.nn.Module | None = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # such as models of timm, and our own ones without tokens
        return None
    return found


@contextmanager
def _with_gradients(model: Any) -> Iterator[None]:
    with float32(model), torch.inference_mode(False), torch.enable_grad():
        yield


def _instead(value: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return value


@contextmanager
def _output_of(module: torch.nn.Module, changed: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Inside the context, a module gives what `changed` makes of its output."""
    handle = module.register_forward_hook(lambda _module, _inputs, output: changed(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Inside the context, attention is computed step by step: fused kernels do not give it."""
    if not hasattr(model, "set_attn_implementation"):
        yield
        return
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
