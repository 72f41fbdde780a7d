"""The section `augment`: how training images are changed at random, so that a model sees more than there are."""

from typing import Literal

from pydantic import Field

from llmft.schema.section import Section


class AugmentConfig(Section):
    """Random changes of training images; boxes and masks move along. What is drawn depends on `seed`, the epoch, and
    the row alone. Validation, test, and new images are never changed."""

    name: str = "none"
    """Name of the option."""

    flip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a mirror image, left to right. Set it to 0 where sides matter, as for digits."""

    flip_vertical: float = Field(default=0.0, ge=0, le=1)
    """Probability of an image upside down: for images from above or from a microscope."""

    shift: float = Field(default=0.0, ge=0, lt=1)
    """Move the image by up to this share of its sides, in whole pixels. What comes in from outside is black. 0.125 of
    32 pixels is the usual crop of CIFAR, padded by 4."""

    crop: int | None = Field(default=None, ge=8)
    """Train on square windows with this side, in pixels, at a random place. For segmentation, which answers for the
    whole image. Unset: the whole image."""

    area: float | None = Field(default=None, gt=0, le=1)
    """Train on a random part of the image, enlarged: at least this share of its area, sides from 3:4 to 4:3. 0.08 is
    usual for ImageNet; 0.35 or more suits small sets. Unset: the whole image."""

    zoom: float = Field(default=0.0, ge=0, lt=1)
    """Stretch width and height by factors from `1 - zoom` to `1 + zoom`."""

    shear: float = Field(default=0.0, ge=0, le=60)
    """Slant by up to this many degrees."""

    rotate: float = Field(default=0.0, ge=0, le=180)
    """Turn by up to this many degrees. The box of a turned object is the smallest one around the turned box."""

    brightness: float = Field(default=0.0, ge=0, le=1)
    """Multiply brightness by a factor from `1 - brightness` to `1 + brightness`."""

    contrast: float = Field(default=0.0, ge=0, le=1)
    """The same for contrast."""

    saturation: float = Field(default=0.0, ge=0, le=1)
    """The same for the strength of colors."""

    policy: Literal["randaugment", "trivial"] | None = None
    """Operations drawn from a list of 14: `randaugment` applies several of one strength (Cubuk et al., 2019), `trivial`
    one of random strength (Müller and Hutter, 2021). They need no tuning, and help most with many epochs."""

    operations: int = Field(default=2, ge=1, le=14)
    """randaugment: how many operations each image gets."""

    magnitude: int = Field(default=9, ge=0, le=30)
    """randaugment: their strength."""

    mixup: float = Field(default=0.0, ge=0)
    """Blend each image and its label with another one of the batch; the share is drawn from a beta distribution with
    this parameter (Zhang et al., 2017). 0.2 is usual; 0 is off. For classes and numbers."""

    cutmix: float = Field(default=0.0, ge=0)
    """Paste a rectangle of another image of the batch; labels are blended by its area, drawn as for mixup (Yun et
    al., 2019). 1.0 is usual; 0 is off. With both, each batch gets one of them."""

    @property
    def active(self) -> bool:
        """Whether anything changes."""
        return self != AugmentConfig(name=self.name)
