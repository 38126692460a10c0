"""Each image is drawn for itself, and in the distributions of torchvision's transforms of single images."""

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from fedstil_mpi.client.augmentation import CONTRAST, ERASED, SATURATION, Augmentation, Draws, Streams, draw, jittered
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.representations import IMAGENET_MEAN, IMAGENET_STD, augmented, normalise
from fedstil_mpi.config import schema
from fedstil_mpi.models.torchvision_cpu import import_models
from fedstil_mpi.util.errors import InputError
from support import tiny

import_models()  # before other modules of torchvision
from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional as single  # noqa: E402

EVERYTHING = Augmentation(level="drastic", crop_pad=3, colour_jitter=0.4)
ERASING = [level for level, chance in ERASED.items() if chance]
SIZES = [(128, 64), (64, 64), (24, 12)]


def pixels(n: int = 40, height: int = 24, width: int = 12) -> Tensor:
    """Noise, in which no normalised value is 0."""
    return torch.randint(256, (n, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def drawn(how: Augmentation, n: int, height: int = 24, width: int = 12, seed: int = 1) -> Draws:
    return draw(how, n, height, width, Streams.of(seed))


def level(name: str) -> Augmentation:
    return Augmentation(level=name)


def result(how: Augmentation, images: Tensor | None = None, seed: int = 1) -> Tensor:
    return augmented(pixels() if images is None else images, how, Streams.of(seed))


def assert_alike(one: Tensor, other: Tensor) -> None:
    """Two samples of one distribution, by the test of Kolmogorov and Smirnov at a level of 0.001.

    Distributions of whole numbers pass it more easily than that.
    """
    steps = torch.cat([one, other]).unique()
    below = [torch.searchsorted(sample.sort().values, steps, right=True) / len(sample) for sample in (one, other)]
    bound = math.sqrt(-math.log(0.001 / 2) / 2 * (1 / len(one) + 1 / len(other)))
    assert (below[0] - below[1]).abs().max() < bound


def assert_share(hits: Tensor, expected: float) -> None:
    """Independent hits have the expected share, up to four standard deviations."""
    share = hits.double().mean().item()
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / len(hits)))


