"""FedPer (Arivazhagan et al., 2019): FedAvg whose clients keep their last layers for themselves.

A client's model is a shared base and a personal head. Both are trained together; only the base travels:
    base <- sum_j n_j base_j / sum_j n_j      head_i: never sent, never averaged
By default the classifier alone is the head, as in the paper's main results.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from fedstil_mpi.config.fields import bounded
from fedstil_mpi.methods import fedavg
from fedstil_mpi.methods.fedavg import Server
from fedstil_mpi.models.network import Tail, adaptive_parameters
from fedstil_mpi.util.errors import InputError

__all__ = ["PRESETS", "Client", "Options", "Server"]


@dataclass(kw_only=True)
class Options(fedavg.Options):
    local_layers: int = bounded(1, 1, 10**3)
    """How many of the last layers stay with the client, of those that have weights; 1: the classifier."""


PRESETS: dict[str, dict[str, Any]] = {"best": {}, "paper": fedavg.PRESETS["paper"]}


class Client(fedavg.Client):
    @staticmethod
    def travelling(tail: Tail, options: Any) -> dict[str, nn.Parameter]:
        layers = list(adaptive_parameters(tail))
        if options.local_layers >= len(layers):
            raise InputError(
                f"method.local_layers = {options.local_layers}, but {len(layers)} layers learn; expected at most "
                f"{len(layers) - 1}, else nothing travels: choose an earlier model.split, or method.name=single"
            )
        parameters = fedavg.Client.travelling(tail, options)
        names = list(parameters)
        return {name: parameters[name] for name in names[: names.index(layers[-options.local_layers])]}
