"""FedWeIT; see `method`."""

from fedstil_mpi.methods.fedweit.method import PRESETS, Client, Options, Server

__all__ = ["PRESETS", "Client", "Options", "Server"]
