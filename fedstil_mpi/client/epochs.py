"""When local training stops, and its learning rate, where passes over the data are counted."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class EarlyStop:
    """Stop after three epochs in a row that were not at least as good in loss AND accuracy as the best so far."""

    best_loss: float = 1e8
    best_accuracy: float = 0.0
    bad: int = 0

    def update(self, loss: float, accuracy: float) -> bool:
        """Note one epoch; True: stop now."""
        self.bad += 1
        if loss <= self.best_loss and accuracy >= self.best_accuracy:
            self.best_loss, self.best_accuracy, self.bad = loss, accuracy, 0
        return self.bad >= 3


@dataclass
class ReferenceRate:
    """Step decay of the reference code: x0.1 every 5 epochs of a client's whole life, but the rate is reset each round."""

    derived = ("rate",)
    initial: float
    epochs: int = 0
    rate: float = 0.0

    def new_round(self) -> None:
        self.rate = self.initial

    def step(self) -> None:
        self.epochs += 1
        if self.epochs % 5 == 0:
            self.rate *= 0.1


@dataclass(frozen=True)
class Epoch:
    """What one pass over the data reports: mean loss over batches, share of correct images, images seen."""

    loss: float
    accuracy: float
    images: int


def run_epochs(count: int, run: Callable[[float], Epoch], stop: EarlyStop | None, rate: ReferenceRate) -> list[Epoch]:
    """Run up to `count` epochs, each by `run(learning_rate)`; returns every epoch run.

    Where `stop` ends the round, the epoch that made it stop is the last of the list (it was trained; the reference code
    leaves it out of its counts).
    """
    epochs: list[Epoch] = []
    rate.new_round()
    for _ in range(count):
        epochs.append(run(rate.rate))
        rate.step()
        if stop is not None and stop.update(epochs[-1].loss, epochs[-1].accuracy):
            break
    return epochs
