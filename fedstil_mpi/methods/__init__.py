"""The methods, a module or package each; `load` finds them by name, and the user's own by path or module."""

import importlib
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from fedstil_mpi.config import loading
from fedstil_mpi.config.schema import Experiment, Method
from fedstil_mpi.util import plugins
from fedstil_mpi.util.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from fedstil_mpi.methods.base import MethodModule

BUILT_IN = (
    *("ditto", "ewc", "fedavg", "fedcurv", "fedfomo", "fedper", "fedprox", "fedstil", "fedstil_atten", "fedweit"),
    *("icarl", "mas", "multi", "pfedgraph", "single"),
)
KEY = "method.name"


def names() -> list[str]:
    """All built-in methods, without importing them."""
    return list(BUILT_IN)


def check_name(name: str) -> None:
    """Raise InputError, with a suggestion, where there is no such method. Imports nothing, and runs nothing of a plug-in."""
    if plugins.is_plugin(name):
        plugins.check(KEY, name)
    elif name not in names():
        raise InputError(
            f"unknown method {name!r}; {did_you_mean(name, names())}there are {', '.join(names())}, "
            "or give the path of a .py file"
        )


def resolve(source: dict[str, Any]) -> tuple["MethodModule", Experiment]:
    """The method that a config names, and the config with its options. source: as `loading.read` gave it. Raises InputError."""
    method = load(loading.resolve(source).method.name)
    return method, loading.resolve(source, method.Options, method.PRESETS)


def load(name: str) -> "MethodModule":
    """Import a method's module (and with it torch). Raises InputError where a plug-in is not a method."""
    check_name(name)
    if not plugins.is_plugin(name):
        return importlib.import_module(f"{__name__}.{name}")
    module: Any = plugins.load(KEY, name, ("Options", "PRESETS", "Client", "Server"))
    from fedstil_mpi.methods import base

    for side in (base.Client, base.Server):
        own = getattr(module, side.__name__)
        if not (isinstance(own, type) and issubclass(own, side)):
            raise InputError(
                f"{KEY} = {name}: its {side.__name__} is {own!r}; expected a class derived from {side.__module__}.{side.__name__}"
            )
    if not (isinstance(module.Options, type) and is_dataclass(module.Options)):
        raise InputError(f"{KEY} = {name}: its Options is {module.Options!r}; expected a dataclass")
    if taken := {field.name for field in fields(module.Options)} & {field.name for field in fields(Method)}:
        raise InputError(
            f"{KEY} = {name}: its Options has {', '.join(sorted(taken))}, which every method has; rename it"
        )
    if not isinstance(module.PRESETS, dict) or not all(isinstance(keys, dict) for keys in module.PRESETS.values()):
        raise InputError(
            f'{KEY} = {name}: its PRESETS is {module.PRESETS!r}; expected {{name: {{"section.key": value}}}}'
        )
    return module
