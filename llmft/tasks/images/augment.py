"""Random changes of a batch of images, with their boxes and masks, as the section `augment` says.

All that is random about an image comes from one number, its `draw`, which depends on (seed, epoch, row) alone: a
resumed run, or a worker process, sees the same pixels. Moves by whole pixels copy windows; all others are one
affine map an image, applied to the batch at once. Operations on colors are those of torchvision.
"""

import math
from typing import Any, NamedTuple

import numpy
import torch
from torch.nn.functional import affine_grid, grid_sample

from llmft.schema.augmentation import AugmentConfig
from llmft.schema.problem import UserError, missing_package
from llmft.schema.tasks import IGNORED_PIXEL

VISIBLE = 0.2  # of its area: an object of which less is left in the image is no longer an object
GRAY = (0.2989, 0.587, 0.114)  # of red, green, and blue (ITU-R BT.601), as torchvision rounds them
RATIOS = (math.log(3 / 4), math.log(4 / 3))  # width to height of a part that is enlarged, as in torchvision


class Augmented(NamedTuple):
    """A batch after `augment`."""

    pixels: torch.Tensor
    """(B, h, w, C), uint8."""
    boxes: list[numpy.ndarray] | None
    """By image (m, 4), float64: x, y, width, height of the boxes that are left, in pixels of the new image."""
    kept: list[numpy.ndarray] | None
    """By image (m,): which of the boxes those are."""
    masks: torch.Tensor | None
    """(B, h, w), uint8; what came in from outside is IGNORED_PIXEL."""


