"""FedWeIT; see `method`."""

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.methods.base import Setup
from fedstil_mpi.methods.fedweit import method
from fedstil_mpi.methods.fedweit.method import PRESETS, Options, Server
from fedstil_mpi.methods.fedweit.reference_code import ReferenceCodeClient

__all__ = ["PRESETS", "Client", "Options", "Server"]


class Client(method.Client):
    @classmethod
    def create(cls, learner: Learner, setup: Setup, options: Options) -> method.Client:
        kind = ReferenceCodeClient if options.is_reference_code else method.Client
        return kind(learner, setup, options)
