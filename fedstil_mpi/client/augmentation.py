"""Augmentation of whole batches of training images, each image drawn for itself as torchvision's transforms would.

What is random is drawn on the CPU, so that it is the same on every device, and moved once a batch. Level, crop and
colours each have random numbers of their own, so that switching one on leaves the others as they were.

Differences from torchvision.transforms.v2: at level "default" a box that does not fit into the image is clamped where
RandomErasing draws another. In images twice as high as wide these are 10.8 % of the boxes, bands as wide as the image,
and a box takes 17.0 % of an image instead of 16.3 %. Its edges are real numbers, so that half as many boxes touch the top
or the bottom. The levels above erase as RandomErasing does. Colours change as ColorJitter changes float images; it would
round uint8 ones at each step.
"""

import math
from dataclasses import dataclass, fields
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from fedstil_mpi.config.schema import Train
from fedstil_mpi.util import seeding

ERASED = {"none": 0.0, "flip": 0.0, "default": 0.5, "rose": 0.6, "sharp": 0.75, "drastic": 0.9}
"""Level -> probability that a box is erased; from "flip" on, an image is flipped with probability 1/2."""

ATTEMPTS = 10
"""Boxes that RandomErasing draws for an image, until one fits; it leaves the image whole where none does."""

LUMINANCE = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in torchvision's grey."""

CONTRAST, SATURATION = 1, 2


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to an image, in this order: colours (before normalisation), flip, crop, erasing."""

    level: str = "none"
    """A key of ERASED."""
    crop_pad: int = 0
    """Pixels added on every side, in the mean colour, before the image is cut back to its size at a random place."""
    colour_jitter: float = 0.0
    """j, at most 1: brightness, contrast and saturation are scaled by 1 - j to 1 + j, in a random order."""

    @classmethod
    def of(cls, train: Train) -> Self:
        return cls(level=train.augment, crop_pad=train.crop_pad, colour_jitter=train.colour_jitter)

    @property
    def active(self) -> bool:
        return self != Augmentation()


@dataclass(frozen=True)
class Streams:
    """Generators on the CPU, which move on with every batch; it does not matter how images are cut into batches."""

    level: torch.Generator
    redraw: torch.Generator
    crop: torch.Generator
    colour: torch.Generator

    @classmethod
    def of(cls, seed: int) -> Self:
        others = [seeding.integer(seed, "augment", field.name) for field in fields(cls)[1:]]
        return cls(*(torch.Generator().manual_seed(number) for number in (seed, *others)))


@dataclass(frozen=True)
class Draws:
    """What is done to each of n images, as float32 on one device; no columns for what is switched off."""

    flip: Tensor
    """[n, 1], 1 where the image is flipped."""
    box: Tensor
    """[n, 4]: top, bottom, left and right edge of what is erased, in pixels; all 0: nothing."""
    crop: Tensor
    """[n, 2]: first row and column of the padded image that is kept."""
    colour: Tensor
    """[n, 6]: factors of brightness (0), CONTRAST and SATURATION; which of these comes first, second and third."""

    def to(self, device: torch.device) -> "Draws":
        columns = self.flip, self.box, self.crop, self.colour
        moved = torch.cat(columns, 1).to(device, non_blocking=True)
        return Draws(*moved.split([column.shape[1] for column in columns], 1))


def draw(how: Augmentation, n: int, height: int, width: int, streams: Streams) -> Draws:
    """For the next n images of height x width; on the CPU."""
    flip = box = crop = colour = torch.empty(n, 0)
    if how.level != "none":
        # Six numbers an image, whatever the level, so that an image has its flip and much the same box at every level.
        numbers = torch.rand(n, 6, generator=streams.level)
        flip = (numbers[:, :1] < 0.5).float()
        if how.level == "default":
            box = _clamped_boxes(numbers, height, width)
        elif ERASED[how.level]:
            again = torch.rand(n, ATTEMPTS - 1, 2, generator=streams.redraw)
            box = _fitting_boxes(numbers, again, height, width)
        box = box * (numbers[:, 5:] < ERASED[how.level])
    if how.crop_pad:
        crop = torch.randint(2 * how.crop_pad + 1, (n, 2), generator=streams.crop).float()
    if how.colour_jitter:
        factors, order = torch.rand(n, 6, generator=streams.colour).split(3, 1)
        colour = torch.cat([1 + how.colour_jitter * (2 * factors - 1), order.argsort(1).float()], 1)
    return Draws(flip, box, crop, colour)


def _sides(size: Tensor, shape: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Height and width in pixels of boxes with 0.02 to 0.33 of the image's area and an aspect ratio of 0.3 to 3.3."""
    area = (0.02 + 0.31 * size) * height * width
    ratio = torch.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * shape)
    return (area * ratio).sqrt(), (area / ratio).sqrt()


