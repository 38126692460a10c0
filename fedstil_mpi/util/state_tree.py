"""State trees: what an object needs to go on after an interruption, as tensors and plain values."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save
from safetensors.torch import load
from torch import Tensor

State = dict[str, Any]
"""str keys without "/"; leaves are tensors or plain JSON values (None, bool, int, float, str). Dicts and lists are inner
nodes, and keep their order. A state may share memory with the object it was taken from: write it before that goes on."""

PLAIN = (type(None), bool, int, float, str)
PLAIN_TREE = "state.json"
"""The tensor, uint8, that holds the plain values."""


def flatten(state: State) -> tuple[dict[str, Tensor], State]:
    """The tree's tensors, by "path/of/keys", and the tree as plain JSON.

    A file keeps no strides, but the last bit of what a convolution makes of a tensor can depend on them. So the tensors
    have their axes in the order in which they lie in memory, and in their places the plain tree says how to put them
    back. Raises TypeError for a leaf of another kind, and for a key that is no str or holds a "/".
    """
    tensors: dict[str, Tensor] = {}

    def plain(node: Any, path: tuple[str, ...]) -> Any:
        if type(node) in PLAIN:  # not a subclass: it would come back as something else
            return node
        name = "/".join(path)
        if isinstance(node, Tensor):
            axes = sorted(range(node.dim()), key=node.stride().__getitem__, reverse=True)
            tensors[name] = node.detach().permute(axes).contiguous()
            return sorted(range(node.dim()), key=axes.__getitem__)
        if isinstance(node, dict):
            for key in node:
                if not isinstance(key, str) or "/" in key:
                    raise TypeError(f"state {name} has the key {key!r}; expected a str without /")
            return {key: plain(value, (*path, key)) for key, value in node.items()}
        if isinstance(node, list):
            return [plain(value, (*path, str(place))) for place, value in enumerate(node)]
        raise TypeError(f"state {name} is a {type(node).__name__}; expected a tensor or a plain value")

    return tensors, plain(state, ())


def unflatten(tensors: Mapping[str, Tensor], plain: State) -> State:
    """The tree that `flatten` was given.

    With copies of the tensors: those of a file are not aligned as others are, on which the last bit of a matrix product
    can depend.
    """

    def tree(node: Any, path: tuple[str, ...]) -> Any:
        name = "/".join(path)
        if name in tensors:
            return tensors[name].permute(node).clone()
        if isinstance(node, dict):
            return {key: tree(value, (*path, key)) for key, value in node.items()}
        if isinstance(node, list):
            return [tree(value, (*path, str(place))) for place, value in enumerate(node)]
        return node

    return tree(plain, ())


def arrays(state: State) -> dict[str, np.ndarray]:
    """The tree as arrays by name, its plain values as JSON text in one of them. They may share memory with it."""
    tensors, plain = flatten(state)
    found = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    return found | {PLAIN_TREE: np.frombuffer(json.dumps(plain).encode(), np.uint8)}


def to_bytes(state: State) -> bytes:
    """The tree as safetensors."""
    return save(arrays(state))


def from_bytes(data: bytes) -> State:
    """The tree that `to_bytes` was given, on the CPU."""
    tensors = load(data)
    plain = json.loads(tensors.pop(PLAIN_TREE).numpy().tobytes())
    return unflatten(tensors, plain)
