"""An encoder that does not train is run once: its outputs are kept by feature, and every epoch looks them up.

Ten epochs with a frozen MiniLM cost little more than one pass over the rows without gradients.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
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
from llmft.tasks.task import Task
from llmft.training import processes
from llmft.training.evaluation import Split
from llmft.training.features import FeatureSet
from llmft.training.hardware import Hardware
from llmft.training.prediction import batches, float32

NUMBER = "feature_number"
"""The key of a batch that says which features it holds."""
BATCH = 64


class Unkept(Exception):
    """What a head reads of its encoder is more than one vector a feature."""


class FrozenEncoder:
    """Takes the place of `model.base_model.forward`, on this instance alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.encoder = model.base_model
        self.plain = self.encoder.forward
        self.vectors = self.ranks = torch.empty(0)
        self.output: type[Any] = dict
        self.pooled = False
        self.numbers: torch.Tensor | None = None
        self.given: Any = None
        self.encoder.forward = self._forward
        self.hook = model.register_forward_pre_hook(self._remember, with_kwargs=True)

    def release(self) -> None:
        """Give the model its own forward back."""
        del self.encoder.forward
        self.hook.remove()

    def _remember(self, _: Any, inputs: tuple[Any, ...], keys: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self.numbers = keys.pop(NUMBER, None)
        return inputs, keys

    def _forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **keys: Any) -> Any:
        if self.given is not None:
            return self.given
        if self.numbers is None:
            self.encoder.eval()  # nothing is dropped out of what does not train
            with torch.no_grad():
                return self.plain(input_ids, attention_mask=attention_mask, **keys)
        vectors = self.vectors[self.numbers]
        hidden = vectors.new_zeros(1).expand(*input_ids.shape, vectors.shape[-1])  # (B, T, H)
        if self.pooled:
            return self.output(last_hidden_state=hidden, pooler_output=vectors)
        places = attention_mask.argmax(dim=1) + self.ranks[self.numbers]
        rows = torch.arange(len(places), device=places.device)
        return self.output(last_hidden_state=hidden.clone().index_put((rows, places), vectors))

    def read(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the encoder on a batch, and find by gradient what the head reads of it.

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
        hidden = output.last_hidden_state.detach().requires_grad_()
        pooled = output.get("pooler_output")
        read = {"last_hidden_state": hidden}
        if pooled is not None:
            read["pooler_output"] = pooled = pooled.detach().requires_grad_()
        self.given = self.output(**read)
        try:
            logits = self.model(**inputs).logits
        finally:
            self.given = None
        # Weights of all sizes, so that the gradients of two labels do not cancel out.
        total = (logits.float() * torch.linspace(1, 2, logits.numel(), device=logits.device).view_as(logits)).sum()
        gradients = torch.autograd.grad(total, list(read.values()), allow_unused=True)
        used = [g is not None and bool(g.any()) for g in gradients]
        self.pooled = used == [False, True]
        if self.pooled:
            assert pooled is not None
            return pooled.detach(), torch.zeros(len(pooled), dtype=torch.long), logits.detach()
        if used[0] and not any(used[1:]):
            places = gradients[0].abs().sum(dim=2) > 0  # (B, T)
            mask = batch["attention_mask"].bool()
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
    model: PreTrainedModel, task: Task[Any], state: Any, splits: dict[str, Split], hardware: Hardware, of: Entry | None
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
    try:
        if splits["train"].stream:
            print("  note      the encoder is frozen, and runs in every epoch: outputs of streamed rows are not kept")
            yield splits
            return
        named = [name for name in ("train", "validation") if name in splits]
        try:
            _fill(encoder, task, state, [splits[name].features for name in named], hardware, of)
        except Unkept:
            print("  note      the head reads more of its frozen encoder than can be kept: it runs in every epoch")
            yield splits
            return
        numbered, first = dict(splits), 0
        for name in named:
            features = splits[name].features
            numbers = pyarrow.array(range(first, first + len(features)))
            table = features.table.append_column(NUMBER, numbers)
            numbered[name] = Split(splits[name].rows, FeatureSet(table, features.rows, features.lengths, features.cut))
            first += len(features)
        yield numbered
    finally:
        encoder.release()


def _fill(
    encoder: FrozenEncoder,
    task: Task[Any],
    state: Any,
    features: list[FeatureSet],
    hardware: Hardware,
    of: Entry | None,
) -> None:
    """Give `encoder` the outputs for all features: of the first set, which trains, in the numbers of training; of
    the others, which are scored, in float32."""
    entry = _entry(encoder, hardware, of) if of else None
    # One batch is always run: it tells what the head reads.
    if entry and entry.found():
        sample = task.collator(state)(features[0].__getitems__([0]))
        with float32(encoder.model), torch.inference_mode(False):
            encoder.read({key: value.to(hardware.device) for key, value in sample.items()})
        table = read_table(entry.folder / "outputs.arrow")
        width = table["vector"].type.list_size
        flat = table["vector"].combine_chunks().values.to_numpy().reshape(-1, width)
        vectors, ranks = torch.tensor(flat), torch.tensor(table["rank"].to_numpy())
    else:
        bf16 = hardware.precision == "bf16"
        parts = [_outputs(encoder, task, state, f, hardware, bf16 and f is features[0]) for f in features]
        vectors, ranks = (torch.cat(column) for column in zip(*parts, strict=True))
    encoder.vectors, encoder.ranks = vectors.to(hardware.device), ranks.to(hardware.device)
    if entry and not entry.found():
        entry.publish(lambda folder: write_table(_table(vectors, ranks), folder / "outputs.arrow"))


def _table(vectors: torch.Tensor, ranks: torch.Tensor) -> pyarrow.Table:
    values = pyarrow.FixedSizeListArray.from_arrays(vectors.numpy().reshape(-1), vectors.shape[1])
    return pyarrow.table({"vector": values, "rank": ranks.numpy()})


def _outputs(
    encoder: FrozenEncoder, task: Task[Any], state: Any, features: FeatureSet, hardware: Hardware, bf16: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the head reads for every feature: vectors (N, H) in float32, and the places of their tokens (N,)."""
    own = []
    with float32(encoder.model), torch.inference_mode(False), torch.autocast(hardware.device, torch.bfloat16, bf16):
        for numbers, batch in batches(task, state, features, BATCH, hardware.device):
            vectors, places, _ = encoder.read(batch)
            own.append((numbers, vectors.float().cpu(), places.cpu()))
    width = own[0][1].shape[1]
    all_vectors, all_places = torch.empty(len(features), width), torch.empty(len(features), dtype=torch.long)
    for numbers, vectors, places in chain.from_iterable(processes.gather(own)):
        all_vectors[numbers], all_places[numbers] = vectors, places
    return all_vectors, all_places


def _entry(encoder: FrozenEncoder, hardware: Hardware, of: Entry) -> Entry:
    weights = sha256()
    for name, value in sorted(encoder.encoder.state_dict().items()):
        weights.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    facts = {
        "data": of.key,
        "weights": weights.hexdigest(),
        "precision": hardware.precision,
        "head": encoder.model.__class__.__name__,
    }
    facts |= {package: version(package) for package in ("torch", "transformers")}
    return Entry("frozen", facts | {"the code of llmft": digest(Path(__file__))})
