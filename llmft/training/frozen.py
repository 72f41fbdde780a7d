"""Computes once, before the first step, what stays the same while a model trains.

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
from typing import Any

import pyarrow
import torch
from transformers import PreTrainedModel

from llmft.data.arrow import read_table, write_table
from llmft.data.cache import Entry
from llmft.data.files import digest
from llmft.models.adapters import trained_part
from llmft.models.weights import weights_digest
from llmft.reporting.lines import phase
from llmft.tasks.optional import RefersToFirstWeights
from llmft.training import processes
from llmft.training.evaluation import Experiment, Split, batches, float32
from llmft.training.features import FeatureSet
from llmft.training.memory import advice_for_scoring, enough_memory

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

    def _forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if self.probe is not None:
            return self.probe
        if self.indices is None:  # test rows, streamed rows, or a head that reads more than one vector
            self.encoder.eval()  # the Trainer's model.train() turns dropout on, which is noise where nothing trains
            with torch.no_grad():
                return self.original_forward(input_ids, attention_mask=attention_mask, **kwargs)
        vectors = self.vectors[self.indices]  # (B, H)
        # An expanded zero takes no memory. Only a head that reads a token needs a real tensor to write the token into.
        hidden = vectors.new_zeros(1).expand(*input_ids.shape, vectors.shape[-1])  # (B, T, H)
        if self.pooled:
            return self.output_class(last_hidden_state=hidden, pooler_output=vectors)
        assert attention_mask is not None  # packed rows have none, and no indices either
        # (B,): argmax of a mask is its first 1. Left padding moves that from batch to batch; the offset stays.
        positions = attention_mask.argmax(dim=1) + self.offsets[self.indices]
        rows = torch.arange(len(positions), device=positions.device)
        return self.output_class(last_hidden_state=hidden.clone().index_put((rows, positions), vectors))

    def read(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the encoder on a batch, and find by gradient what the head reads of its output.

        By gradient, since no attribute of transformers tells: BERT's head reads a pooled vector, DistilBERT's the first
        token, GPT-2's the last one that is not padding.

        Args:
            batch: `input_ids` and `attention_mask`, (B, T) each, and whatever else the model takes.

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
        # Leaves of a new graph: the backward pass ends here and never enters the encoder.
        hidden = output.last_hidden_state.detach().requires_grad_()  # (B, T, H)
        pooled = output.get("pooler_output")
        candidates = {"last_hidden_state": hidden}
        if pooled is not None:
            candidates["pooler_output"] = pooled = pooled.detach().requires_grad_()  # (B, H)
        self.probe = self.output_class(**candidates)
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
            return pooled.detach(), torch.zeros(len(pooled), dtype=torch.long), logits.detach()
        if used[0] and not any(used[1:]):
            read = gradients[0].abs().sum(dim=2) > 0  # (B, T): the tokens that move the logits
            mask = batch["attention_mask"].bool()
            # Exactly one token per row, and not padding. A mean over all tokens, for one, fails here.
            if bool((read.sum(dim=1) == 1).all()) and bool((read & mask).any(dim=1).all()):
                positions = read.int().argmax(dim=1)
                rows = torch.arange(len(positions), device=positions.device)
                return hidden.detach()[rows, positions], positions - mask.int().argmax(dim=1), logits.detach()
        raise NotOneVector


def is_frozen(model: PreTrainedModel) -> bool:
    """Whether the whole encoder of a model is frozen while something else trains."""
    encoder = model.base_model
    if encoder is model or not isinstance(encoder, PreTrainedModel):
        return False
    return not any(p.requires_grad for p in encoder.parameters()) and any(p.requires_grad for p in model.parameters())


@contextmanager
def cached_encoder(experiment: Experiment, prepared: Entry | None) -> Iterator[dict[str, Split]]:
    """Inside the context, the outputs of a frozen encoder are looked up for the features of train and validation.

    Args:
        prepared: the cache entry of the splits. The outputs get an entry of their own, named by it, for later runs.

    Yields:
        the splits, whose features have a column `INDEX`. If the encoder trains, or has to run, the splits as they are.
    """
    model, splits, device = trained_part(experiment.model), experiment.splits, experiment.hardware.device
    if not is_frozen(model):
        yield splits
        return
    encoder = FrozenEncoder(model.to(device))
    features = {name: split.features for name, split in splits.items() if name in ("train", "validation")}
    try:
        outputs = None
        if not splits["train"].stream:
            with enough_memory(lambda: advice_for_scoring(experiment.config)):
                outputs = _load_or_compute(encoder, experiment, features, prepared)
        if outputs is None:
            why = "rows are streamed" if splits["train"].stream else "its head reads more than one vector of a row"
            phase("note", f"the frozen encoder runs in every epoch: {why}")
            yield splits
            return
        encoder.vectors, encoder.offsets = (values.to(device) for values in outputs)
        indexed, start = dict(splits), 0
        for name, found in features.items():
            indices = pyarrow.array(range(start, start + len(found)))
            indexed[name] = replace(splits[name], features=found.with_column(INDEX, indices))
            start += len(found)
        yield indexed
    finally:
        encoder.release()


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


def _entry(encoder: FrozenEncoder, experiment: Experiment, prepared: Entry) -> Entry:
    # All that can change a vector. The batch size decides the padding, which moves the last digits of a vector.
    facts = {
        "data": prepared.key,
        "weights": weights_digest(encoder.encoder.state_dict().items()),
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
