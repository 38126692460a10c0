"""Models of a run, each a safetensors file, which holds nothing but tensors and can be read from anybody."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import storing, write

STEM = "stem.safetensors"
"""Beside the clients' tails: the stem that they share."""
VIEWS = ("served", "local")
"""A client's model at the end, and before the last exchange, as it has learned in the last round."""


def model_file(folder: Path, client: int, view: str = "served") -> Path:
    """Where a run folder has a client's last tail, served or local."""
    return folder / "models" / f"client-{client}{'' if view == 'served' else f'-{view}'}.safetensors"


def comparison_file(folder: Path, client: int) -> Path:
    """Where a run folder has what says how a client's served model is searched; no file: by the cosine of its features."""
    return folder / "models" / f"client-{client}-comparison.safetensors"


def save_stem(folder: Path, stem: nn.Module) -> None:
    """Keep the stem that all clients share. Raises StorageError."""
    save_tail(folder / "models" / STEM, stem)


def save_tail(path: Path, tail: nn.Module) -> None:
    """Write the parameters and buffers as they are searched with; the file is there only when it is complete.

    A weight that is made of parts is written as their result, under the name that it has in a plain model. Makes the
    folder if need be. Any module will do, a stem too. Raises StorageError. Not collective.
    """
    write_tensors(path, plain_state(tail))


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """As a safetensors file, in a folder that is made if need be, but not a run folder, which somebody has removed. Raises StorageError."""
    data = save(tensors)  # its save_file makes files that only the user can read
    with storing(path):
        path.parent.mkdir(exist_ok=True)
        write(path, data)


@torch.no_grad()
def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict in evaluation mode, on the CPU, with weights instead of what they are parametrized by."""
    was_training = model.training
    model.eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if "parametrizations." not in name}
    for name, module in model.named_modules():
        if is_parametrized(module):
            state |= {f"{name}.{of}": getattr(module, of) for of in module.parametrizations}
    model.train(was_training)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


@torch.no_grad()
def load_tail(path: Path, tail: nn.Module) -> None:
    """Fill a plain model, one without parametrizations, with what `save_tail` has written; on its device.

    Raises InputError, before any value is changed, where the file cannot be read or does not hold exactly the model's
    names, shapes and dtypes.
    """
    expected = tail.state_dict()
    found = read_tensors(path)
    if different := found.keys() ^ expected.keys():
        name = min(different)
        has = "lacks" if name in expected else "has the unknown"
        raise InputError(
            f"model file {path} {has} {name}; expected a model of this config's backbone, split and neck, as a run writes it"
        )
    for name, tensor in found.items():
        kinds = [f"{list(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (tensor, expected[name])]
        if kinds[0] != kinds[1]:
            raise InputError(
                f"model file {path}: {name} is {kinds[0]}, expected {kinds[1]}; give the config that it was trained with"
            )
    tail.load_state_dict(found)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Of a safetensors file, by name. Raises InputError where there is none, or it cannot be read."""
    if not path.is_file():
        state = "is no file" if path.exists() else "does not exist"
        raise InputError(f"model file {path} {state}; expected a safetensors file that a run has written")
    try:
        return load_file(path)
    except Exception as error:  # a damaged or hostile file can make the reader raise anything
        raise InputError(f"model file {path} cannot be read ({error}); expected a complete safetensors file") from None
