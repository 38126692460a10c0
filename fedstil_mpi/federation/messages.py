"""What will travel between the server and the clients, from the config and the start model's layers alone."""

from dataclasses import dataclass

import torch

from fedstil_mpi.comm.flat import Layout, to_host
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.federation.initial_model import InitialModel
from fedstil_mpi.methods.aids.prototypes import add_parts
from fedstil_mpi.methods.base import MethodModule, Setup, Traffic
from fedstil_mpi.models.network import Network, representation_shape


@dataclass(frozen=True)
class MessageSchema:
    setup: Setup
    shape: tuple[int, ...]
    """The shape of a representation."""
    traffic: Traffic
    """The method's, with the parts of aids that the config adds."""
    initial_model: InitialModel


def message_schema(experiment: Experiment, method: MethodModule, clients: int, network: Network) -> MessageSchema:
    """All ranks compute it alike. The network may be without values, on the device meta; then so is `setup.start`."""
    options = experiment.method.options
    travelling = method.Client.travelling(network.tail, options)
    layout = Layout.of(travelling)
    shape = representation_shape(network, (experiment.data.height, experiment.data.width))
    start = layout.pack(travelling)
    setup = Setup(clients, layout, torch.Size(shape).numel(), to_host(start), experiment.seed)
    own = method.Client.traffic(setup, options)
    provided = frozenset() if experiment.warmup.steps else network.provided
    initial_model = InitialModel(network, provided, travelling if own.down else ())
    traffic = add_parts(own, setup) if experiment.prototypes.exchange else own
    return MessageSchema(setup, shape, traffic, initial_model)
