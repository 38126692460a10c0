"""Images -> representations: normalise, augment, and pass the frozen stem, batch by batch, without gradients."""

import numpy as np
import torch
from torch import Tensor, nn

from fedstil_mpi.client.augmentation import ERASED, Augmentation, Streams, cropped, draw, erased, flipped, jittered
from fedstil_mpi.comm.flat import to_device

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BATCH = 128
PLAIN = Augmentation()


@torch.no_grad()
def represent(
    stem: nn.Module, pixels: np.ndarray, device: torch.device, how: Augmentation = PLAIN, seed: int = 0
) -> Tensor:
    """The stem's output, float32 [n, ...] on `device`, for uint8 images [n, height, width, 3], be there none.

    how: the augmentation, drawn per image from `seed`, so that equal seeds give equal results.
    """
    streams = Streams.of(seed)
    outputs = []
    for start in range(0, max(1, len(pixels)), BATCH):
        images = augmented(on_device(pixels[start : start + BATCH], device), how, streams)
        outputs.append(stem(images))
    return torch.cat(outputs)


def on_device(pixels: np.ndarray, device: torch.device) -> Tensor:
    """uint8 [n, height, width, 3] on the device."""
    return to_device(torch.from_numpy(np.ascontiguousarray(pixels)), device)


def normalise(pixels: Tensor) -> Tensor:
    """uint8 [n, height, width, 3] -> float32 [n, 3, height, width] with ImageNet's mean and standard deviation."""
    return _standardised(_scaled(pixels))


def augmented(pixels: Tensor, how: Augmentation, streams: Streams) -> Tensor:
    """As `normalise`, augmented; what is erased or comes from outside the image is 0."""
    n, height, width, _ = pixels.shape
    draws = draw(how, n, height, width, streams).to(pixels.device)
    images = _scaled(pixels)
    if how.colour_jitter:
        images = jittered(images, draws.colour)
    images = _standardised(images)
    if how.level != "none":
        images = flipped(images, draws.flip)
    if how.crop_pad:
        images = cropped(images, draws.crop, how.crop_pad)
    if ERASED[how.level]:
        images = erased(images, draws.box)
    return images


def _scaled(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 255


def _standardised(images: Tensor) -> Tensor:
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images.device).view(3, 1, 1)
    return (images - mean) / std
