"""FedSTIL; see `method`."""

from fedstil_mpi.methods.fedstil.method import PRESETS, Client, Options, Server

__all__ = ["PRESETS", "Client", "Options", "Server"]