class Uniform:
    """Uniform numbers in [0, 1), one for each image of a batch at every call, from the images' draws alone."""

    def __init__(self, draws: numpy.ndarray) -> None:
        self.state = draws.astype(numpy.uint64)

    def __call__(self) -> numpy.ndarray:
        """(B,), float64, by splitmix64 (Steele, Lea and Flood 2014), the usual generator for seeding others."""
        with numpy.errstate(over="ignore"):
            self.state = self.state + numpy.uint64(0x9E3779B97F4A7C15)
            mixed = (self.state ^ (self.state >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        return ((mixed ^ (mixed >> numpy.uint64(31))) >> numpy.uint64(11)) * 2.0**-53

    def between(self, least: float, most: float) -> numpy.ndarray:
        """(B,), in [least, most)."""
        return least + (most - least) * self()


def augment(
    pixels: torch.Tensor,
    size: tuple[int, int],
    draws: numpy.ndarray | None = None,
    options: AugmentConfig | None = None,
    boxes: list[numpy.ndarray] | None = None,
    masks: torch.Tensor | None = None,
) -> Augmented:
    """Change each image at random by its draw; without draws, take the middle.

    Args:
        pixels: (B, H, W, C), uint8; may be larger than `size`, so that shifts bring in pixels and not black.
        size: height and width that the model sees. `options.crop` replaces them, where the image is as large.
        draws: (B,), int64; None for images that are not trained on.
        boxes: by image (n, 4): x, y, width, height in pixels of `pixels`, far side exclusive.
        masks: (B, H, W), uint8, classes by pixel.

    Raises:
        UserError: for operations on colors without torchvision.
    """
    height, width = pixels.shape[1:3]
    if draws is None or options is None or not options.active:
        if (height, width) == size:
            return Augmented(pixels, boxes, None if boxes is None else [numpy.arange(len(b)) for b in boxes], masks)
        identity = numpy.tile(numpy.eye(2), (len(pixels), 1, 1))
        return _move(pixels, size, identity, numpy.zeros((len(pixels), 2)), True, boxes, masks)
    uniform = Uniform(draws)
    if options.crop:
        size = (min(options.crop, height), min(options.crop, width))
    matrices, shifts, exact = _geometry(options, (height, width), size, uniform)
    colors = [[] for _ in draws] if options.policy is None else _policy(options, size, uniform, matrices, shifts)
    exact = exact and options.policy is None
    moved = _move(pixels, size, matrices, shifts, exact, boxes, masks)
    found = _recolor(moved.pixels, colors)
    for name in ("brightness", "contrast", "saturation"):
        if strength := getattr(options, name):
            found = adjust(found, name, uniform.between(1 - strength, 1 + strength))
    return moved._replace(pixels=found)


def _geometry(
    options: AugmentConfig, whole: tuple[int, int], size: tuple[int, int], uniform: Uniform
) -> tuple[numpy.ndarray, numpy.ndarray, bool]:
    """The affine map of each image, from a new pixel to the old one that it shows, both counted from the middle.

    Returns:
        matrices (B, 2, 2) and shifts (B, 2), for x and y in this order; and whether they are of whole pixels.
    """
    count = len(uniform.state)
    matrices, shifts = numpy.tile(numpy.eye(2), (count, 1, 1)), numpy.zeros((count, 2))
    for axis, rate in enumerate((options.flip, options.flip_vertical)):
        if rate:
            matrices[:, axis, axis] = numpy.where(uniform() < rate, -1, 1)
    # The margin around the window, in pixels: a cached image may be larger than what the model sees.
    margins = numpy.array([whole[1] - size[1], whole[0] - size[0]])
    for axis, length in enumerate((size[1], size[0])):
        if options.crop:
            most = max(int(margins[axis]), 0)  # places of the window: 0 to `most`, shifts counted from the middle one
            shifts[:, axis] = numpy.floor(uniform.between(0, most + 1)) - most // 2
        elif options.shift and not options.area:
            most = round(options.shift * length)
            shifts[:, axis] = numpy.floor(uniform.between(-most, most + 1))
    if options.area:
        ratios, areas = numpy.exp(uniform.between(*RATIOS)), uniform.between(options.area, 1)
        scales = numpy.sqrt(areas[:, None] * numpy.stack([ratios, 1 / ratios], axis=1)).clip(max=1)  # (B, 2)
        matrices *= scales[:, :, None]
        room = (numpy.array([whole[1], whole[0]]) - scales * [size[1], size[0]]) / 2
        shifts = numpy.stack([uniform.between(-1, 1), uniform.between(-1, 1)], axis=1) * room
    exact = not (options.area or options.zoom or options.shear or options.rotate)
    if options.zoom:
        for axis in range(2):
            matrices[:, axis] *= uniform.between(1 - options.zoom, 1 + options.zoom)[:, None]
    if options.shear:
        _slant(matrices, 0, numpy.tan(numpy.radians(uniform.between(-options.shear, options.shear))))
    if options.rotate:
        _turn(matrices, numpy.radians(uniform.between(-options.rotate, options.rotate)))
    return matrices, shifts, exact


def _slant(matrices: numpy.ndarray, axis: int, amounts: numpy.ndarray) -> None:
    """Shear along an axis, in place; `amounts` (B,) are pixels a pixel."""
    shear = numpy.tile(numpy.eye(2), (len(amounts), 1, 1))
    shear[:, axis, 1 - axis] = amounts
    matrices[:] = matrices @ shear


def _turn(matrices: numpy.ndarray, angles: numpy.ndarray) -> None:
    """Rotate, in place; `angles` (B,) in radians."""
    cosines, sines = numpy.cos(angles), numpy.sin(angles)
    matrices[:] = matrices @ numpy.stack([cosines, -sines, sines, cosines], axis=1).reshape(-1, 2, 2)


def _move(
    pixels: torch.Tensor,
    size: tuple[int, int],
    matrices: numpy.ndarray,
    shifts: numpy.ndarray,
    exact: bool,
    boxes: list[numpy.ndarray] | None,
    masks: torch.Tensor | None,
) -> Augmented:
    """The images, boxes and masks under an affine map each: see `_geometry`."""
    found = None if boxes is None else _move_boxes(boxes, tuple(pixels.shape[1:3]), size, matrices, shifts)
    moved, kept = found or (None, None)
    if exact:
        corner = (numpy.array(pixels.shape[2:0:-1]) - size[::-1]) / 2 + _offset(pixels.shape[1:3], size)
        places = (corner + shifts).round().astype(int)  # (B, 2): where the window of each image begins
        mirrored = torch.from_numpy(numpy.diagonal(matrices, axis1=1, axis2=2) < 0)
        labels = None if masks is None else _cut(masks, places, size, mirrored, IGNORED_PIXEL)
        return Augmented(_cut(pixels, places, size, mirrored, 0), moved, kept, labels)
    # torch's grid runs from -1 to 1 over an image: from there to pixels of the window, by the map, and back.
    height, width = pixels.shape[1:3]
    ends, starts = numpy.array([width / 2, height / 2]), numpy.array([size[1] / 2, size[0] / 2])
    theta = numpy.concatenate(
        [matrices * starts / ends[:, None], ((shifts + _offset((height, width), size)) / ends)[..., None]], axis=2
    )
    grid = affine_grid(torch.from_numpy(theta).float(), [len(pixels), 1, *size], align_corners=False)
    planes = pixels.permute(0, 3, 1, 2).float()
    warped = grid_sample(planes, grid, mode="bilinear", align_corners=False).round_().clamp_(0, 255)
    if masks is not None:  # less 255, so that the 0 from outside becomes 255
        labels = grid_sample(masks[:, None].float() - IGNORED_PIXEL, grid, mode="nearest", align_corners=False)
        masks = (labels[:, 0] + IGNORED_PIXEL).round_().to(torch.uint8)
    return Augmented(warped.to(torch.uint8).permute(0, 2, 3, 1), moved, kept, masks)


def _offset(whole: tuple[int, ...], size: tuple[int, ...]) -> numpy.ndarray:
    """From the middle of an image to that of its window at whole pixels, (2,): half a pixel if the margin is odd."""
    return numpy.array([(small - large) % 2 / -2 for large, small in zip(whole[::-1], size[::-1], strict=True)])


def _cut(
    pixels: torch.Tensor, places: numpy.ndarray, size: tuple[int, int], mirrored: torch.Tensor, fill: int
) -> torch.Tensor:
    """A window of each image, (B, h, w, ...), with `fill` for what lies outside, mirrored where `mirrored` (B, 2) is.

    By slices, a copy each: 0.06 ms for 224 x 224 pixels, where a batch that is indexed at once takes 1.1 ms.
    """
    whole, old = pixels.shape[1:3], pixels.numpy()
    new = numpy.full((len(old), *size, *old.shape[3:]), fill, old.dtype)
    for row, (x, y) in enumerate(places.tolist()):
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + size[1], whole[1]), min(y + size[0], whole[0])
        if left < right and top < bottom:
            new[row, top - y : bottom - y, left - x : right - x] = old[row, top:bottom, left:right]
    found = torch.from_numpy(new)
    for axis in range(2):
        if (rows := mirrored[:, axis]).any():
            found[rows] = found[rows].flip(2 - axis)
    return found


def _move_boxes(
    boxes: list[numpy.ndarray],
    whole: tuple[int, ...],
    size: tuple[int, int],
    matrices: numpy.ndarray,
    shifts: numpy.ndarray,
) -> tuple[list[numpy.ndarray], list[numpy.ndarray]]:
    """Each box as the smallest one around its moved corners, cut at the border, and which of them are left."""
    middle = numpy.array([whole[1], whole[0]]) / 2 + _offset((whole[0], whole[1]), size)
    limits = numpy.array([size[1], size[0]], dtype=float)
    moved, kept = [], []
    for given, matrix, shift in zip(boxes, matrices, shifts, strict=True):
        given = numpy.asarray(given, dtype=float).reshape(-1, 4)
        corners = given[:, None, :2] + given[:, None, 2:] * [[0, 0], [1, 0], [0, 1], [1, 1]]  # (n, 4, 2)
        corners = (corners - middle - shift) @ numpy.linalg.inv(matrix).T + limits / 2
        low, high = corners.min(axis=1), corners.max(axis=1)
        sides = high.clip(0, limits) - low.clip(0, limits)
        full = (high - low).prod(axis=1)
        left = numpy.flatnonzero((sides >= 1).all(axis=1) & (sides.prod(axis=1) >= VISIBLE * full))
        moved.append(numpy.concatenate([low.clip(0, limits), sides], axis=1)[left])
        kept.append(left)
    return moved, kept


class Operation(NamedTuple):
    """An operation of a policy: its name, and its greatest amount under randaugment and under trivial."""

    name: str
    rand: float
    trivial: float
    signed: bool = True


# The spaces of torchvision's RandAugment (at magnitude 30) and TrivialAugmentWide. Translations are shares of a side
# for the one, pixels for the other; turns are in degrees.
OPERATIONS = (
    Operation("identity", 0, 0),
    Operation("shear_x", 0.3, 0.99),
    Operation("shear_y", 0.3, 0.99),
    Operation("translate_x", 150 / 331, 32),
    Operation("translate_y", 150 / 331, 32),
    Operation("rotate", 30, 135),
    Operation("brightness", 0.9, 0.99),
    Operation("saturation", 0.9, 0.99),
    Operation("contrast", 0.9, 0.99),
    Operation("sharpness", 0.9, 0.99),
    Operation("posterize", 4, 6, signed=False),
    Operation("solarize", 255, 255, signed=False),
    Operation("autocontrast", 0, 0),
    Operation("equalize", 0, 0),
)


def _policy(
    options: AugmentConfig, size: tuple[int, int], uniform: Uniform, matrices: numpy.ndarray, shifts: numpy.ndarray
) -> list[list[tuple[str, float]]]:
    """Draw the operations of a policy. Moves go into the affine maps, in place; those on colors come back."""
    rand = options.policy == "randaugment"
    colors: list[list[tuple[str, float]]] = [[] for _ in matrices]
    for _ in range(options.operations if rand else 1):
        chosen = (uniform() * len(OPERATIONS)).astype(int)
        strengths = numpy.full(len(chosen), options.magnitude / 30) if rand else numpy.floor(uniform() * 31) / 30
        signs = numpy.where(uniform() < 0.5, -1.0, 1.0)
        for row, (which, strength, sign) in enumerate(zip(chosen, strengths, signs, strict=True)):
            operation = OPERATIONS[which]
            most = operation.rand if rand else operation.trivial
            amount = float(strength * most * (sign if operation.signed else 1))
            one = matrices[row : row + 1]
            match operation.name:
                case "identity":
                    pass
                case "shear_x" | "shear_y":
                    _slant(one, int(operation.name == "shear_y"), numpy.array([amount]))
                case "translate_x" | "translate_y":
                    axis = int(operation.name == "translate_y")
                    shifts[row, axis] += amount * (size[1 - axis] if rand else 1)
                case "rotate":
                    _turn(one, numpy.radians([amount]))
                case "posterize":
                    colors[row].append(("posterize", 8 - round(amount)))
                case "solarize":
                    colors[row].append(("solarize", 255 - amount))
                case "autocontrast" | "equalize":
                    colors[row].append((operation.name, 0.0))
                case _:
                    colors[row].append((operation.name, 1 + amount))
    return colors


def _recolor(pixels: torch.Tensor, colors: list[list[tuple[str, float]]]) -> torch.Tensor:
    """Apply the operations on colors to each image of (B, h, w, C)."""
    if not any(colors):
        return pixels
    if problems := missing_package("augment", "an operation on colors", "torchvision", "vision"):
        raise UserError(problems)
    from torchvision.transforms.v2 import functional  # a second, which moves alone need not wait for

    gray = pixels.shape[-1] == 1
    changed = []
    for picture, operations in zip(pixels.permute(0, 3, 1, 2), colors, strict=True):
        found: Any = picture
        for name, amount in operations:
            match name:
                case "posterize":
                    found = functional.posterize(found, int(amount))
                case "solarize":
                    found = functional.solarize(found, amount)
                case "autocontrast" | "equalize":
                    found = getattr(functional, name)(found)
                case "saturation" if gray:
                    pass  # torchvision wants three channels
                case _:
                    found = getattr(functional, f"adjust_{name}")(found, amount)
        changed.append(found)
    return torch.stack(changed).permute(0, 2, 3, 1)


def adjust(pixels: torch.Tensor, name: str, factors: numpy.ndarray) -> torch.Tensor:
    """Change the brightness, contrast, or saturation of each image of a batch, as torchvision does.

    Of the whole batch at once, and without torchvision: each pixel is blended with black, with the mean gray of its
    image, or with its own gray.

    Args:
        pixels: (B, h, w, C), uint8.
        factors: (B,): 0 for what it is blended with alone, 1 for the image as it is.
    """
    shares = torch.from_numpy(factors).float().view(-1, 1, 1, 1)
    found = pixels.float()
    gray = found if pixels.shape[-1] == 1 else (found @ torch.tensor(GRAY)).floor_()[..., None]
    other = {"brightness": torch.zeros(()), "contrast": gray.mean(dim=(1, 2, 3), keepdim=True), "saturation": gray}
    return (shares * found + (1 - shares) * other[name]).clamp_(0, 255).to(torch.uint8)


def mix(pixels: torch.Tensor, draws: numpy.ndarray, options: AugmentConfig) -> tuple[torch.Tensor, float]:
    """Blend each image of a batch with the one after it, by mixup or cutmix.

    Args:
        pixels: (B, C, H, W), floats.

    Returns:
        the images, and how much of the label of each is its own; the rest is that of the next one, the first
        following the last.
    """
    # One share a batch, as in the papers' code; it depends on the draws of all images, not on their order.
    random = numpy.random.default_rng(int(numpy.bitwise_xor.reduce(draws)) & (2**63 - 1))
    cuts = options.cutmix > 0 and (options.mixup == 0 or random.random() < 0.5)
    strength = options.cutmix if cuts else options.mixup
    own = float(random.beta(strength, strength))
    other = pixels.roll(-1, 0)
    if not cuts:
        return torch.lerp(other, pixels, own), own
    height, width = pixels.shape[2:]
    share = math.sqrt(1 - own)
    x, y = random.random() * width, random.random() * height
    left, right = (round(min(max(x + sign * share * width / 2, 0), width)) for sign in (-1, 1))
    top, bottom = (round(min(max(y + sign * share * height / 2, 0), height)) for sign in (-1, 1))
    mixed = pixels.clone()
    mixed[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
