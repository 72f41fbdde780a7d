"""Initial weights: pretrained ones fitted to other labels and sizes of images, and linear layers drawn by a rule."""

import copy
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llmft.data.checks import few
from llmft.schema.problem import Problem, UserError

SHARE = 100.0  # of the mean of tokens in what the added layer gives, beside 1 for the first token
LINEAR = 0.3  # tanh(0.3 x) is 0.3 x within 3% for the usual values below 1

RULES: dict[str, Callable[[Tensor], object]] = {
    # Variance 2 / (inputs + outputs): Glorot and Bengio 2010.
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    # Variance 2 / inputs: He et al. 2015.
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "kaiming_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    # Orthonormal rows or columns, whichever are fewer: Saxe et al. 2014.
    "orthogonal": nn.init.orthogonal_,
}


def fit_head(
    model: PreTrainedModel,
    pretrained_labels: dict[int, str],
    labels: dict[int, str],
    missing: set[str],
    mismatched: set[str],
) -> str | None:
    """Reorder the rows of a pretrained head to the labels of the data, or initialize it again if they differ.

    Args:
        pretrained_labels: the labels by index that the head was trained with, from config.json.
        labels: the labels of the data by index; empty for regression.
        missing: names of weights that the file did not have.
        mismatched: names of weights that the file has for another number of labels, and that are new already.

    Returns:
        a note for the user; None if the head was not pretrained, or fits as it is.
    """
    rows = _label_weights(model)
    if not rows or missing & rows.keys():
        return None
    if mismatched & rows.keys():
        return f"the head is new: that of model.path is for {_describe_labels(pretrained_labels)}"
    if not labels:
        return "the pretrained head for regression is kept. If yours is another number, it starts from the wrong place"
    old, new = (
        [pretrained_labels[place] for place in sorted(pretrained_labels)],
        [labels[place] for place in sorted(labels)],
    )
    if old == new:
        return None
    if (order := _match_labels(old, new)) is None:
        _reset(model, rows)
        return f"the head is new: that of model.path is for {_describe_labels(pretrained_labels)}"
    with torch.no_grad():
        for name, axis in rows.items():
            weight = model.get_parameter(name)
            weight.copy_(weight.index_select(axis, torch.tensor(order)))
    if sorted(old) == sorted(new):
        return "the head is kept, and its rows are in the order of the labels here"
    pairs = ", ".join(f"{old[place]} for {name}" for place, name in list(zip(order, new, strict=True))[:4])
    return f"the head is kept: its labels are taken for those here ({pairs}{', ...' if len(new) > 4 else ''})"


def _match_labels(old: list[str], new: list[str]) -> list[int] | None:
    """For each of our labels the index of theirs with its name; None if names differ by more than case.

    `LABEL_1`, which transformers writes for a label without a name, matches the label `1` and no other.
    """
    numbered = [re.sub(r"^LABEL_(?=\d+$)", "", name) for name in old]
    for named, sought in (
        (old, new),
        (numbered, new),
        ([name.casefold() for name in old], [name.casefold() for name in new]),
    ):
        if sorted(named) == sorted(sought) and len(set(named)) == len(named):
            return [named.index(name) for name in sought]
    return None


def _label_weights(model: PreTrainedModel) -> dict[str, int]:
    """The names of weights with one row per label, and the axis of those rows.

    Found by building the model for one label more, on the meta device, which takes no memory: the shapes that grow are
    those of the head, whatever the architecture calls it.
    """
    config = copy.deepcopy(model.config)
    config.num_labels += 1
    with torch.device("meta"):
        wider = type(model)(config)
    found = {}
    sizes = {name: weight.shape for name, weight in wider.named_parameters()}
    for name, weight in model.named_parameters():
        axes = [axis for axis, size in enumerate(weight.shape) if name in sizes and sizes[name][axis] != size]
        if axes:
            found[name] = axes[0]
    return found


def _reset(model: PreTrainedModel, rows: dict[str, int]) -> None:
    """Initialize these weights again: normal with the architecture's `initializer_range`, or BERT's 0.02; biases 0."""
    deviation = getattr(model.config.get_text_config(), "initializer_range", None) or 0.02
    with torch.no_grad():
        for name in rows:
            weight = model.get_parameter(name)
            weight.normal_(0, deviation) if weight.dim() > 1 else weight.zero_()


def _describe_labels(labels: dict[int, str]) -> str:
    """`2 labels (bad, good)`, or `2 labels without names` if all are LABEL_0, LABEL_1, ..."""
    names = [str(labels[place]) for place in sorted(labels)]
    bare = all(re.fullmatch(r"LABEL_\d+", name) for name in names)
    count = f"{len(names)} label{'s' if len(names) > 1 else ''}"
    return f"{count} without names" if bare else f"{count} ({few(names)})"


