"""What travels for a method that trains a real network."""

import torch

from fedstil_mpi import methods
from fedstil_mpi.comm.flat import Layout, Part
from fedstil_mpi.methods.base import Setup, Traffic
from fedstil_mpi.models.network import Network
from support import tiny


def traffic(network: Network, method: str, preset: str = "reference_code", **settings) -> Traffic:
    options = tiny.experiment(
        {f"method.{key}": value for key, value in settings.items()}, method, preset
    ).method.options
    module = methods.load(method)
    layout = Layout.of(module.Client.travelling(network.tail, options))
    return module.Client.traffic(Setup(5, layout, 256 * 8 * 4, torch.empty(0)), options)


def size(parts: tuple[Part, ...]) -> tuple[int, int]:
    return sum(part.scalars for part in parts), sum(part.itemsize for part in parts)
