"""Pictures, boxes and masks are changed alike, by their draws alone."""

import numpy
import pytest
import torch

from llmft.schema.augmentation import AugmentConfig
from llmft.schema.tasks import IGNORED_PIXEL
from llmft.tasks.images.augment import Uniform, adjust, augment, mix

DRAWS = numpy.arange(1, 9, dtype=numpy.int64) * 7919
GEOMETRY = [
    {"flip": 1.0},
    {"flip_vertical": 1.0, "shift": 0.2},
    {"flip": 0.5, "crop": 20},
    {"area": 0.4, "flip": 0.5},
    {"zoom": 0.3, "shear": 20, "rotate": 30, "shift": 0.1},
    {"policy": "randaugment", "magnitude": 15, "operations": 3},
    {"policy": "trivial"},
]


def squares(side: int = 40, count: int = len(DRAWS)) -> tuple[torch.Tensor, list[numpy.ndarray], torch.Tensor]:
    """Pictures of one light square on black, its box, and its mask."""
    pixels, boxes = torch.zeros(count, side, side, 3, dtype=torch.uint8), []
    for row in range(count):
        x, y, w, h = 12 + row, 10 + row // 2, 11, 14
        pixels[row, y : y + h, x : x + w] = 200
        boxes.append(numpy.array([[x, y, w, h]], dtype=float))
    return pixels, boxes, (pixels[..., 0] > 0).to(torch.uint8)


def test_a_mirror_image_by_hand() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).reshape(1, 2, 3, 2)
    found = augment(pixels, (2, 3), DRAWS[:1], AugmentConfig(flip=1), [numpy.array([[0, 1, 1, 1.0]])], pixels[..., 0])
    assert found.pixels[0].tolist() == [[[4, 5], [2, 3], [0, 1]], [[10, 11], [8, 9], [6, 7]]]
    assert found.boxes[0].tolist() == [[2, 1, 1, 1]]
    assert found.masks[0].tolist() == [[4, 2, 0], [10, 8, 6]]


@pytest.mark.parametrize(
    ("whole", "seen", "first"), [((6, 8), (4, 4), (1, 2)), ((5, 7), (4, 4), (0, 1)), ((4, 4), (4, 4), (0, 0))]
)
def test_without_draws_the_middle_is_seen(
    whole: tuple[int, int], seen: tuple[int, int], first: tuple[int, int]
) -> None:
    pixels = torch.arange(whole[0] * whole[1], dtype=torch.uint8).reshape(1, *whole, 1)
    found = augment(pixels, seen, None, AugmentConfig(flip=1), [numpy.array([[first[1], first[0], 4, 4.0]])]).pixels
    assert torch.equal(found[0], pixels[0, first[0] : first[0] + 4, first[1] : first[1] + 4])


@pytest.mark.parametrize("options", GEOMETRY, ids=str)
@pytest.mark.parametrize("seen", [(40, 40), (32, 36)])
def test_boxes_and_masks_move_with_the_picture(options: dict, seen: tuple[int, int]) -> None:
    pytest.importorskip("torchvision")
    # Of moves alone: changed colors would hide where the square is.
    pixels, boxes, masks = squares()
    found = augment(pixels, seen, DRAWS, AugmentConfig(**options), boxes, masks)
    side = (options["crop"],) * 2 if "crop" in options else seen
    assert found.pixels.shape == (len(DRAWS), *side, 3) and found.masks.shape == found.pixels.shape[:3]
    assert found.pixels.dtype == found.masks.dtype == torch.uint8
    for row in range(len(DRAWS)):
        inside = (found.masks[row] == 1).numpy()
        if "policy" not in options:
            light = (found.pixels[row, ..., 0] > 100).numpy()
            assert (light != inside).mean() < 0.02
        if not len(found.kept[row]):
            assert inside.sum() < 0.25 * 11 * 14
            continue
        x, y, w, h = found.boxes[row][0]
        ys, xs = numpy.nonzero(inside)
        slack = 1.5
        assert x - slack <= xs.min() and xs.max() + 1 <= x + w + slack, row
        assert y - slack <= ys.min() and ys.max() + 1 <= y + h + slack, row
        if not {"rotate", "policy"} & options.keys():  # whose boxes are wider than what they hold
            assert abs(xs.min() - x) <= slack and abs(xs.max() + 1 - x - w) <= slack
            assert abs(ys.min() - y) <= slack and abs(ys.max() + 1 - y - h) <= slack


