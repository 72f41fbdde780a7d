"""What does not change while a model trains is computed once, before the first step.

The outputs of a frozen encoder are kept by feature, and every epoch looks them up: ten epochs with a frozen MiniLM cost
little more than one pass over the rows without gradients. And where a loss compares with the first weights
(`TaskConfig.refers`), what those say of each row goes into its features.
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
from llmft.models.weights import digest_of
from llmft.reporting.lines import phase
from llmft.schema.config import Config
from llmft.tasks.task import Task
from llmft.training import processes
from llmft.training.evaluation import Split, batches, float32
from llmft.training.features import FeatureSet
from llmft.training.hardware import Hardware
from llmft.training.memory import advice_for_scoring, enough_memory

REFERENCE = "reference"
"""The key of a feature that holds what the first weights say of it."""
NUMBER = "feature_number"
"""The key of a batch that says which features it holds."""
OUTPUTS = "outputs.arrow"


class Unkept(Exception):
    """What a head reads of its encoder is more than one vector a feature."""


class FrozenEncoder:
    """Takes the place of `model.base_model.forward`, on this instance alone.

    Only the one vector of a feature that the head reads is kept: for MiniLM 1.5 kB instead of 197 kB for 128 tokens.
    Every other position of the output is zero, which the head does not see.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.encoder = model.base_model
        self.plain = self.encoder.forward
        self.vectors = torch.empty(0)  # (N, H): of each feature, what the head reads
        self.ranks = torch.empty(0)  # (N,): where that token stands, counted from the first that is not padding
        self.output: type[Any] = dict  # the class of the encoder's output, which the head may index by position
        self.pooled = False  # whether the head reads `pooler_output`, and not a token
        self.numbers: torch.Tensor | None = None  # (B,): the features of the batch that is computed now
        self.given: Any = None  # an output to hand to the head while `read` looks for what it reads
        self.encoder.forward = self._forward
        self.hook = model.register_forward_pre_hook(self._remember, with_kwargs=True)

    def release(self) -> None:
        """Give the model its own forward back."""
        del self.encoder.forward
        self.hook.remove()

    def _remember(self, _: Any, inputs: tuple[Any, ...], keys: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self.numbers = keys.pop(NUMBER, None)
        return inputs, keys

    def _forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **keys: Any) -> Any:
        if self.given is not None:
            return self.given
        if self.numbers is None:
            self.encoder.eval()  # nothing is dropped out of what does not train
            with torch.no_grad():
                return self.plain(input_ids, attention_mask=attention_mask, **keys)
        vectors = self.vectors[self.numbers]  # (B, H)
        # Expanded, a zero takes no memory; only a head that reads a token needs a copy to write the token into.
        hidden = vectors.new_zeros(1).expand(*input_ids.shape, vectors.shape[-1])  # (B, T, H)
        if self.pooled:
            return self.output(last_hidden_state=hidden, pooler_output=vectors)
        assert attention_mask is not None  # packed rows go through `plain`
        # (B,): padding may stand on the left, and how much of it there is depends on the batch.
        places = attention_mask.argmax(dim=1) + self.ranks[self.numbers]
        rows = torch.arange(len(places), device=places.device)
        return self.output(last_hidden_state=hidden.clone().index_put((rows, places), vectors))

    def read(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the encoder on a batch, and find by gradient what the head reads of it.

        By gradient, since no attribute of transformers says it: BERT's head reads a pooled vector, DistilBERT's the
        first token, GPT-2's the last one that is not padding.

        Returns:
            the vectors that it reads (B, H), the places of their tokens (B,), counted from the first token that is no
            padding, and the logits (B, labels).

        Raises:
            Unkept: if it reads more than one vector a feature, or none.
        """
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        with torch.no_grad():
            output = self.plain(**inputs)
        self.output = type(output)
        hidden = output.last_hidden_state.detach().requires_grad_()  # (B, T, H)
        pooled = output.get("pooler_output")
        read = {"last_hidden_state": hidden}
        if pooled is not None:
            read["pooler_output"] = pooled = pooled.detach().requires_grad_()
        self.given = self.output(**read)
        try:
            logits = self.model(**inputs).get("logits")
        finally:
            self.given = None
        if logits is None:  # such as that for the first and the last word of an answer, which reads every token
            raise Unkept
        # Weights of all sizes, so that the gradients of two labels do not cancel out.
        total = (logits.float() * torch.linspace(1, 2, logits.numel(), device=logits.device).view_as(logits)).sum()
        gradients = torch.autograd.grad(total, list(read.values()), allow_unused=True)
        used = [g is not None and bool(g.any()) for g in gradients]
        self.pooled = used == [False, True]
        if self.pooled:
            assert pooled is not None
            return pooled.detach(), torch.zeros(len(pooled), dtype=torch.long), logits.detach()
        if used[0] and not any(used[1:]):
            places = gradients[0].abs().sum(dim=2) > 0  # (B, T): the tokens that move the logits
            mask = batch["attention_mask"].bool()
            # One token a row, and never padding: a mean over all tokens, for one, ends in `Unkept`.
            if bool((places.sum(dim=1) == 1).all()) and bool((places & mask).any(dim=1).all()):
                place = places.int().argmax(dim=1)
                rows = torch.arange(len(place), device=place.device)
                return hidden.detach()[rows, place], place - mask.int().argmax(dim=1), logits.detach()
        raise Unkept


def is_frozen(model: PreTrainedModel) -> bool:
    """Whether the whole encoder of a model stays as it is, and something else trains."""
    encoder = model.base_model
    if encoder is model or not isinstance(encoder, PreTrainedModel):
        return False
    return not any(p.requires_grad for p in encoder.parameters()) and any(p.requires_grad for p in model.parameters())


@contextmanager
def frozen(
    config: Config,
    task: Task[Any],
    model: PreTrainedModel,
    splits: dict[str, Split],
    hardware: Hardware,
    of: Entry | None,
) -> Iterator[dict[str, Split]]:
    """While it is entered, a frozen encoder's outputs are looked up for the features of train and validation.

    Args:
        of: the entry of the splits in the cache; the outputs are kept beside it for later runs.

    Yields:
        the splits, with features that carry their numbers; a model that trains as a whole gets them back as they are.
    """
    if not is_frozen(model):
        yield splits
        return
    encoder = FrozenEncoder(model.to(hardware.device))
    features = {name: split.features for name, split in splits.items() if name in ("train", "validation")}
    try:
        with enough_memory(lambda: advice_for_scoring(config)):
            kept = None if splits["train"].stream else _outputs_of(encoder, config, task, features, hardware, of)
        if kept is None:
            what = "rows are streamed" if splits["train"].stream else "its head reads more than one vector a row"
            phase("note", f"the frozen encoder runs in every epoch: {what}")
            yield splits
            return
        encoder.vectors, encoder.ranks = (values.to(hardware.device) for values in kept)
        numbered, first = dict(splits), 0
        for name, found in features.items():
            numbers = pyarrow.array(range(first, first + len(found)))
            numbered[name] = replace(splits[name], features=found.with_column(NUMBER, numbers))
            first += len(found)
        yield numbered
    finally:
        encoder.release()


def _outputs_of(
    encoder: FrozenEncoder,
    config: Config,
    task: Task[Any],
    features: dict[str, FeatureSet],
    hardware: Hardware,
    of: Entry | None,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What the head reads for every feature of every split: vectors (N, H), and the places of their tokens (N,).

    In float32, except for the training rows of a run in bfloat16. None if it reads more than that.
    """
    entry = _entry(encoder, config, hardware, of) if of else None
    if processes.from_rank0(lambda: entry is not None and entry.found()):
        assert entry
        # One row is run all the same: it tells whether the head reads a pooled vector.
        sample = task.collator()(features["train"].__getitems__([0]))
        with float32(encoder.model), torch.inference_mode(False):
            encoder.read({key: value.to(hardware.device) for key, value in sample.items()})
        try:
            return _read(entry)
        except OSError:  # another process has made room
            entry = None
    bf16 = hardware.precision == "bf16"
    parts = [
        _computed(encoder, task, found, config.trainer.eval_batch_size, hardware, bf16 and name == "train")
        for name, found in features.items()
    ]
    if None in parts:
        return None
    vectors, ranks = (torch.cat(column) for column in zip(*filter(None, parts), strict=True))
    if entry:
        entry.publish(lambda folder: write_table(_table(vectors, ranks), folder / OUTPUTS))
    return vectors, ranks


def _table(vectors: torch.Tensor, ranks: torch.Tensor) -> pyarrow.Table:
    values = pyarrow.FixedSizeListArray.from_arrays(vectors.numpy().reshape(-1), vectors.shape[1])
    return pyarrow.table({"vector": values, "rank": ranks.numpy()})


def _read(entry: Entry) -> tuple[torch.Tensor, torch.Tensor]:
    table = read_table(entry.folder / OUTPUTS)
    width = table["vector"].type.list_size
    flat = table["vector"].combine_chunks().values.to_numpy().reshape(-1, width)
    return torch.tensor(flat), torch.tensor(table["rank"].to_numpy())


def _computed(
    encoder: FrozenEncoder,
    task: Task[Any],
    features: FeatureSet,
    batch_size: int,
    hardware: Hardware,
    bf16: bool,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The same for one set of features; several processes share the batches, and each gets all outputs."""
    own: list[tuple[list[int], torch.Tensor, torch.Tensor]] = []
    unkept = False
    with float32(encoder.model), torch.inference_mode(False), torch.autocast(hardware.device, torch.bfloat16, bf16):
        for numbers, batch in batches(task, features, batch_size, encoder.model):
            try:
                vectors, places, _ = encoder.read(batch)
            except Unkept:
                unkept = True
                break
            own.append((numbers, vectors.float().cpu(), places.cpu()))
    if processes.all_reduce_max(unkept):
        return None
    everything = list(chain.from_iterable(processes.all_gather(own)))
    all_vectors = torch.empty(len(features), everything[0][1].shape[1])
    all_places = torch.empty(len(features), dtype=torch.long)
    for numbers, vectors, places in everything:
        all_vectors[numbers], all_places[numbers] = vectors, places
    return all_vectors, all_places


def _entry(encoder: FrozenEncoder, config: Config, hardware: Hardware, of: Entry) -> Entry:
    facts = {
        "data": of.key,
        "weights": digest_of(encoder.encoder.state_dict().items()),
        "architecture": encoder.model.config.to_json_string(),
        "head": type(encoder.model).__name__,
        "precision": hardware.precision,
        "trainer.eval_batch_size": str(config.trainer.eval_batch_size),
    }
    facts |= {package: version(package) for package in ("torch", "transformers")}
    return Entry("frozen", facts | {"the code of llmft": digest(Path(__file__))})


def with_reference(
    config: Config, task: Task[Any], model: torch.nn.Module, splits: dict[str, Split], hardware: Hardware
) -> dict[str, Split]:
    """The splits, those that training reads with `Task.first_answers` in their features.

    In the numbers that each is read in later: validation in float32, train as it is trained. So at first all loss is
    the same, and none of it rounding. Several processes share the batches, and each gets all answers.
    """
    if not config.task.refers:
        return splits
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
                (numbers, task.reference_scores(model, batch))
                for numbers, batch in batches(task, features, size, model)
            ]
        values = [0.0] * len(features)
        for numbers, answers in chain.from_iterable(processes.all_gather(own)):
            for number, answer in zip(numbers, answers, strict=True):
                values[number] = answer
        column = pyarrow.array(values, pyarrow.float32())
        found[name] = replace(splits[name], features=features.with_column(REFERENCE, column))
    return found
