"""What observes a run without changing it: the record, the terminal, the check of what was predicted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fedstil_mpi.util.state_tree import State


class Observer:
    """`run_rounds` calls these on rank 0, in this order. These do nothing; others override what they want."""

    def begin_round(self, round: int, online: Sequence[int]) -> None:
        """Before the server distributes. After the last round one more distribution follows, which begins no round."""

    def relevance(self, round: int, receivers: Sequence[int], relevance_OK: Tensor | None) -> None:
        """How the server mixed what each receiver gets, float32 [receivers, K]; None: the method mixes nothing."""

    def training(self, round: int, reports: np.ndarray | None) -> None:
        """float64 [clients, 3]: loss, accuracy and new images of the local training; nan where a client was offline."""

    def evaluation(self, round: int, model: str, metrics: np.ndarray | None) -> None:
        """float64 [clients, scopes, tasks, METRICS] of what a model found, one of `results.MODELS`."""

    def served_is_local(self, round: int) -> None:
        """Nothing comes back from the server, so that the served models are the local ones."""

    def end_round(self, round: int, online: Sequence[int]) -> None:
        """The server has taken the updates in."""

    def end(self) -> None:
        """The served models have been evaluated after the closing distribution: nothing follows."""

    def state(self, since: int = 0) -> State:
        """What has to be restored for a resumed run to report all of itself, at the end of a round.

        since: a round at whose end there was a state already, whose contents are left out.
        """
        return {}

    def restore(self, state: State) -> None:
        """Take up such a state, after those before it."""


def _tell_all(what: str) -> Any:
    """The method of this name that calls each observer's."""

    def tell(self: "Observers", *told: Any) -> None:
        for observer in self.observers:
            getattr(observer, what)(*told)

    return tell


class Observers(Observer):
    """Several, in this order."""

    def __init__(self, *observers: Observer):
        self.observers = observers

    begin_round = _tell_all("begin_round")
    relevance = _tell_all("relevance")
    training = _tell_all("training")
    evaluation = _tell_all("evaluation")
    served_is_local = _tell_all("served_is_local")
    end_round = _tell_all("end_round")
    end = _tell_all("end")

    def state(self, since: int = 0) -> State:
        return {"observers": [observer.state(since) for observer in self.observers]}

    def restore(self, state: State) -> None:
        for observer, of_observer in zip(self.observers, state["observers"], strict=True):
            observer.restore(of_observer)
