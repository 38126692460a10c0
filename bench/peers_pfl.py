"""The task of bench/peers.py with pfl-research, in its simulated backend. peers_pfl.py FOLDER"""

import sys
from functools import partial

import torch
from peers_task import Meter, Model, described, learning, optimiser, read
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel


class Measured(Model):
    """As pfl asks for it."""

    def __init__(self, start):
        super().__init__(start)
        self.losses = []

    def loss(self, features, labels):
        loss = super().loss(features, labels)
        self.losses.append(loss.item())
        return loss

    def metrics(self, features, labels):
        return {"loss": Weighted.from_unweighted(super().loss(features, labels).item())}


class AtRounds(TrainingProcessCallback):
    def __init__(self, meter: Meter):
        self.meter = meter

    def on_train_begin(self, *, model):
        self.meter.begin(1)
        return Metrics()

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        losses = model.pytorch_model.losses
        self.meter.losses.append(sum(losses) / len(losses))
        losses.clear()
        self.meter.begin(central_iteration + 2)  # iterations count from 0
        return False, Metrics()


def main() -> None:
    torch.set_num_threads(1)
    task = read(sys.argv[1])
    rounds, drawn = task.drawn.shape
    users = iter(task.drawn.ravel().tolist())
    data = FederatedDataset(
        lambda user: Dataset((task.features[user], task.labels[user]), user_id=str(user)), lambda: next(users)
    )
    network = Measured(task.start)
    model = PyTorchModel(
        network, partial(optimiser, weight_decay=task.weight_decay), torch.optim.SGD(learning(network), lr=1.0)
    )
    local = NNTrainHyperParams(local_num_epochs=1, local_learning_rate=task.lr, local_batch_size=task.labels.shape[1])
    whole = NNAlgorithmParams(
        central_num_iterations=rounds, evaluation_frequency=rounds + 1, train_cohort_size=drawn, val_cohort_size=0
    )
    meter = Meter(task.marks)
    FederatedAveraging().run(whole, SimulatedBackend(data, data), model, local, callbacks=[AtRounds(meter)])
    meter.report(
        {
            "clients": len(task.labels),
            "drawn": whole.train_cohort_size,
            "batch": local.local_batch_size,
            "steps": model._get_local_num_steps(local, task.labels.shape[1]),
            "travelling weights": sum(variable.numel() for variable in model.variable_map.values()),
            "optimiser": described(model.new_local_optimizer(local.local_learning_rate)),
            "threads": torch.get_num_threads(),
        }
    )


if __name__ == "__main__":
    main()
