import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedstil_mpi import representations
from fedstil_mpi.representations import augmented, normalise, represent

CPU = torch.device("cpu")


def pixels(n: int = 20, height: int = 16, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def through(
    level: str, seed: int | None = 1, images: np.ndarray | None = None, stem: nn.Module | None = None
) -> Tensor:
    return represent(stem or nn.Identity(), pixels() if images is None else images, CPU, level, seed)


def test_normalisation_by_hand():
    image = np.array([[[[0, 255, 51], [255, 0, 102]]]], np.uint8)
    expected = [[-0.485 / 0.229, 0.515 / 0.229], [0.544 / 0.224, -0.456 / 0.224], [-0.206 / 0.225, -0.006 / 0.225]]
    torch.testing.assert_close(normalise(torch.from_numpy(image))[0, :, 0], torch.tensor(expected))


def test_level_none_is_no_augmentation():
    plain = through("none", seed=None)
    assert torch.equal(plain, normalise(torch.from_numpy(pixels())))
    assert torch.equal(through("none"), plain)


def test_each_image_is_flipped_or_not():
    images = torch.rand(400, 3, 4, 6, generator=seeded())
    flipped = augmented(images, "flip", seeded(1))
    as_before = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert (as_before ^ mirrored).all()
    assert abs(int(mirrored.sum()) - 200) < 50  # standard deviation 10


def test_flipping_a_symmetric_image_changes_nothing():
    images = pixels()
    symmetric = np.concatenate([images, images[:, :, ::-1]], axis=2)
    assert torch.equal(through("flip", images=symmetric), through("none", images=symmetric))


def boxes(height: int, width: int) -> Tensor:
    """int [n, 2]: heights and widths of the boxes erased from white images, checked to be whole boxes."""
    images = torch.ones(600, 2, height, width)
    erased = augmented(images, "default", seeded(3))
    assert set(erased.unique().tolist()) == {0.0, 1.0}
    gone = erased[:, 0] == 0
    assert torch.equal(gone, erased[:, 1] == 0)
    rows, columns = gone.any(2), gone.any(1)
    assert torch.equal(gone, rows[:, :, None] & columns[:, None, :])
    for lines in (rows, columns):  # in one piece: it begins once
        assert ((lines[:, 1:] & ~lines[:, :-1]).sum(1) + lines[:, 0] <= 1).all()
    touched = gone.flatten(1).any(1)
    assert abs(int(touched.sum()) - 300) < 60  # standard deviation 12
    return torch.stack([rows.sum(1), columns.sum(1)], 1)[touched]


@pytest.mark.parametrize(("height", "width"), [(128, 64), (64, 64)])
def test_erased_boxes_are_as_large_and_as_long_as_documented(height, width):
    h, w = boxes(height, width).unbind(1)
    # A box of real numbers covers up to one pixel more or less in each direction.
    assert ((h + 1) * (w + 1) >= 0.02 * height * width).all()
    assert ((h - 1) * (w - 1) <= 0.33 * height * width).all()
    assert ((h + 1) / (w - 1) >= 0.3).all()
    assert ((h - 1) / (w + 1) <= 3.3).all()
    share = (h * w) / (height * width)
    assert share.min() < 0.04
    assert share.max() > 0.28
    assert (h / w).log().mean().item() == pytest.approx(0.0, abs=math.log(1.2))


def test_boxes_may_lie_anywhere():
    gone = augmented(torch.ones(3000, 1, 20, 10), "default", seeded()) == 0
    assert (gone.sum(0) > 0).all()


@pytest.mark.parametrize("level", ["flip", "default"])
def test_equal_seeds_give_equal_results(level):
    assert torch.equal(through(level), through(level))
    assert not torch.equal(through(level), through(level, seed=2))
    assert not torch.equal(through(level), through("none"))


@pytest.mark.parametrize("level", ["none", "flip", "default"])
def test_batches_do_not_change_the_result(level, monkeypatch):
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU()).eval()
    whole, convolved = through(level), through(level, stem=stem)
    monkeypatch.setattr(representations, "BATCH", 7)
    assert torch.equal(through(level), whole)
    torch.testing.assert_close(through(level, stem=stem), convolved)


def test_an_image_gets_its_flip_at_every_level():
    """The first number of an image decides its flip, so that levels can be compared."""
    images = torch.rand(50, 3, 8, 8, generator=seeded())
    kept = augmented(images, "default", seeded(1))
    flipped = augmented(images, "flip", seeded(1))
    assert torch.equal(torch.where(kept == 0, flipped, kept), flipped)


def test_no_gradient_and_float32():
    stem = nn.Conv2d(3, 4, 3).to(torch.bfloat16)
    result = represent(nn.Sequential(Cast(), stem), pixels(), CPU)
    assert result.dtype == torch.float32
    assert not result.requires_grad
    assert result.shape == (20, 4, 14, 6)


class Cast(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.to(torch.bfloat16)
