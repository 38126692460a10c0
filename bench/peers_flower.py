"""The task of bench/peers.py with Flower's simulation, one worker of Ray's. peers_flower.py FOLDER"""

import sys
import time
from collections.abc import Sequence
from functools import cache

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from peers_task import Meter, Model, described, learning, optimiser, read

RESOURCES = {"num_cpus": 1}
client_app = ClientApp()


@cache
def model_of(folder: str) -> Model:
    """Of a process: one for all of its clients."""
    torch.set_num_threads(1)
    return Model(read(folder).start)


def weights(model: Model) -> ArrayRecord:
    return ArrayRecord({"weight": model.classifier.weight.detach()})


@client_app.train()
def train(message: Message, context) -> Message:
    folder, client = message.content["config"]["folder"], message.content["config"]["client"]
    task, model = read(folder), model_of(folder)
    model.classifier.load_state_dict(message.content["arrays"].to_torch_state_dict())
    adam = optimiser(model.parameters(), task.lr, task.weight_decay)
    loss = model.loss(task.features[client], task.labels[client])
    adam.zero_grad()
    loss.backward()
    adam.step()
    metrics = MetricRecord({"loss": loss.item(), "num-examples": task.labels.shape[1]})
    return Message(RecordDict({"arrays": weights(model), "metrics": metrics}), reply_to=message)


class Drawn(FedAvg):
    """FedAvg of the clients that the task draws."""

    def __init__(self, folder: str, meter: Meter, nodes: Sequence[int]):
        super().__init__(fraction_evaluate=0.0)
        self.folder, self.meter, self.nodes = folder, meter, nodes

    def configure_train(self, server_round, arrays, config, grid):
        self.meter.begin(server_round)
        return [
            Message(
                content=RecordDict(
                    {"arrays": arrays, "config": ConfigRecord({"folder": self.folder, "client": client})}
                ),
                message_type=MessageType.TRAIN,
                dst_node_id=self.nodes[client],
            )
            for client in read(self.folder).drawn[server_round - 1].tolist()
        ]

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        self.meter.losses.append(metrics["loss"])
        return arrays, metrics


def main(folder: str) -> None:
    task, model, server_app = read(folder), model_of(folder), ServerApp()
    clients, samples = task.labels.shape
    rounds, drawn = task.drawn.shape

    @server_app.main()
    def serve(grid, context) -> None:
        while len(nodes := list(grid.get_node_ids())) < clients:
            time.sleep(0.1)
        meter = Meter(task.marks)
        Drawn(folder, meter, nodes).start(grid=grid, initial_arrays=weights(model), num_rounds=rounds)
        meter.begin(rounds + 1)
        meter.report(
            {
                "clients": len(nodes),
                "drawn": drawn,
                "batch": samples,
                "steps": 1,
                "travelling weights": sum(parameter.numel() for parameter in learning(model)),
                "optimiser": described(optimiser(model.parameters(), task.lr, task.weight_decay)),
                "threads": torch.get_num_threads(),
            }
        )

    run_simulation(
        server_app, client_app, clients, backend_config={"client_resources": RESOURCES, "init_args": RESOURCES}
    )


if __name__ == "__main__":
    from peers_flower import main as by_name  # so that Ray's worker finds the client app where this file lies

    by_name(sys.argv[1])
