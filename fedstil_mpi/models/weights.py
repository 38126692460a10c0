"""Pretrained weights for a whole backbone: downloaded ones, or a local file's."""

from http.client import HTTPException
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fedstil_mpi.models.backbones import Architecture
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import regular_file

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
MOST_BYTES = 64 * 2**30
_REMEDY = "set model.weights to none, imagenet or a .pt, .pth or .safetensors file"


def load(model: nn.Module, name: str, architecture: Architecture, weights: str) -> None:
    """Fills the model `name` that the architecture has made, all but its classifier, in place.

    weights: "none" (the model stays as it is), "imagenet" (the default weights of torchvision or timm, downloaded unless
    they are cached), or the path of a local state dict with the model's names, also as a training script leaves it (see
    `unwrapped`). Floating-point values of any precision become float32. The file must hold every parameter and buffer of the
    backbone, batch-norm counters excepted, and nothing else but a classifier, which is ignored; all values are finite.
    Raises InputError where that is not so or the weights cannot be had.
    """
    if weights == "none":
        return
    found = _imagenet(name, architecture, model) if weights == "imagenet" else _read(Path(weights))
    source = f"the weights {weights} for {name}"
    expected, found = (
        {key: value for key, value in state.items() if not key.startswith(architecture.classifiers)}
        for state in (model.state_dict(), architecture.adapt(found, model))
    )
    missing = [key for key in expected if key not in found and not key.endswith(".num_batches_tracked")]
    if missing:
        raise InputError(f"{source} lack {_some(missing)}: expected every tensor of the backbone; {_REMEDY}")
    if extra := [key for key in found if key not in expected]:
        raise InputError(f"{source} hold the unknown {_some(extra)}: expected the model's own names; {_REMEDY}")
    for key, value in found.items():
        if problem := _unfit(value, expected[key]):
            raise InputError(f"{source} hold {key}, which {problem}; give weights as model.state_dict() has them")
        if value.shape != expected[key].shape:
            shapes = f"{list(value.shape)}, expected {list(expected[key].shape)}"
            raise InputError(f"{source} hold {key} of shape {shapes}; give weights of this backbone")
    model.load_state_dict(found, strict=False)  # casts; what may be missing was checked above


def _imagenet(name: str, architecture: Architecture, model: nn.Module) -> dict[str, Tensor]:
    if architecture.imagenet is None:
        raise InputError(
            f"{name} has no imagenet weights; set model.weights to none or a .pt, .pth or .safetensors file"
        )
    try:
        return architecture.imagenet(model)
    except (OSError, HTTPException, RuntimeError) as error:
        raise InputError(
            f"the imagenet weights of {name} could not be downloaded ({_first_line(error)}): expected internet access"
            " or torch's cache; set model.weights to a local .pt, .pth or .safetensors file"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a local file, on the CPU. Never runs code from it."""
    if path.suffix not in (".pt", ".pth", ".safetensors"):
        raise InputError(f"model.weights is {str(path)!r}: {_REMEDY}")
    path = regular_file(path, "weights file", MOST_BYTES, _REMEDY)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can make the readers raise anything
        raise InputError(
            f"weights file {path} cannot be read ({_first_line(error)}): expected a state dict of tensors only,"
            " as torch.save or safetensors writes it"
        ) from error
    state = unwrapped(state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"weights file {path} does not hold a plain state dict: save model.state_dict() itself")
    return state


def unwrapped(state: Any) -> Any:
    """A state dict without what training scripts put around it: a dict that has it as one of WRAPPERS, and the prefix
    `module.` that DataParallel gives to every name."""
    while isinstance(state, dict) and (inside := [state[key] for key in WRAPPERS if isinstance(state.get(key), dict)]):
        state = inside[0]
    if isinstance(state, dict) and state and all(str(key).startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _unfit(found: Tensor, expected: Tensor) -> str | None:
    """Why a tensor cannot take the place of another one of its name; None where it can."""
    if found.is_meta or found.layout != torch.strided or found.is_quantized:
        return "is no dense tensor with values"
    if found.is_floating_point() != expected.is_floating_point() or found.is_complex():
        return f"is {found.dtype}, expected {expected.dtype}"
    return None if found.isfinite().all() else "has values that are not finite"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