def by_torchvision(transformed: Callable[[], Tensor], n: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.stack([transformed() for _ in range(n)])


# -- as torchvision does, image by image -------------------------------------------------------------------------------


def test_a_batch_is_treated_as_its_images_one_by_one():
    """With what was drawn given to torchvision's functions, in the order colours, normalise, flip, crop, erase."""
    draws, images = drawn(EVERYTHING, 40), []
    adjust = single.adjust_brightness, single.adjust_contrast, single.adjust_saturation
    for number, image in enumerate(pixels().permute(0, 3, 1, 2) / 255):
        factors, order = draws.colour[number].split(3)
        for kind in order.int().tolist():
            image = adjust[kind](image, factors[kind].item())
        image = single.normalize(image, list(IMAGENET_MEAN), list(IMAGENET_STD))
        if draws.flip[number]:
            image = single.horizontal_flip(image)
        down, right = draws.crop[number].int().tolist()
        image = single.crop(single.pad(image, [3]), down, right, 24, 12)
        top, bottom, left, right = draws.box[number].int().tolist()
        images.append(single.erase(image, top, left, bottom - top, right - left, torch.zeros(3, 1, 1)))
    torch.testing.assert_close(result(EVERYTHING), torch.stack(images))


@pytest.mark.parametrize("how", [EVERYTHING, level("default"), level("flip"), Augmentation(crop_pad=1)], ids=str)
def test_nothing_on_the_device_waits_for_values_or_meets_tensors_of_the_cpu(how):
    """The device meta has no values and refuses tensors of other devices."""
    images = augmented(pixels().to("meta"), how, Streams.of(0))
    assert (images.device.type, images.shape, images.dtype) == ("meta", (40, 3, 24, 12), torch.float32)


# -- flip and levels ---------------------------------------------------------------------------------------------------


def test_each_image_is_flipped_or_not():
    images, plain = result(level("flip"), pixels(400)), normalise(pixels(400))
    as_before = (images == plain).flatten(1).all(1)
    mirrored = (images == plain.flip(-1)).flatten(1).all(1)
    assert (as_before ^ mirrored).all()
    assert_share(mirrored, 0.5)


def test_levels_are_those_of_the_config():
    assert schema.Train.__dataclass_fields__["augment"].metadata["choices"] == tuple(ERASED)


@pytest.mark.parametrize("name", ERASING)
def test_as_many_images_are_erased_as_documented(name):
    box = drawn(level(name), 4000).box
    assert_share(box.any(1), {"default": 0.5, "rose": 0.6, "sharp": 0.75, "drastic": 0.9}[name])
    assert torch.equal(box[:, 1] > box[:, 0], box.any(1))


def test_an_image_has_its_flip_and_box_at_every_level():
    """So that levels differ in how many images they erase, and not by chance."""
    draws = [drawn(level(name), 500, 128, 64) for name in ("default", "rose", "sharp", "drastic")]
    for less, more in pairwise(draws):
        assert torch.equal(less.flip, more.flip)
        erased = less.box.any(1)
        assert (erased <= more.box.any(1)).all()
        assert less is draws[0] or torch.equal(less.box[erased], more.box[erased])
    clamped, fitting = (draw.box[draws[0].box.any(1)] for draw in draws[:2])
    narrow = clamped[:, 3] - clamped[:, 2] < 63
    assert (clamped - fitting)[narrow].abs().max() <= 1.5
    assert torch.equal(drawn(level("flip"), 500, 128, 64).flip, draws[0].flip)


def test_default_uses_six_numbers_an_image():
    """Flip, area, ratio, place from above and from the left, erasing or not; results of earlier versions rest on it."""
    numbers = torch.rand(60, 6, generator=torch.Generator().manual_seed(9)).double()
    expected = normalise(pixels(60))
    for image, (flip, size, shape, down, right, erase) in zip(expected, numbers.tolist(), strict=True):
        if flip < 0.5:
            image.copy_(image.flip(-1))
        area, ratio = (0.02 + 0.31 * size) * 24 * 12, 0.3 * (3.3 / 0.3) ** shape
        h, w = min(24, math.sqrt(area * ratio)), min(12, math.sqrt(area / ratio))
        top, left = down * (24 - h), right * (12 - w)
        if erase < 0.5:
            image[:, round(top) : round(top + h), round(left) : round(left + w)] = 0
    assert torch.equal(result(level("default"), pixels(60), seed=9), expected)


def test_what_is_switched_on_leaves_the_rest_as_it_is():
    full = drawn(EVERYTHING, 50)
    assert torch.equal(full.box, drawn(level("drastic"), 50).box)
    assert torch.equal(full.flip, drawn(level("flip"), 50).flip)
    assert torch.equal(full.crop, drawn(Augmentation(crop_pad=3), 50).crop)
    assert torch.equal(full.colour, drawn(Augmentation(colour_jitter=0.4), 50).colour)
    for nothing in (Augmentation(), Augmentation(crop_pad=0, colour_jitter=0.0)):
        assert not nothing.active
        assert torch.equal(result(nothing), normalise(pixels()))
    for something in (level("flip"), Augmentation(crop_pad=1), Augmentation(colour_jitter=0.1)):
        assert something.active
        assert not torch.equal(result(something), normalise(pixels()))


# -- erasing -----------------------------------------------------------------------------------------------------------


@cache
def torchvision_boxes(n: int, height: int, width: int) -> Tensor:
    """[n, 4]: top, bottom, left and right, as `Draws.box`, of what is gone from white images."""
    transform, image = v2.RandomErasing(p=1.0), torch.ones(1, height, width, dtype=torch.uint8)
    gone = by_torchvision(lambda: transform(image), n)[:, 0] == 0
    edges = []
    for lines in (gone.any(2).int(), gone.any(1).int()):
        first, count = lines.argmax(1), lines.sum(1)
        edges += [first, first + count]
    return torch.stack(edges, 1).float()


def areas(box: Tensor) -> Tensor:
    return (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_boxes_are_distributed_as_those_of_random_erasing(height, width):
    box = drawn(level("drastic"), 8000, height, width).box
    box = box[box.any(1)]
    theirs = torchvision_boxes(6000, height, width)
    views = {
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 2],
        "to the bottom": lambda b: height - b[:, 1],
        "height": lambda b: b[:, 1] - b[:, 0],
        "width": lambda b: b[:, 3] - b[:, 2],
        "area": areas,
        "ratio": lambda b: (b[:, 1] - b[:, 0]) / (b[:, 3] - b[:, 2]),
        "centre": lambda b: (b[:, 0] + b[:, 1]) * width + (b[:, 2] + b[:, 3]) * height,
    }
    for view in views.values():
        assert_alike(view(box), view(theirs))
    for edge, border in enumerate((0, height, 0, width)):  # a share too small for the above to see
        expected = (theirs[:, edge] == border).double().mean().item()
        assert (box[:, edge] == border).double().mean().item() == pytest.approx(expected, abs=0.02, rel=0.25)
    assert ((box[:, 1] - box[:, 0] < height) & (box[:, 3] - box[:, 2] < width)).all()


def test_an_image_stays_whole_where_no_attempt_fits():
    """In images of 100 x 2 pixels few boxes are narrow enough, so that the number of attempts shows."""
    assert not drawn(level("drastic"), 500, 100, 1).box.any()
    theirs = torchvision_boxes(4000, 100, 2).any(1).double().mean().item()
    assert 0.05 < theirs < 0.8
    assert_share(drawn(level("drastic"), 20_000, 100, 2).box.any(1), 0.9 * theirs)


def test_default_clamps_the_boxes_that_random_erasing_draws_again():
    """In an image of 2W x W, a box of the share s is wider than W where its ratio is below 2 s.

    With s uniform on 0.02 to 0.33 and the ratio's logarithm on ln 0.3 to ln 3.3 that has the probability
    (integral of ln(s / 0.15) from 0.15 to 0.33) / 0.31 / ln 11.
    """
    chance = (0.33 * math.log(2.2) - 0.18) / 0.31 / math.log(11)
    assert chance == pytest.approx(0.108, abs=5e-4)
    box = drawn(level("default"), 20_000, 128, 64).box
    box = box[box.any(1)]
    assert_share(box[:, 3] - box[:, 2] > 63.999, chance)
    theirs = torchvision_boxes(6000, 128, 64)
    assert areas(box).mean().item() / 128 / 64 == pytest.approx(0.170, abs=0.003)  # standard deviation 0.0009
    assert areas(theirs).mean().item() / 128 / 64 == pytest.approx(0.163, abs=0.003)


@pytest.mark.parametrize("name", ["default", "drastic"])
def test_one_whole_box_is_erased_in_all_channels(name):
    gone = result(level(name), pixels(600)) == 0
    assert torch.equal(gone, gone[:, :1].expand(gone.shape))
    rows, columns = gone[:, 0].any(2), gone[:, 0].any(1)
    assert torch.equal(gone[:, 0], rows[:, :, None] & columns[:, None, :])
    for lines in (rows, columns):  # in one piece: it begins once
        assert ((lines[:, 1:] & ~lines[:, :-1]).sum(1) + lines[:, 0] <= 1).all()
    assert (gone.sum(0) > 0).all()  # anywhere


# -- crop --------------------------------------------------------------------------------------------------------------


def test_places_of_the_crop_are_those_of_random_crop():
    transform = v2.RandomCrop((24, 12), padding=3)
    image = torch.arange(24 * 12).view(1, 24, 12)  # the pixel found in the middle tells the place
    middle = by_torchvision(lambda: transform(image), 5000)[:, 0, 12, 6]
    crop = drawn(Augmentation(crop_pad=3), 5000).crop
    assert_alike(crop[:, 0], middle // 12 - 12 + 3)
    assert_alike(crop[:, 1], middle % 12 - 6 + 3)
    counts = torch.bincount((crop @ torch.tensor([7.0, 1.0])).long(), minlength=7 * 7)
    chi_square = ((counts - 5000 / 49) ** 2 / (5000 / 49)).sum().item()
    assert chi_square == pytest.approx(48, abs=4 * math.sqrt(2 * 48))  # 48 degrees of freedom


def test_crops_are_windows_of_the_padded_image():
    images, plain = result(Augmentation(crop_pad=3)), normalise(pixels())
    for image, before, (down, right) in zip(images, plain, drawn(Augmentation(crop_pad=3), 40).crop.int(), strict=True):
        padded = np.zeros((3, 30, 18), np.float32)
        padded[:, 3:-3, 3:-3] = before
        assert np.array_equal(image, padded[:, down : down + 24, right : right + 12])


# -- colours -----------------------------------------------------------------------------------------------------------


def colours(images: Tensor) -> list[Tensor]:
    """Mean, contrast and saturation of each image."""
    grey = images.mean(1)
    return [grey.mean((1, 2)), grey.std((1, 2)), (images - grey[:, None]).abs().mean((1, 2, 3))]


def test_colours_are_distributed_as_those_of_color_jitter():
    image = pixels(1, 8, 6)[0].permute(2, 0, 1) / 255 * torch.tensor([0.9, 0.5, 0.2]).view(3, 1, 1)
    transform = v2.ColorJitter(0.4, 0.4, 0.4)
    theirs = by_torchvision(lambda: transform(image), 3000)
    ours = jittered(image.expand(3000, -1, -1, -1), drawn(Augmentation(colour_jitter=0.4), 3000).colour)
    for one, other in zip(colours(ours), colours(theirs), strict=True):
        assert_alike(one, other)


def test_factors_and_orders_are_uniform():
    factors, order = drawn(Augmentation(colour_jitter=0.4), 6000).colour.split(3, 1)
    for factor in factors.unbind(1):
        assert_alike(factor, torch.linspace(0.6, 1.4, 6000))
    assert factors.T.corrcoef().triu(1).abs().max() < 0.06  # standard deviation 0.013
    assert (order.sort(1).values == torch.arange(3)).all()
    for one in permutations(range(3)):
        assert_share((order == torch.tensor(one)).all(1), 1 / 6)


def colour_of(kind: int, factor: float) -> Tensor:
    """One image's row of `Draws.colour` that does only this."""
    factors = [factor if number == kind else 1.0 for number in range(3)]
    return torch.tensor([[*factors, 0.0, 1.0, 2.0]])


def test_colours_at_the_ends_of_their_range():
    image = pixels(1).permute(0, 3, 1, 2) / 255
    grey = (image * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(jittered(image, colour_of(0, 0.0)), torch.zeros_like(image))
    torch.testing.assert_close(jittered(image, colour_of(CONTRAST, 0.0)), grey.mean().expand(image.shape))
    torch.testing.assert_close(jittered(image, colour_of(SATURATION, 0.0)), grey.expand(image.shape))
    torch.testing.assert_close(jittered(image, colour_of(0, 1.0)), image)
    assert jittered(image, colour_of(CONTRAST, 2.0)).aminmax() == (0.0, 1.0)


# -- where it is used --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [{"train.crop_pad": 2}, {"train.colour_jitter": 0.2}, {"train.augment": "rose"}])
def test_each_setting_alone_is_an_augmentation(setting):
    experiment = tiny.experiment({"train.augment": "none", "memory.size": 0, "train.steps": 3} | setting)
    task = tiny.task(1, 2, 3)
    learner = Learner(0, experiment, [task], tiny.network())
    learner.begin_round()
    learner.train(1, lambda *given: None, None)
    clean, view = learner.clean_samples().representations, learner.views.trained_on(0, 1, 0).representations
    assert not torch.equal(view, clean)
    assert learner.forward_counts["stem"] == 24  # of the view, and of the clean ones that were asked for above


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"train.augment": "drastical"}, "train.augment = 'drastical'; did you mean drastic"),
        ({"train.crop_pad": -1}, "train.crop_pad = -1; expected between 0 and 4096"),
        ({"train.crop_pad": 32}, "train.crop_pad = 32; expected less than 32, the shorter side"),
        ({"train.colour_jitter": 1.5}, "train.colour_jitter = 1.5; expected between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        tiny.experiment(setting)
