"""Imports torchvision's models also where its compiled operators cannot be loaded, and without torch's compiler.

The usual torchvision wheel is built for CUDA. Beside a CPU-only torch its library of operators does not load;
torchvision tolerates that, but its import goes on to describe two of these operators (non-maximum suppression for
detectors, which nothing here uses) and fails because they do not exist. Declaring them, without an implementation, is
all the import needs. One of its detectors' operators asks the compiler whether it is supported, which would load it. Import
torchvision only through this module.
"""

import functools
import importlib.util
import sys
from importlib.machinery import PathFinder
from types import ModuleType

import torch

from fedstil_mpi.models.compiler import compiler_left_out

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_models() -> ModuleType:
    """The package `torchvision.models`.

    Before torchvision is imported, its library of operators is loaded as torchvision itself would: where that succeeds
    (torch and torchvision of one build, both for CUDA or both for the CPU) nothing is declared and the real operators
    stay untouched. Raises ImportError where torchvision is not installed.
    """
    if "torchvision" not in sys.modules and not _operators_load():
        _declare_operators()
    with compiler_left_out():
        import torchvision.models

    return torchvision.models


def _operators_load() -> bool:
    package = importlib.util.find_spec("torchvision")
    if package is None or package.submodule_search_locations is None:
        raise ImportError("torchvision is not installed: install the version that belongs to the installed torch")
    library = PathFinder.find_spec("_C", list(package.submodule_search_locations))
    if library is None or library.origin is None:
        return False
    try:
        torch.ops.load_library(library.origin)
    except (ImportError, OSError):
        return False
    return True


@functools.cache  # the declarations last as long as the object that made them
def _declare_operators() -> torch.library.Library:
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            operators.define(f"{name}{_SIGNATURE}")
    return operators
