"""The methods, one module each; `load` finds them by name. What they share is in `common/`."""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from fedstil_mpi.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from fedstil_mpi.methods.common.base import MethodModule


def names() -> list[str]:
    """All methods there are, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def check_name(name: str) -> None:
    """Raise InputError, with a suggestion, where there is no such method."""
    if name not in names():
        raise InputError(f"unknown method {name!r}; {did_you_mean(name, names())}there are {', '.join(names())}")


def load(name: str) -> "MethodModule":
    """Import a method's module (and with it torch)."""
    check_name(name)
    return importlib.import_module(f"{__name__}.{name}")
