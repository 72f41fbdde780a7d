"""Small networks that classify small images from nothing: a perceptron, a convolutional network, and a ResNet.

Each is an encoder, which makes a vector of an image, and a linear layer on top; so freezing and the like find both.
"""

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention, ImageClassifierOutputWithNoAttention


class SmallImageConfig(PreTrainedConfig):
    """Sizes of a small network for images.

    Args:
        hidden_sizes: sizes of the hidden layers, or channels of the stages.
        image_size: height and width of the images, a number or both.
        num_channels: 1 or 3.
        dropout: dropout probability before the last layer.
    """

    default_sizes: ClassVar[tuple[int, ...]] = ()

    def __init__(
        self,
        hidden_sizes: list[int] | None = None,
        image_size: int | list[int] = 28,
        num_channels: int = 3,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.hidden_sizes = hidden_sizes or list(self.default_sizes)
        self.image_size = image_size
        self.num_channels = num_channels
        self.dropout = dropout
        super().__init__(**kwargs)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.image_size if isinstance(self.image_size, list) else (self.image_size, self.image_size)
        return height, width


class ImageMLPConfig(SmallImageConfig):
    """A perceptron: by default one hidden layer of 128, as in the usual first tutorial on digits."""

    model_type = "image_mlp"
    default_sizes = (128,)

    def __init__(self, **kwargs: Any) -> None:  # transformers would generate one that skips that of the parent
        super().__init__(**kwargs)


class ImageCNNConfig(SmallImageConfig):
    """A convolutional network.

    Args:
        feature_size: size of the layer after the convolutions.
    """

    model_type = "image_cnn"
    default_sizes = (32, 64)

    def __init__(self, feature_size: int = 128, **kwargs: Any) -> None:
        self.feature_size = feature_size
        super().__init__(**kwargs)


class SmallResNetConfig(SmallImageConfig):
    """A ResNet for images of about 32 pixels.

    Args:
        blocks: residual blocks a stage. With three stages, 1, 3, 5 are known as ResNet-8, 20, 32.
    """

    model_type = "small_resnet"
    default_sizes = (16, 32, 64)

    def __init__(self, blocks: int = 1, **kwargs: Any) -> None:
        self.blocks = blocks
        super().__init__(**kwargs)


class ImageEncoder(PreTrainedModel):
    """Base of the encoders. A subclass computes `features` from pixels."""

    config_class = SmallImageConfig
    main_input_name = "pixel_values"
    width: int
    """The size of the vector."""

    def _init_weights(self, module: nn.Module) -> None:
        """He et al. 2015, for layers before a ReLU; normalization starts as the identity."""
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out" if isinstance(module, nn.Conv2d) else "fan_in")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """A map (B, width, h, w) or vectors (B, width) of pixels (B, C, H, W)."""
        raise NotImplementedError

    def forward(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPoolingAndNoAttention:
        """The features, and `pooler_output`, their mean over all places: (B, width)."""
        found = self.features(pixel_values)
        pooled = found.mean(dim=(2, 3)) if found.dim() == 4 else found
        return BaseModelOutputWithPoolingAndNoAttention(last_hidden_state=found, pooler_output=pooled)


class ImageMLP(ImageEncoder):
    """All pixels in a row, through linear layers with ReLU."""

    def __init__(self, config: ImageMLPConfig) -> None:
        super().__init__(config)
        height, width = config.sides
        sizes = [config.num_channels * height * width, *config.hidden_sizes]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.width = sizes[-1]
        self.post_init()

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        found = pixel_values.flatten(1)
        for layer in self.layers:
            found = layer(found).relu()
        return found


class ImageCNN(ImageEncoder):
    """Convolutions of 3 by 3 with ReLU, each followed by the maximum of 2 by 2 places, and a linear layer."""

    def __init__(self, config: ImageCNNConfig) -> None:
        super().__init__(config)
        pairs = pairwise([config.num_channels, *config.hidden_sizes])
        self.layers = nn.ModuleList(nn.Conv2d(*pair, 3, padding=1) for pair in pairs)
        height, width = (side >> len(config.hidden_sizes) for side in config.sides)
        if not height * width:
            raise ValueError(f"{len(config.hidden_sizes)} layers halve {config.sides} to nothing")
        self.projection = nn.Linear(config.hidden_sizes[-1] * height * width, config.feature_size)
        self.width = config.feature_size
        self.post_init()

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        found = pixel_values
        for layer in self.layers:
            # The maximum first: ReLU does not change which is the greatest, and has a quarter of the places left.
            found = nn.functional.max_pool2d(layer(found), 2).relu()
        vectors: torch.Tensor = self.projection(found.flatten(1))
        return vectors.relu()


class ResidualBlock(nn.Module):
    """Two convolutions with normalization, and the input added (He et al. 2016, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, found: torch.Tensor) -> torch.Tensor:
        """(B, channels, H, W) to (B, width, H / stride, W / stride)."""
        inner = nn.functional.relu(self.first_norm(self.first(found)), inplace=True)
        return nn.functional.relu(self.second_norm(self.second(inner)) + self.shortcut(found), inplace=True)


class SmallResNet(ImageEncoder):
    """A convolution at full size, then stages of residual blocks, each but the first at half the sides."""

    def __init__(self, config: SmallResNetConfig) -> None:
        super().__init__(config)
        first, self.width = config.hidden_sizes[0], config.hidden_sizes[-1]
        self.stem = nn.Conv2d(config.num_channels, first, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(first)
        sizes = pairwise([first, *config.hidden_sizes])
        self.layers = nn.ModuleList(
            ResidualBlock(channels if block == 0 else width, width, 2 if stage and block == 0 else 1)
            for stage, (channels, width) in enumerate(sizes)
            for block in range(config.blocks)
        )
        self.post_init()

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        found = nn.functional.relu(self.stem_norm(self.stem(pixel_values)), inplace=True)
        for layer in self.layers:
            found = layer(found)
        return found


class SmallImageModel(PreTrainedModel):
    """Base of the classifiers: an encoder, dropout, and a linear layer."""

    config_class: ClassVar[type[PreTrainedConfig]] = SmallImageConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"
    encoder_class: ClassVar[type[ImageEncoder]]

    def __init__(self, config: SmallImageConfig) -> None:
        super().__init__(config)
        self.encoder = self.encoder_class(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.encoder.width, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The encoder's rule; little for the last layer, so that training starts from nearly equal logits."""
        if module is self.classifier:
            nn.init.normal_(self.classifier.weight, std=0.01)
            nn.init.zeros_(self.classifier.bias)
        else:
            self.encoder._init_weights(module)

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None
    ) -> ImageClassifierOutputWithNoAttention:
        """Logits (B, num_labels) of pixels (B, C, H, W), and with `labels` their loss by `config.problem_type`."""
        logits = self.classifier(self.dropout(self.encoder(pixel_values).pooler_output))
        loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


class ImageMLPForImageClassification(SmallImageModel):
    """A perceptron with a class, several, or a number for an image."""

    config_class = ImageMLPConfig
    encoder_class = ImageMLP


class ImageCNNForImageClassification(SmallImageModel):
    """A convolutional network with a class, several, or a number for an image."""

    config_class = ImageCNNConfig
    encoder_class = ImageCNN


class SmallResNetForImageClassification(SmallImageModel):
    """A small ResNet with a class, several, or a number for an image. With the default sizes it has 78,000 weights."""

    config_class = SmallResNetConfig
    encoder_class = SmallResNet
