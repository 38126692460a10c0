"""FedSTIL; see `method`."""

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.methods.base import Setup
from fedstil_mpi.methods.fedstil import method
from fedstil_mpi.methods.fedstil.method import PRESETS, Options, Server
from fedstil_mpi.methods.fedstil.reference_code import ReferenceCodeClient

__all__ = ["PRESETS", "Client", "Options", "Server"]


class Client(method.Client):
    @classmethod
    def create(cls, learner: Learner, setup: Setup, options: Options) -> method.Client:
        kind = method.Client if options.decomposition == "folded" else ReferenceCodeClient
        return kind(learner, setup, options)
