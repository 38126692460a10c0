"""MAS, memory aware synapses (Aljundi et al., ECCV 2018): EWC with an importance that needs no labels.

Every client learns alone. How much a task depends on a parameter is how strongly the squared norm of the scores reacts
to it, averaged over the task's images.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedstil_mpi.config.fields import FLOAT32, bounded, choice
from fedstil_mpi.methods import single
from fedstil_mpi.methods.base import Server
from fedstil_mpi.methods.importance import check_data, reference_code, sensitivity
from fedstil_mpi.methods.regularised import AnchoredClient

__all__ = ["PRESETS", "Client", "Options", "Server"]


@dataclass(kw_only=True)
class Options:
    penalty: float = bounded(0.01, 0, FLOAT32)
    """Weight lambda of the penalty."""
    importance: str = choice("task", "round")
    """task (of each finished task, added up) | round (as the reference code: again after every round, from the absolute
    gradient of the labelled loss over whole batches of all tasks, and the anchor is where the round ended)."""
    data: str = choice("train", "query")
    """train | query (only for importance: round; the reference code reads the images that it is tested with)."""
    anchors: str = choice("newest", "tasks")
    """Only for importance: task. newest (all importance holds the parameters where the newest finished task left them,
    as in the paper, whose importances are accumulated while the reference point moves on) | tasks (each task's holds
    them where that task left them)."""
    micro_batch: int = bounded(8, 1, 10**6)
    """Only for importance: task. Samples a backward pass of the importance; 1: exact."""

    def __post_init__(self) -> None:
        check_data(self.data, self.importance)


PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    "paper": single.PRESETS["paper"],
    "reference_code": single.PRESETS["reference_code"]
    | {"method.importance": "round", "method.data": "query", "method.penalty": 0.01},
}


class Client(AnchoredClient):
    options: Options

    def estimate(self) -> list[Tensor]:
        return sensitivity(self.learner, list(self.parameters.values()), self.options.micro_batch)

    def reference_code(self) -> list[Tensor]:
        tasks = range(self.learner.task + 1)
        return reference_code(self.learner, list(self.parameters.values()), tasks, self.options.data, power=1)
