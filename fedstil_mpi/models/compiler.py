"""torch's compiler, left out where torch only asks whether it is wanted: to load it takes a process seconds and 90 MB."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def compiler_left_out() -> Iterator[None]:
    """Within the block the compiler is a stand-in that compiles nothing, unless it has been loaded.

    For code that is known not to compile: operations on the device meta, torch's optimisers, torchvision.
    """
    if "torch._dynamo" in sys.modules:
        yield
        return
    stand_ins = {name: ModuleType(name) for name in ("torch._dynamo", "torch._dynamo.utils")}
    vars(stand_ins["torch._dynamo"]).update(disable=_as_it_is, graph_break=lambda: None)
    vars(stand_ins["torch._dynamo.utils"]).update(is_compile_supported=lambda device_type: False)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _as_it_is(function: Callable[..., Any], recursive: bool = True, *, wrapping: bool = True) -> Callable[..., Any]:
    """What is never compiled need not be kept from it."""
    return function
