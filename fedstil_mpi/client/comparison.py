"""How what is searched is compared after an exchange of prototypes: by which features, and by which metric."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.client.elsewhere import Norms, from_elsewhere
from fedstil_mpi.client.metric import Metric
from fedstil_mpi.models.files import read_tensors, write_tensors
from fedstil_mpi.models.network import Tail
from fedstil_mpi.util.errors import InputError

NORMS = "norms."
"""Before the names of `Comparison.norms` in a file."""
STATISTICS = ("running_mean", "running_var")
"""What these names end in."""


class Comparison(NamedTuple):
    metric: Metric | None
    """None: by the cosine of the features as they are."""
    norms: Norms
    """For pictures from elsewhere; empty: all pass the tail alike."""
    cameras: frozenset[int]
    """The client's own."""

    def features(self, tail: Tail, representations: Tensor, cameras: np.ndarray) -> Tensor:
        """What a search compares, [n, F]. tail: in evaluation mode. cameras: int64 [n]; one below 0 is unknown, and counts as own."""
        found = self._with_norms(tail, representations, cameras) if self.norms else tail.features(representations)
        return found if self.metric is None else self.metric(found)

    def _with_norms(self, tail: Tail, representations: Tensor, cameras: np.ndarray) -> Tensor:
        elsewhere = torch.from_numpy(~np.isin(cameras, list(self.cameras)) & (cameras >= 0)).to(representations.device)
        if not elsewhere.any():
            return tail.features(representations)
        with from_elsewhere(tail, self.norms):
            away = tail.features(representations[elsewhere])
        found = away.new_empty(len(representations), away.shape[1])
        found[elsewhere] = away
        if not elsewhere.all():
            found[~elsewhere] = tail.features(representations[~elsewhere])
        return found


BY_COSINE = Comparison(None, {}, frozenset())
"""Of the tail's features as they are."""


def save_comparison(path: Path, comparison: Comparison) -> None:
    """As a safetensors file, in a folder that is made if need be. Raises StorageError. Not collective."""
    tensors = {} if comparison.metric is None else comparison.metric._asdict()
    tensors |= {NORMS + name: mean for name, mean in comparison.norms.items()}
    tensors["cameras"] = torch.tensor(sorted(comparison.cameras), dtype=torch.int64)
    write_tensors(path, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()})


def load_comparison(path: Path, tail: Tail) -> Comparison:
    """What `save_comparison` has written, for such a tail; on the CPU. Raises InputError where it is not that."""
    found = read_tensors(path)
    cameras = found.pop("cameras", torch.empty(0))
    real = all(tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in found.values())
    norms = {name.removeprefix(NORMS): found.pop(name) for name in list(found) if name.startswith(NORMS)}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    directions, features = shapes.get("directions_RF", ()), tail.classifier.in_features
    expected = {"directions_RF": (*directions[:1], features), "gains_R": directions[:1]} if found else {}
    own = {name: buffer for name, buffer in tail.named_buffers() if name.endswith(STATISTICS)}
    fits = all(name in own and own[name].shape == moved.shape for name, moved in norms.items())
    if not (real and fits and shapes == expected and cameras.dtype == torch.int64 and cameras.dim() == 1):
        raise InputError(
            f"{path} compares no {features} features of such a model; expected the file that a run wrote beside its models"
        )
    return Comparison(Metric(**found) if found else None, norms, frozenset(cameras.tolist()))