def _clamped_boxes(numbers: Tensor, height: int, width: int) -> Tensor:
    """Boxes of real numbers, made as high or wide as the image where they would be more."""
    _, size, shape, down, right, _ = numbers.unbind(1)
    h, w = _sides(size, shape, height, width)
    h, w = h.clamp(max=height), w.clamp(max=width)
    top, left = down * (height - h), right * (width - w)
    return torch.stack([top, top + h, left, left + w], 1)


def _fitting_boxes(numbers: Tensor, again: Tensor, height: int, width: int) -> Tensor:
    """Boxes of whole pixels: of the attempts ([n, 6], then [n, ATTEMPTS - 1, 2]) the first that is smaller than the image.

    All 0 where none is.
    """
    size, shape = torch.cat([numbers[:, None, 1:3], again], 1).unbind(2)
    h, w = (side.round() for side in _sides(size, shape, height, width))
    fits = (h < height) & (w < width)
    first = fits.int().argmax(1, keepdim=True)
    h, w = (side.gather(1, first)[:, 0] for side in (h, w))
    top, left = (numbers[:, 3] * (height - h + 1)).floor(), (numbers[:, 4] * (width - w + 1)).floor()
    return torch.stack([top, top + h, left, left + w], 1) * fits.any(1, keepdim=True)


# -- on the device: images are float32 [n, 3, height, width], and what was drawn lies where they do --------------------


def jittered(images: Tensor, colour: Tensor) -> Tensor:
    """Images between 0 and 1 with their brightness, contrast and saturation scaled, each in its own order.

    Each is a blend, cut off at 0 and 1, of the image with another one: black, its mean grey, or itself in grey.
    """
    factors, order = colour[..., None, None].split(3, 1)
    images = images.contiguous()  # colours are far faster plane by plane than pixel by pixel
    for kind in order.long().split(1, 1):
        factor = factors.gather(1, kind)
        red, green, blue = images.split(1, 1)
        grey = (LUMINANCE[0] * red).add_(green, alpha=LUMINANCE[1]).add_(blue, alpha=LUMINANCE[2])
        other = grey.mean((2, 3), keepdim=True) * (kind == CONTRAST) + grey * (kind == SATURATION)
        images = torch.addcmul(other.mul_(1 - factor), images, factor).clamp_(0, 1)
    return images


def flipped(images: Tensor, flip: Tensor) -> Tensor:
    return torch.where(flip[..., None, None] > 0, images.flip(-1), images)


def cropped(images: Tensor, crop: Tensor, pad: int) -> Tensor:
    """Images padded with zeros, the mean colour after normalisation, and cut back to their size."""
    height, width = images.shape[2:]
    windows = F.pad(images, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    down, right = crop.long().unbind(1)
    return windows[torch.arange(len(images), device=images.device), :, down, right]


def erased(images: Tensor, box: Tensor) -> Tensor:
    """Images with 0 in the pixels whose centres lie in their box."""
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device).view(1, 1, -1, 1) + 0.5
    x = torch.arange(width, device=images.device).view(1, 1, 1, -1) + 0.5
    top, bottom, left, right = box[..., None, None, None].unbind(1)
    return images.masked_fill((y >= top) & (y < bottom) & (x >= left) & (x < right), 0.0)
