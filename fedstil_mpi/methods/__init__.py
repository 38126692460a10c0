"""The methods, one module each; `load` finds them by name. What they share is in `common/`."""

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING

from fedstil_mpi.errors import InputError

if TYPE_CHECKING:
    from fedstil_mpi.methods.common.base import MethodModule


def names() -> list[str]:
    """All methods there are, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def check_name(name: str) -> None:
    """Raise InputError, with a suggestion, where there is no such method."""
    if name not in names():
        close = difflib.get_close_matches(name, names(), 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"unknown method {name!r}; {hint}there are {', '.join(names())}")


def load(name: str) -> "MethodModule":
    """Import a method's module (and with it torch)."""
    check_name(name)
    return importlib.import_module(f"{__name__}.{name}")
