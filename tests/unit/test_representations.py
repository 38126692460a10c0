import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedstil_mpi.client import representations
from fedstil_mpi.client.augmentation import Augmentation
from fedstil_mpi.client.representations import normalise, represent

CPU = torch.device("cpu")
SETTINGS = {
    "none": Augmentation(),
    "flip": Augmentation(level="flip"),
    "default": Augmentation(level="default"),
    "everything": Augmentation(level="drastic", crop_pad=2, colour_jitter=0.3),
}


def pixels(n: int = 20, height: int = 16, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8)


def through(name: str, seed: int = 1, images: np.ndarray | None = None, stem: nn.Module | None = None) -> Tensor:
    return represent(stem or nn.Identity(), pixels() if images is None else images, CPU, SETTINGS[name], seed)


def test_normalisation_by_hand():
    image = np.array([[[[0, 255, 51], [255, 0, 102]]]], np.uint8)
    expected = [[-0.485 / 0.229, 0.515 / 0.229], [0.544 / 0.224, -0.456 / 0.224], [-0.206 / 0.225, -0.006 / 0.225]]
    torch.testing.assert_close(normalise(torch.from_numpy(image))[0, :, 0], torch.tensor(expected))


def test_nothing_is_augmented_unless_asked():
    plain = normalise(torch.from_numpy(pixels()))
    assert torch.equal(represent(nn.Identity(), pixels(), CPU), plain)
    assert torch.equal(through("none"), plain)


def test_flipping_a_symmetric_image_changes_nothing():
    images = pixels()
    symmetric = np.concatenate([images, images[:, :, ::-1]], axis=2)
    assert torch.equal(through("flip", images=symmetric), through("none", images=symmetric))


@pytest.mark.parametrize("name", ["flip", "default", "everything"])
def test_equal_seeds_give_equal_results(name):
    assert torch.equal(through(name), through(name))
    assert not torch.equal(through(name), through(name, seed=2))
    assert not torch.equal(through(name), through("none"))


@pytest.mark.parametrize("name", SETTINGS)
def test_batches_do_not_change_the_result(name, monkeypatch):
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU()).eval()
    whole, convolved = through(name), through(name, stem=stem)
    monkeypatch.setattr(representations, "BATCH", 7)
    assert torch.equal(through(name), whole)
    torch.testing.assert_close(through(name, stem=stem), convolved)


def test_no_gradient():
    result = represent(nn.Conv2d(3, 4, 3), pixels(), CPU)
    assert not result.requires_grad
    assert result.shape == (20, 4, 14, 6)
