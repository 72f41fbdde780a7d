"""Computes once, before the first step, what stays the same while a model trains, or while its head does.

The outputs of a frozen encoder are kept per feature and looked up in every epoch: ten epochs of a head on a frozen
MiniLM over 6,920 rows take 30.7 s instead of 607.7 s (`python benchmarks/speed.py sst2 --frozen`). Where a loss
compares the model with its first weights (`TaskConfig.refers`), their scores become a column of the features.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow
import torch
from torch.nn.functional import dropout
from transformers import PreTrainedModel

from llmft.data.arrow import read_table, write_table
from llmft.data.cache import Entry
from llmft.data.files import digest
from llmft.models.adapters import trained_part
from llmft.models.layers import encoder_weights, head_weights
from llmft.models.weights import weights_digest
from llmft.reporting.lines import phase
from llmft.schema.problem import Problem, UserError, plural
from llmft.tasks.optional import RefersToFirstWeights
from llmft.training import processes
from llmft.training.batches import epoch_generator, shuffle
from llmft.training.evaluation import Experiment, Split, batches, float32
from llmft.training.features import FeatureSet
from llmft.training.memory import advice_for_scoring, enough_memory
from llmft.training.optimization import resolve_batch_size

REFERENCE = "reference"
"""The column of a feature with the score that the first weights give it."""
INDEX = "feature_index"
"""The key of a batch that says which features it holds: a row of `FrozenEncoder.vectors` each."""
OUTPUTS = "outputs.arrow"


class NotOneVector(Exception):
    """The head does not read exactly one vector of each feature, so its encoder has to run."""


class FrozenEncoder:
    """Replaces `model.base_model.forward`, on this instance only, by a lookup of stored outputs.

    Of each feature, only the one vector that the head reads is stored: for MiniLM 1.5 kB instead of 197 kB for 128
    tokens. All other positions of the output are zero. The head does not read them.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.encoder = model.base_model
        self.original_forward = self.encoder.forward
        self.vectors = torch.empty(0)  # (N, H): what the head reads of each feature
        self.offsets = torch.empty(0)  # (N,): position of that token, counted from the first one that is not padding
        self.shape: tuple[int, ...] = ()  # of `last_hidden_state`, without the batch
        self.pooled_shape: tuple[int, ...] = ()  # the same of `pooler_output`: (H,), or (H, 1, 1) in some convnets
        self.output_class: type[Any] = dict  # of the encoder's output, which a head may index by number
        self.pooled = False  # whether the head reads `pooler_output` instead of a token
        self.indices: torch.Tensor | None = None  # (B,): the features of the current batch
        self.probe: Any = None  # the output that the head gets while `read` traces what it reads
        self.encoder.forward = self._forward
        self.hook = model.register_forward_pre_hook(self._take_indices, with_kwargs=True)

    def release(self) -> None:
        """Restore the model's own forward."""
        del self.encoder.forward
        self.hook.remove()

    def _take_indices(self, _: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        # The head's forward has no such parameter, and the encoder needs it: it goes past the head, by this object.
        self.indices = kwargs.pop(INDEX, None)
        return inputs, kwargs

    def _forward(self, *inputs: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if self.probe is not None:
            return self.probe
        if self.indices is None:  # test rows, streamed rows, or a head that reads more than one vector
            self.encoder.eval()  # the Trainer's model.train() turns dropout on, which is noise where nothing trains
            masks = {} if attention_mask is None else {"attention_mask": attention_mask}
            with torch.no_grad():
                return self.original_forward(*inputs, **masks, **kwargs)
        vectors = self.vectors[self.indices]  # (B, H)
        shape = (len(vectors), *self.shape) if attention_mask is None else (*attention_mask.shape, vectors.shape[-1])
        # An expanded zero takes no memory. Only a head that reads a token needs a real tensor to write the token into.
        hidden = vectors.new_zeros(1).expand(shape)  # (B, T, H), or (B, H, height, width) of a convnet
        if self.pooled:
            pooled = vectors.view(-1, *self.pooled_shape)
            return self.output_class(last_hidden_state=hidden, pooler_output=pooled)
        positions = self.offsets[self.indices]
        if attention_mask is not None:
            # (B,): argmax of a mask is its first 1. Left padding moves that from batch to batch; the offset stays.
            positions = positions + attention_mask.argmax(dim=1)
        rows = torch.arange(len(positions), device=positions.device)
        return self.output_class(last_hidden_state=hidden.clone().index_put((rows, positions), vectors))

    def read(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the encoder on a batch, and find by gradient what the head reads of its output.

        By gradient, since no attribute of transformers tells: BERT's head reads a pooled vector, DistilBERT's the first
        token, GPT-2's the last one that is not padding.

        Args:
            batch: `input_ids` and `attention_mask`, (B, T) each, or `pixel_values`, and whatever else the model takes.

        Returns:
            the vectors that the head reads (B, H); the positions of their tokens (B,), counted from the first token
            that is not padding, 0 for pooled vectors; and the logits (B, labels).

        Raises:
            NotOneVector: if the head reads more than one vector of a feature, or none.
        """
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        with torch.no_grad():
            output = self.original_forward(**inputs)
        self.output_class = type(output)
        if output.get("last_hidden_state") is None:
            raise NotOneVector
        # Leaves of a new graph: the backward pass ends here and never enters the encoder.
        hidden = output.last_hidden_state.detach().requires_grad_()  # (B, T, H), or (B, H, height, width)
        self.shape = tuple(hidden.shape[1:])
        pooled = output.get("pooler_output")
        candidates = {"last_hidden_state": hidden}
        if pooled is not None:
            candidates["pooler_output"] = pooled = pooled.detach().requires_grad_()  # (B, H)
        # With all that a head may read besides, such as the maps of each layer.
        self.probe = self.output_class(**(dict(output) | candidates))
        try:
            logits = self.model(**inputs).get("logits")
        finally:
            self.probe = None
        if logits is None:  # a question answering head, with start and end logits, reads every token
            raise NotOneVector
        # Logits weighted by 1 to 2, not summed: a head whose labels have opposite weights has a sum without gradient.
        weights = torch.linspace(1, 2, logits.numel(), device=logits.device).view_as(logits)
        total = (logits.float() * weights).sum()
        gradients = torch.autograd.grad(total, list(candidates.values()), allow_unused=True)
        used = [gradient is not None and bool(gradient.any()) for gradient in gradients]
        self.pooled = used == [False, True]
        if self.pooled:
            assert pooled is not None
            self.pooled_shape = tuple(pooled.shape[1:])
            return pooled.detach().flatten(1), torch.zeros(len(pooled), dtype=torch.long), logits.detach()
        if used[0] and not any(used[1:]) and hidden.dim() == 3:
            read = gradients[0].abs().sum(dim=2) > 0  # (B, T): the tokens that move the logits
            mask = batch["attention_mask"].bool() if "attention_mask" in batch else torch.ones_like(read)
            # Exactly one token per row, and not padding. A mean over all tokens, for one, fails here.
            if bool((read.sum(dim=1) == 1).all()) and bool((read & mask).any(dim=1).all()):
                positions = read.int().argmax(dim=1)
                rows = torch.arange(len(positions), device=positions.device)
                return hidden.detach()[rows, positions], positions - mask.int().argmax(dim=1), logits.detach()
        raise NotOneVector


class FrozenTimm(FrozenEncoder):
    """The same for a model of timm, which holds its head inside: a linear layer on one vector."""

    def _forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if self.indices is None:
            self.encoder.eval()
            return self.original_forward(*inputs, **kwargs)
        # timm has its dropout before the head, and eval mode turned it off when the vectors were computed.
        rate, training = getattr(self.encoder, "drop_rate", 0.0), self.model.training
        return self.encoder.get_classifier()(dropout(self.vectors[self.indices], rate, training))

    def read(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As above; what the head reads is what it is called with.

        Raises:
            NotOneVector: if the head is not one linear layer that is called once.
        """
        head, seen = self.encoder.get_classifier(), list[torch.Tensor]()
        hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            with torch.no_grad():
                logits = self.original_forward(batch["pixel_values"])
        finally:
            hook.remove()
        if not isinstance(head, torch.nn.Linear) or len(seen) != 1 or seen[0].dim() != 2:
            raise NotOneVector
        return seen[0], torch.zeros(len(logits), dtype=torch.long), logits


def is_frozen(model: PreTrainedModel) -> bool:
    """Whether the whole encoder of a model is frozen while something else trains."""
    encoder = encoder_weights(model)
    return (
        bool(encoder)
        and not any(weight.requires_grad for weight in encoder)
        and any(weight.requires_grad for weight in model.parameters())
    )


@contextmanager
def cached_encoder(
    experiment: Experiment, prepared: Entry | None, augmented: bool | None = None
) -> Iterator[dict[str, Split]]:
    """Inside the context, the outputs of a frozen encoder are looked up for the features of train and validation.

    Args:
        prepared: the cache entry of the splits. The outputs get an entry of their own, named by it, for later runs.
        augmented: whether training rows change in each epoch. Unset: as the section `augment` says.

    Yields:
        the splits, whose features have a column `INDEX`. If the encoder trains, or has to run, the splits as they are.
    """
    model, splits, device = trained_part(experiment.model), experiment.splits, experiment.hardware.device
    if not is_frozen(model):
        yield splits
        return
    objective = experiment.task.objective
    if augmented is None:
        augmented = objective.augments and experiment.config.augment.active
    encoder = (FrozenTimm if head_weights(model) else FrozenEncoder)(model.to(device))
    features = {name: split.features for name, split in splits.items() if name in ("train", "validation")}
    try:
        outputs = None
        if not (splits["train"].stream or augmented):
            with enough_memory(lambda: advice_for_scoring(experiment.config)):
                outputs = _load_or_compute(encoder, experiment, features, prepared)
        if outputs is None:
            why = "rows are streamed" if splits["train"].stream else "its head reads more than one vector of a row"
            why = f"augment={experiment.config.augment.name} changes what it reads" if augmented else why
            phase("note", f"the frozen encoder runs in every epoch: {why}")
            yield splits
            return
        encoder.vectors, encoder.offsets = (values.to(device) for values in outputs)
        indexed, start = dict(splits), 0
        for name, found in features.items():
            indices = pyarrow.array(range(start, start + len(found)))
            read = {key: values for key, values in found.pixels.items() if key not in objective.of_encoder}
            indexed[name] = replace(splits[name], features=replace(found, pixels=read).with_column(INDEX, indices))
            start += len(found)
        yield indexed
    finally:
        encoder.release()


def train_head(experiment: Experiment, prepared: Entry | None) -> None:
    """Train the head alone for `model.head_epochs`, on outputs of the encoder that are computed once.

    A new head sends large gradients into pretrained weights, which forget what they have learned: all weights of
    EfficientNet-lite0 on 244 photos at once end at an accuracy of 0.80, the head alone at 0.92, and the head first at
    0.94 (Kumar et al. 2022, https://arxiv.org/abs/2202.10054).

    Raises:
        UserError: for a model that has no base model apart from its head.
    """
    config, task, device = experiment.config, experiment.task, experiment.hardware.device
    model = trained_part(experiment.model)
    below = [weight for weight in encoder_weights(model) if weight.requires_grad]
    if not below:
        what = f"{type(model).__name__} has no base model apart from its head"
        raise UserError(Problem("model.head_epochs", what, hint="Leave it out."))
    for weight in below:
        weight.requires_grad_(False)
    try:
        with cached_encoder(experiment, prepared, augmented=False) as splits, torch.inference_mode(False):
            features = splits["train"].features
            size = resolve_batch_size(config, features).trainer.rows
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], config.model.head_lr)
            model.train()
            for epoch in range(config.model.head_epochs):
                order, losses = shuffle(len(features), size, None, epoch_generator(config.seed, epoch)), []
                for start in range(0, len(order), size):
                    batch = task.objective.collate(features.__getitems__(order[start : start + size]))
                    loss = task.objective.loss(model, {key: value.to(device) for key, value in batch.items()})
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    losses.append(loss.item())
        phase("head", f"trained for {plural(config.model.head_epochs, 'epochs')}: loss {mean(losses):.4f}")
    finally:
        for weight in below:
            weight.requires_grad_(True)


def _load_or_compute(
    encoder: FrozenEncoder, experiment: Experiment, features: dict[str, FeatureSet], prepared: Entry | None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The vectors (N, H) and offsets (N,) of all features of all splits, float32; None if the head reads more."""
    hardware = experiment.hardware
    entry = _entry(encoder, experiment, prepared) if prepared else None
    if processes.from_rank0(lambda: entry is not None and entry.found()):
        assert entry
        # One row runs even so: the entry holds vectors, and the row tells whether the head takes them as pooled.
        sample = experiment.task.objective.collate(features["train"].__getitems__([0]))
        with float32(encoder.model), torch.inference_mode(False):
            encoder.read({key: value.to(hardware.device) for key, value in sample.items()})
        try:
            return _load(entry)
        except OSError:  # another process has deleted the entry to make room in the cache
            entry = None
    bf16 = hardware.precision == "bf16"
    # Train in the precision of training, validation in float32 as it is evaluated: the numbers of a run that computes.
    outputs = [_compute(encoder, experiment, found, bf16 and name == "train") for name, found in features.items()]
    if None in outputs:
        return None
    vectors, offsets = (torch.cat(column) for column in zip(*filter(None, outputs), strict=True))
    if entry:
        entry.publish(lambda folder: write_table(_to_table(vectors, offsets), folder / OUTPUTS))
    return vectors, offsets


def _to_table(vectors: torch.Tensor, offsets: torch.Tensor) -> pyarrow.Table:
    values = pyarrow.FixedSizeListArray.from_arrays(vectors.numpy().reshape(-1), vectors.shape[1])
    return pyarrow.table({"vector": values, "offset": offsets.numpy()})


def _load(entry: Entry) -> tuple[torch.Tensor, torch.Tensor]:
    table = read_table(entry.folder / OUTPUTS)
    width = table["vector"].type.list_size
    # One flat array, reshaped: 0.02 s for 6,920 vectors of 384 numbers, where lists of Python take 1.2 s.
    flat = table["vector"].combine_chunks().values.to_numpy().reshape(-1, width)
    return torch.tensor(flat), torch.tensor(table["offset"].to_numpy())


def _compute(
    encoder: FrozenEncoder, experiment: Experiment, features: FeatureSet, bf16: bool
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The vectors (N, H) and offsets (N,) of one split. Several processes share the batches, and all get the result."""
    device, size = experiment.hardware.device, experiment.config.trainer.eval_batch_size
    own: list[tuple[list[int], torch.Tensor, torch.Tensor]] = []
    failed = False
    # `read` needs gradients of the encoder's output, and a tensor made in inference mode can never have any.
    with float32(encoder.model), torch.inference_mode(False), torch.autocast(device, torch.bfloat16, bf16):
        for indices, batch in batches(experiment.task, features, size, encoder.model):
            try:
                vectors, offsets, _ = encoder.read(batch)
            except NotOneVector:
                failed = True  # checked below: returning here would leave the other processes waiting in all_gather
                break
            own.append((indices, vectors.float().cpu(), offsets.cpu()))
    if processes.all_reduce_max(failed):
        return None
    gathered = list(chain.from_iterable(processes.all_gather(own)))
    all_vectors = torch.empty(len(features), gathered[0][1].shape[1])
    all_offsets = torch.empty(len(features), dtype=torch.long)
    for indices, vectors, offsets in gathered:
        all_vectors[indices], all_offsets[indices] = vectors, offsets
    return all_vectors, all_offsets


def _encoder_state(encoder: FrozenEncoder) -> list[tuple[str, torch.Tensor]]:
    """The weights and buffers that decide a vector: not those of a head inside."""
    head = {weight.data_ptr() for weight in head_weights(encoder.model)}
    return [(name, value) for name, value in encoder.encoder.state_dict().items() if value.data_ptr() not in head]


def _entry(encoder: FrozenEncoder, experiment: Experiment, prepared: Entry) -> Entry:
    # All that can change a vector. The batch size decides the padding, which moves the last digits of a vector.
    facts = {
        "data": prepared.key,
        "weights": weights_digest(_encoder_state(encoder)),
        "architecture": encoder.model.config.to_json_string(),
        "head": type(encoder.model).__name__,
        "precision": experiment.hardware.precision,
        "trainer.eval_batch_size": str(experiment.config.trainer.eval_batch_size),
    }
    facts |= {package: version(package) for package in ("torch", "transformers")}
    return Entry("frozen", facts | {"the code of llmft": digest(Path(__file__))})


def with_reference(experiment: Experiment, splits: dict[str, Split]) -> dict[str, Split]:
    """The splits; train and validation have the column `REFERENCE`: `reference_scores` of the current weights.

    Each is computed in the precision in which it is read later: validation in float32, train in that of training. So at
    the first step model and reference agree exactly, and the loss is not their rounding. Several processes share the
    batches, and all get every score. If the task's loss needs no reference, the splits come back as they are.
    """
    config, task, hardware = experiment.config, experiment.task, experiment.hardware
    if not config.task.refers:
        return splits
    objective, model = task.objective, trained_part(experiment.model)
    assert isinstance(objective, RefersToFirstWeights)  # as its section says
    found = dict(splits)
    model.to(hardware.device)
    for name in ("train", "validation"):
        if name not in splits:
            continue
        features = splits[name].features
        size, bf16 = config.trainer.eval_batch_size, hardware.precision == "bf16" and name == "train"
        with (
            enough_memory(lambda: advice_for_scoring(config)),
            float32(model),
            torch.autocast(hardware.device, torch.bfloat16, bf16),
        ):
            own = [
                (indices, objective.reference_scores(model, batch))
                for indices, batch in batches(task, features, size, model)
            ]
        scores = [0.0] * len(features)
        for indices, values in chain.from_iterable(processes.all_gather(own)):
            for index, value in zip(indices, values, strict=True):
                scores[index] = value
        column = pyarrow.array(scores, pyarrow.float32())
        found[name] = replace(splits[name], features=features.with_column(REFERENCE, column))
    return found
