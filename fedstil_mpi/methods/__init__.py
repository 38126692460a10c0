"""The methods, a module or package each; `load` finds them by name."""

import importlib
from typing import TYPE_CHECKING

from fedstil_mpi.util.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from fedstil_mpi.methods.base import MethodModule

BUILT_IN = (
    *("ewc", "fedavg", "fedcurv", "fedprox", "fedstil", "fedstil_atten", "fedweit"),
    *("icarl", "mas", "multi", "single"),
)


def names() -> list[str]:
    """All methods there are, without importing them."""
    return list(BUILT_IN)


def check_name(name: str) -> None:
    """Raise InputError, with a suggestion, where there is no such method."""
    if name not in names():
        raise InputError(f"unknown method {name!r}; {did_you_mean(name, names())}there are {', '.join(names())}")


def load(name: str) -> "MethodModule":
    """Import a method's module (and with it torch)."""
    check_name(name)
    return importlib.import_module(f"{__name__}.{name}")
