"""The U-Net."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSemanticSegmentation

from llmft.models.unet import UNetConfig, UNetForSemanticSegmentation


def small(**more: object) -> UNetForSemanticSegmentation:
    torch.manual_seed(0)
    return UNetForSemanticSegmentation(UNetConfig(hidden_sizes=[4, 8, 16], num_labels=3, **more)).eval()


def test_it_has_as_many_weights_as_the_docs_say() -> None:
    assert UNetForSemanticSegmentation(UNetConfig(num_labels=2)).num_parameters() == 1_942_594


@pytest.mark.parametrize("size", [(16, 16), (13, 21), (1, 1)])
def test_logits_are_as_large_as_the_image(size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert small()(pixel_values=torch.rand(2, 3, *size)).logits.shape == (2, 3, *size)


def test_padding_does_not_change_what_fits() -> None:
    model, pixels = small(), torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        whole = model(pixel_values=pixels).logits
        levels = model.encoder(pixels).hidden_states
        assert torch.equal(whole, model.classifier(model.decoder(levels)))


def test_the_loss_leaves_pixels_without_a_label_out() -> None:
    model, pixels = small(), torch.rand(1, 3, 4, 4)
    labels = torch.full((1, 4, 4), 255)
    with torch.no_grad():
        assert model(pixel_values=pixels, labels=labels).loss == 0
        labels[0, 0, 0] = 2
        found = model(pixel_values=pixels, labels=labels)
    assert torch.allclose(found.loss, -found.logits[0, :, 0, 0].log_softmax(0)[2])


def test_it_comes_back_by_the_auto_class(tmp_path: Path) -> None:
    model, pixels = small(num_channels=1), torch.rand(1, 1, 8, 8)
    model.save_pretrained(tmp_path)
    again = AutoModelForSemanticSegmentation.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(model(pixel_values=pixels).logits, again(pixel_values=pixels).logits)
