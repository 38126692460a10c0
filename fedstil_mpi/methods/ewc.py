"""EWC, elastic weight consolidation (Kirkpatrick et al., PNAS 2017): parameters that matter to past tasks stay put.

Every client learns alone. At the end of a task the diagonal of the Fisher information says how much the task depends on
each parameter; later tasks pay lambda * sum_k F_k (phi_k - phi*_k)^2 for moving away from the parameters phi* of then,
for each finished task. That needs no more memory than one task does: see `quadratic`.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedstil_mpi.config.fields import FLOAT32, bounded, choice
from fedstil_mpi.methods import single
from fedstil_mpi.methods.base import Server
from fedstil_mpi.methods.importance import fisher, reference_code
from fedstil_mpi.methods.regularised import AnchoredClient

__all__ = ["PRESETS", "Client", "Options", "Server"]


@dataclass(kw_only=True)
class Options:
    penalty: float = bounded(50.0, 0, FLOAT32)
    """Weight lambda of the penalty."""
    importance: str = choice("task", "round")
    """task (Fisher information of each finished task, added up) | round (as the reference code: again after every round,
    over whole augmented batches of all tasks but the newest, and the anchor is where the round ended)."""
    anchors: str = choice("tasks", "newest")
    """Only for importance: task. tasks (each task's importance holds the parameters where that task left them, as in the
    paper) | newest (all of it where the newest finished task left them: online EWC)."""
    micro_batch: int = bounded(8, 1, 10**6)
    """Only for importance: task. Samples a backward pass of the Fisher information; 1: exact."""


PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    "paper": single.PRESETS["paper"],
    "reference_code": single.PRESETS["reference_code"] | {"method.importance": "round", "method.penalty": 50.0},
}


class Client(AnchoredClient):
    options: Options

    def estimate(self) -> list[Tensor]:
        return fisher(self.learner, list(self.parameters.values()), self.options.micro_batch)

    def reference_code(self) -> list[Tensor]:
        past = range(self.learner.task)
        return reference_code(self.learner, list(self.parameters.values()), past, "train", power=2) if past else []