def test_what_comes_in_from_outside_is_black_and_of_no_class() -> None:
    pixels, masks = torch.full((8, 16, 16, 1), 9, dtype=torch.uint8), torch.ones(8, 16, 16, dtype=torch.uint8)
    for options in ({"shift": 0.4}, {"rotate": 45}):
        found = augment(pixels, (16, 16), DRAWS, AugmentConfig(**options), masks=masks)
        black = found.pixels[..., 0] == 0
        assert black.any() and set(found.masks.unique().tolist()) == {1, IGNORED_PIXEL}
        assert bool((found.masks[black] == IGNORED_PIXEL).all())


def test_a_margin_is_seen_by_shifts_in_place_of_black() -> None:
    pixels = torch.full((8, 20, 20, 1), 9, dtype=torch.uint8)
    assert augment(pixels, (16, 16), DRAWS, AugmentConfig(shift=0.125)).pixels.unique().tolist() == [9]


def test_a_window_takes_every_place_equally_often() -> None:
    pixels = torch.arange(11, dtype=torch.uint8).reshape(1, 1, 11, 1).expand(4000, 11, 11, 1)
    found = augment(pixels, (11, 11), numpy.arange(4000), AugmentConfig(crop=8)).pixels
    counts = numpy.bincount(found[:, 0, 0, 0])
    assert len(counts) == 4 and counts.min() > 900


@pytest.mark.parametrize("options", [*GEOMETRY, {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_depends_on_its_draw_alone(options: dict, channels: int) -> None:
    """Not on the rows that share its batch, nor on what was drawn before."""
    pytest.importorskip("torchvision")
    random = numpy.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (8, 24, 24, channels), dtype=numpy.uint8))
    together = augment(pixels, (24, 24), DRAWS, AugmentConfig(**options)).pixels
    order = [5, 2, 7]
    alone = augment(pixels[order], (24, 24), DRAWS[order], AugmentConfig(**options)).pixels
    assert torch.equal(together[order], alone)
    other = augment(pixels, (24, 24), DRAWS + 1, AugmentConfig(**options)).pixels
    assert options == {"flip": 1.0} or not torch.equal(together, other)


def test_numbers_are_uniform_and_not_those_of_the_neighbor() -> None:
    uniform = Uniform(numpy.arange(10_000))
    first, second = uniform(), uniform()
    for found in (first, second):
        assert (
            found.min() >= 0
            and found.max() < 1
            and abs(found.mean() - 0.5) < 0.01
            and abs(found.std() - 12**-0.5) < 0.01
        )
    assert abs(numpy.corrcoef(first, second)[0, 1]) < 0.03 and abs(numpy.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03


def test_mixup_is_a_weighted_mean_with_the_next_picture() -> None:
    pixels = torch.stack([torch.full((1, 4, 4), value) for value in (0.0, 1.0, 3.0)])
    mixed, own = mix(pixels, DRAWS[:3], AugmentConfig(mixup=1.0))
    assert 0 < own < 1
    assert torch.allclose(mixed[:, 0, 0, 0], torch.tensor([1 - own, own + 3 * (1 - own), 3 * own]))
    again, same = mix(pixels, DRAWS[:3], AugmentConfig(mixup=1.0))
    assert same == own and torch.equal(mixed, again)


def test_cutmix_counts_the_pixels_that_it_pastes() -> None:
    pixels = torch.stack([torch.full((1, 10, 10), value) for value in (0.0, 1.0)])
    for draw in range(20):
        mixed, own = mix(pixels, numpy.array([draw, 7]), AugmentConfig(cutmix=1.0))
        assert float(mixed[0].mean()) == pytest.approx(1 - own, abs=1e-6)
        assert float(mixed[1].mean()) == pytest.approx(own, abs=1e-6)


def test_a_box_of_which_little_is_left_is_dropped() -> None:
    pixels = torch.zeros(1, 32, 32, 1, dtype=torch.uint8)
    boxes = [numpy.array([[0, 0, 10, 10], [14, 14, 6, 6], [8.5, 14, 4, 4]], dtype=float)]  # the window: 12 to 20
    found = augment(pixels, (8, 8), None, None, boxes)
    assert found.kept[0].tolist() == [1] and found.boxes[0].tolist() == [[2, 2, 6, 6]]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colors_are_adjusted_as_torchvision_does(name: str, channels: int) -> None:
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    pixels = torch.randint(256, (5, 9, 7, channels), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    factors = numpy.array([0.0, 0.6, 1.0, 1.3, 2.0])
    found = adjust(pixels, name, factors)
    for picture, factor, changed in zip(pixels, factors, found, strict=True):
        theirs = picture.permute(2, 0, 1)
        if name != "saturation" or channels == 3:  # torchvision wants three channels, and one has no saturation
            theirs = getattr(functional, f"adjust_{name}")(theirs, factor)
        assert (theirs.permute(1, 2, 0).int() - changed.int()).abs().max() <= 1  # of sums that round otherwise
