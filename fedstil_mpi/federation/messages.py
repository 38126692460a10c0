"""What will travel between the server and the clients, from the config and the start model's layers alone."""

from dataclasses import dataclass, replace

import torch

from fedstil_mpi.comm.flat import Layout, to_host
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.federation.initial_model import InitialModel
from fedstil_mpi.methods.aids.compression import Codecs
from fedstil_mpi.methods.aids.prototypes import add_parts
from fedstil_mpi.methods.base import MethodModule, Setup, Traffic
from fedstil_mpi.models.network import Network, representation_shape
from fedstil_mpi.models.torchvision_backbones import without_compiler


@dataclass(frozen=True)
class MessageSchema:
    setup: Setup
    shape: tuple[int, ...]
    """The shape of a representation."""
    traffic: Traffic
    """The method's, with the parts of aids that the config adds."""
    plain: Traffic
    """The method's alone."""
    initial_model: InitialModel
    codecs: Codecs

    @property
    def kinds(self) -> set[str]:
        """Of all parts, both ways."""
        return {part.kind for part in (*self.traffic.down, *self.traffic.up)}


def message_schema(experiment: Experiment, method: MethodModule, clients: int, network: Network) -> MessageSchema:
    """All ranks compute it alike. The network may be without values, on the device meta; then so is `setup.start`."""
    options, compression = experiment.method.options, experiment.compression
    travelling = method.Client.travelling(network.tail, options)
    layout = Layout.of(travelling)
    shape = representation_shape(network, (experiment.data.height, experiment.data.width))
    setup = Setup(clients, layout, torch.Size(shape).numel(), torch.empty(0), experiment.seed)
    traffic = plain = method.Client.traffic(setup, options)
    codecs = Codecs.of(compression, layout, traffic)
    # Compressed knowledge is only the difference to the start model, which has to be there first.
    from_knowledge = travelling if traffic.down and codecs.down is None else ()
    provided = frozenset() if experiment.warmup.steps else network.provided
    initial_model = InitialModel(network, provided, from_knowledge, compression.first_contact)
    with without_compiler(experiment.model.backbone):  # which torch loads to join tensors without values
        setup = replace(setup, start=to_host(layout.pack(travelling)))
    if experiment.prototypes.exchange:
        traffic = add_parts(traffic, setup)
    return MessageSchema(setup, shape, codecs.compress(traffic), plain, initial_model, codecs)
