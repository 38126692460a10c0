"""Whether a method's state holds all that it keeps: a new object that takes up the state equals the live one.

Compared is everything that hangs on the two objects, tensors to the last bit, but for what a class names in
    derived      what its constructor is given, and what is made again from the rest where it is missing
    transient    what every round sets before anything reads it
and but for tensors that hold NaN.
"""

import enum
import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.methods.aids import innermost
from fedstil_mpi.methods.base import Client, Server, restore
from fedstil_mpi.models.network import Network
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.state_tree import PLAIN, State, flatten, unflatten

NOT_COMPARED = "not compared"
SHOWN = 5
"""Names in a message."""


def check(clients: Iterable[Client], server: Server | None, network: Network, *, thorough: bool = False) -> None:
    """Raise InputError naming what a plug-in's sides keep from round to round and their states do not. Not collective.

    Of the clients the first that was drawn is looked at. It costs a second copy of that client and of the server for a
    moment, and on the quickstart 1.3 s of CPU time, so methods of this package are left out: the tests do this for all of
    them. network: the start model. thorough: look at all clients, and at methods of this package.
    """
    drawn = [side for side in clients if side.learner.draws]
    missing: list[str] = []
    with torch.random.fork_rng(devices=[]):
        for side in drawn if thorough else drawn[:1]:
            if thorough or _is_plugin(innermost(side)):
                missing += forgotten_by_client(side, network)
        if server is not None and (thorough or _is_plugin(innermost(server))):
            unknown = torch.full_like(innermost(server).setup.start, torch.nan)  # what follows from it is not compared
            missing += forgotten_by_server(server, lambda client: unknown)
    if missing:
        raise InputError(report(list(dict.fromkeys(missing))))


def report(missing: list[str]) -> str:
    """One line for what is forgotten."""
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return (
        f"a resumed run would not have {', '.join(missing[:SHOWN])}{more} as the run it goes on from; let state() return "
        "it and restore() take it up, or name it in the class's transient if every round sets it before it is read"
    )


def forgotten_by_client(side: Client, network: Network) -> list[str]:
    """What differs in a new client that takes up this one's state, by path of attributes."""
    side, old = innermost(side), side.learner
    learner = Learner(old.client, old.experiment, old.tasks, network)
    new = type(side).create(learner, side.setup, side.options)
    state = as_read({"method": side.state(), "learner": old.state()}, side)
    _restore(side, lambda: restore(new, state))
    return differences(snapshot(side), snapshot(new))


def forgotten_by_server(side: Server, theta_of: Callable[[int], Tensor]) -> list[str]:
    """What differs in a new server that takes up this one's state, by path of attributes."""
    side = innermost(side)
    new = type(side)(side.setup, side.options)
    state = as_read(side.state(), side)
    _restore(side, lambda: new.restore(state, theta_of))
    return differences(snapshot(side), snapshot(new))


def as_read(state: State, side: object) -> State:
    """The state as it comes back from a file. Raises InputError where no file can hold it."""
    try:
        return unflatten(*flatten(state))
    except TypeError as error:
        raise InputError(f"{_name(side)}.state() cannot be kept: {error}") from None


def _restore(side: object, restore: Callable[[], None]) -> None:
    try:
        restore()
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"{_name(side)}.restore(state()) fails with {kind}: {error}; correct it") from error


def _name(side: object) -> str:
    return f"{type(side).__module__}.{type(side).__name__}"


def _is_plugin(side: object) -> bool:
    return not type(side).__module__.startswith("fedstil_mpi.")


# -- everything that hangs on an object --------------------------------------------------------------------------------


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The paths at which two snapshots differ; of what only one of them has, the path that leads to all of it."""
    paths = [path for path in one | other if one.get(path, "absent") != other.get(path, "absent")]
    paths = [path for path in paths if NOT_COMPARED not in (one.get(path), other.get(path))]
    absent = {path for path in paths if path not in one or path not in other}
    paths = [path for path in paths if path.rpartition("/")[0] not in absent]
    return [path for path in paths if not any(longer.startswith(f"{path}/") for longer in paths)]


def snapshot(thing: Any, path: str = "", *, transient: bool = False, above: tuple[int, ...] = ()) -> dict[str, Any]:
    """All values that hang on an object, by the attributes, keys and places that lead there; digests of tensors.

    transient: whether those attributes are looked at, too. above: the objects that led here.
    """
    if isinstance(thing, Tensor):
        return {path: NOT_COMPARED if thing.isnan().any() else _digest(thing)}
    if isinstance(thing, np.ndarray | np.generic):
        return {path: (thing.dtype.str, thing.shape, thing.tobytes())}
    if isinstance(thing, torch.Generator):
        return {path: _digest(thing.get_state())}
    if isinstance(thing, np.random.Generator):
        return {path: repr(thing.bit_generator.state)}
    if isinstance(thing, set | frozenset):
        return {path: sorted(map(repr, thing))}
    if isinstance(thing, (*PLAIN, bytes, complex, range, enum.Enum, torch.dtype, torch.device)):
        return {path: repr(thing)}
    parts = _parts(thing, transient)
    if parts is None or id(thing) in above:
        return {path: type(thing).__name__}
    found: dict[str, Any] = {path: list(map(str, parts)) if isinstance(thing, dict | list) else type(thing).__name__}
    for name, part in parts.items():
        inner = f"{path}/{name}" if path else str(name)
        found |= snapshot(part, inner, transient=transient, above=(*above, id(thing)))
    return found


def _digest(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], tuple[int, ...], bytes]:
    flat = tensor.detach().cpu().contiguous().flatten()
    bits = hashlib.blake2b(flat.view(torch.uint8).numpy().data, digest_size=16).digest()
    return tensor.dtype, tuple(tensor.shape), tensor.stride(), bits


def _parts(thing: Any, transient: bool) -> dict[Any, Any] | None:
    """What an object is made of, by name; None where it holds no values: functions, classes, modules of Python."""
    if isinstance(thing, nn.Module):
        return dict(sorted(thing.state_dict().items()))
    if isinstance(thing, dict):
        return {key if isinstance(key, PLAIN) else place: value for place, (key, value) in enumerate(thing.items())}
    if isinstance(thing, list | tuple | deque):
        return dict(enumerate(thing))
    if isinstance(thing, type | ModuleType | FunctionType | MethodType) or not hasattr(thing, "__dict__"):
        return None
    kind = type(thing)
    left_out = {name for base in kind.__mro__ for name in vars(base).get("derived", ())}
    if not transient:
        left_out |= {name for base in kind.__mro__ for name in vars(base).get("transient", ())}
    return {f"{kind.__name__}.{name}": value for name, value in vars(thing).items() if name not in left_out}