def mend_batch_norms(model: nn.Module, new: bool = True) -> None:
    """Set the gains of batch normalization in a new model to 1 where they were drawn at random, around 0.

    transformers draws them so in RT-DETR, EfficientNet, and MobileViT built from a configuration, and next to no signal
    passes: after 10 epochs of blood cells RT-DETR has a mAP50 of 0.19, and with gains of 1 of 0.65. Its momenta of 0.99
    and more, in EfficientNet and MobileNet, make running statistics those of the last batch alone: an epoch that ends
    with a batch of two drops from an accuracy of 0.98 to 0.35. Gains that are all 0 close a branch on purpose.

    A channel with a single value, such as the last batch of one row where an image has become 1 x 1, has no variance,
    and torch stops. Such a batch is normalized by the running statistics.

    Args:
        new: whether weights are random; of pretrained ones the gains stay.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if new and module.weight is not None and module.weight.min() < module.weight.max():
                nn.init.ones_(module.weight)
            if module.momentum is not None and module.momentum > 0.5:
                module.momentum = 0.1
            if module.track_running_stats:
                module.register_forward_pre_hook(_use_running_statistics)
                module.register_forward_hook(_use_batch_statistics)


def _use_running_statistics(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Run a module in eval mode on (1, channels, 1, ...), which `_use_batch_statistics` ends."""
    if module.training and inputs[0].numel() == inputs[0].shape[1]:
        module.train(False)
        module.__dict__["one_value"] = True


def _use_batch_statistics(module: nn.Module, *_: object) -> None:
    if module.__dict__.pop("one_value", False):
        module.train()


def initialize(model: nn.Module, rule: str) -> None:
    """Initialize the matrix of every linear layer, the head included, by one of `RULES`; uses torch's global seed.

    Embeddings, norms, and biases stay as the architecture makes them, and so do matrices tied to an embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) not in embeddings:
            # GPT-2's Conv1D is a linear layer with a transposed matrix, (in, out). The rules count inputs by (out, in).
            RULES[rule](module.weight.T if isinstance(module, Conv1D) else module.weight)


def add_mean_pooling(model: PreTrainedModel) -> None:
    """Let the pooler of a BERT read the mean of all tokens: by one more layer, which changes nothing else at first.

    Its queries are 0, so that the first token, which the pooler reads, attends to all tokens alike; its values are the
    tokens as they are, SHARE times as large as the token that is added to them; its feed-forward part adds 0. The
    pooler is small enough a multiple of the identity for tanh to be nearly linear. So the head reads what models for
    sentences were trained to put meaning into, and the model stays a plain BERT that any program loads.

    Raises:
        UserError: for another architecture.
    """
    encoder = model.base_model
    pooler = getattr(encoder, "pooler", None)
    if model.config.model_type != "bert" or pooler is None:
        what = f"is for BERT with a pooler, and this model is a {type(model).__name__}"
        raise UserError(Problem("model.pooling", what, hint="Leave it out."))
    layer = copy.deepcopy(encoder.encoder.layer[-1])
    attention, size = layer.attention, model.config.hidden_size
    scales = {attention.self.query: 0.0, attention.self.key: 0.0, attention.self.value: 1.0}
    scales |= {attention.output.dense: SHARE, pooler.dense: LINEAR}
    with torch.no_grad():
        for linear, scale in scales.items():
            linear.weight.copy_(scale * torch.eye(size))
            linear.bias.zero_()
        for norm in (attention.output.LayerNorm, layer.output.LayerNorm):
            norm.weight.fill_(1.0)
            norm.bias.zero_()
        layer.output.dense.weight.zero_()
        layer.output.dense.bias.zero_()
    encoder.encoder.layer.append(layer)
    model.config.num_hidden_layers += 1


def position_tables(mismatched: Iterable[tuple[str, Any, Any]], config: PreTrainedConfig) -> set[str]:
    """The position embeddings of images among weights whose saved shape differs: (1, tokens, size) each.

    Args:
        mismatched: names with the saved shape and that of the model.
        config: that of the model.
    """
    if not hasattr(config, "image_size") or not isinstance(getattr(config, "patch_size", None), int):
        return set()
    return {
        name
        for name, saved, own in mismatched
        if name.endswith("position_embeddings") and len(saved) == 3 and (saved[0], saved[2]) == (own[0], own[2])
    }


def interpolate_positions(model: PreTrainedModel, original: PreTrainedModel, names: Iterable[str]) -> None:
    """Give a model for images of another size the position embeddings of `original`, on its own grid of patches.

    Bicubic, as Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929, section 3.2) do for fine-tuning at a higher
    resolution. Those of tokens before the patches, such as the class token, stay as they are.
    """
    grids = [_grid(each.config) for each in (original, model)]
    before, after = (dict(each.named_parameters()) for each in (original, model))
    for name in names:
        table, (rows, columns) = before[name].data, grids[0]
        ahead = table.shape[1] - rows * columns
        patches = table[:, ahead:].reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
        resized = torch.nn.functional.interpolate(patches, size=grids[1], mode="bicubic", align_corners=False)
        resized = resized.permute(0, 2, 3, 1).flatten(1, 2)
        after[name].data = torch.cat([table[:, :ahead], resized], dim=1)


def _grid(config: PreTrainedConfig) -> tuple[int, int]:
    """Rows and columns of patches."""
    side = config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    return height // config.patch_size, width // config.patch_size
