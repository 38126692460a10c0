"""Images -> representations: normalise, augment, and pass the frozen stem, batch by batch, without gradients."""

import numpy as np
import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BATCH = 128


@torch.no_grad()
def represent(
    stem: nn.Module, pixels: np.ndarray, device: torch.device, augment: str = "none", seed: int | None = None
) -> Tensor:
    """The stem's output, float32 [n, ...] on `device`, for uint8 images [n, height, width, 3].

    augment: none | flip | default, drawn per image from `seed`, so that equal seeds give equal results.
    """
    generator = torch.Generator().manual_seed(seed) if seed is not None else None
    outputs = []
    for start in range(0, len(pixels), BATCH):
        images = normalise(to_device(pixels[start : start + BATCH], device))
        if generator is not None:
            images = augmented(images, augment, generator)
        outputs.append(stem(images).float())
    return torch.cat(outputs)


def to_device(pixels: np.ndarray, device: torch.device) -> Tensor:
    """uint8 [n, height, width, 3] on the device; a copy to a GPU goes through pinned memory and does not block."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def normalise(pixels: Tensor) -> Tensor:
    """uint8 [n, height, width, 3] -> float32 [n, 3, height, width] with ImageNet's mean and standard deviation."""
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=pixels.device).view(3, 1, 1)
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def augmented(images: Tensor, level: str, generator: torch.Generator) -> Tensor:
    """Each image flipped with probability 1/2 (flip, default) and a box erased with probability 1/2 (default).

    images: float [n, 3, height, width], normalised; the erased box becomes 0. Area 0.02 to 0.33 of the image, aspect
    ratio 0.3 to 3.3, as torchvision's RandomErasing, whose box would be the same for a whole batch.
    """
    if level == "none":
        return images
    n, _, height, width = images.shape
    # Six numbers an image, whatever the level, so that it does not matter how images are cut into batches.
    flip, size, shape, down, right, erase = torch.rand(n, 6, 1, 1, generator=generator).unbind(1)
    images = torch.where((flip < 0.5)[:, None].to(images.device), images.flip(-1), images)
    if level == "flip":
        return images
    area = (0.02 + 0.31 * size) * height * width
    ratio = torch.exp(np.log(0.3) + (np.log(3.3) - np.log(0.3)) * shape)
    h = (area * ratio).sqrt().clamp(max=height)
    w = (area / ratio).sqrt().clamp(max=width)
    top, left = down * (height - h), right * (width - w)
    y, x = torch.arange(height).view(1, -1, 1) + 0.5, torch.arange(width).view(1, 1, -1) + 0.5  # centres of pixels
    erased = (erase < 0.5) & (y >= top) & (y < top + h) & (x >= left) & (x < left + w)
    return images.masked_fill(erased[:, None].to(images.device), 0.0)
