"""What a run will do, from its config and the stream's labels: bytes, passes, memory, disk. Nothing is trained or sent."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from fedstil_mpi.checkpoints.store import KEPT
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.federation.messages import wire
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.federation.setup import Plan, build_network
from fedstil_mpi.methods.federated import WEIGHTS
from fedstil_mpi.models.network import Network, given, network_state
from fedstil_mpi.planning import footprint, volume, workload
from fedstil_mpi.planning.footprint import Footprint
from fedstil_mpi.planning.prediction import by_kind_of_round, predict
from fedstil_mpi.planning.workload import Workload


@dataclass(frozen=True)
class Forecast:
    schedule: Schedule
    placements: list[dict[str, Any]]
    """The ranks' rows of `placement.table`."""
    ledger: Ledger
    packed: set[str]
    """Kinds that pass a codec, of which the ledger tells the dense bytes."""
    loads: list[Workload]
    """By client."""
    bounds: dict[str, str]
    """By kind of passes: exactly | at most | at least | about."""
    footprints: list[Footprint]
    """By rank."""
    files: dict[str, int]
    """Bytes by file name."""
    checkpoints: int
    """Bytes at least, while the run lasts: the start model, and of two rounds the clients' models."""

    @property
    def passes(self) -> Counter[str]:
        return sum((load.passes for load in self.loads), Counter())

    def differences(self, passes: Mapping[str, int]) -> list[str]:
        """What a run's number of passes has against this forecast; empty where it is as predicted."""
        fits = {"exactly": int.__eq__, "at most": int.__le__, "at least": int.__ge__, "about": lambda *_: True}
        predicted = self.passes
        return [
            f"{kind} {passes.get(kind, 0)} instead of {bound} {predicted[kind]}"
            for kind, bound in self.bounds.items()
            if not fits[bound](passes.get(kind, 0), predicted[kind])
        ]

    def as_json(self) -> dict[str, Any]:
        kinds = self.ledger.by_kind()
        return {
            "placement": self.placements,
            "rounds": [group._asdict() for group in by_kind_of_round(self.schedule, self.ledger)],
            "bytes": {
                **{way: self.ledger.total(way) for way in (DOWN, UP)},
                "kinds": [
                    {"direction": way, "kind": kind, "bytes": raw, "before_codec": kind in self.packed}
                    for (way, kind), (raw, _) in sorted(kinds.items())
                ],
            },
            "passes": {kind: {"images": self.passes[kind], "bound": bound} for kind, bound in self.bounds.items()},
            "clients": [
                {way: self.ledger.total(way, client=client) for way in (DOWN, UP)}
                | {kind: load.passes[kind] for kind in self.bounds}
                for client, load in enumerate(self.loads)
            ],
            "memory": [{"host": f.host(), "gpu": f.device(), "parts": f.parts} for f in self.footprints],
            "files": self.files,
            "checkpoints": self.checkpoints,
        }


def make(plan: Plan, stream: Stream, placements: list[dict[str, Any]]) -> Forecast:
    """The forecast of a run whose ranks sit so. Raises InputError where the model cannot be built."""
    experiment, method, schedule = plan.experiment, plan.method, plan.schedule
    network = blank_network(plan)
    wires = wire(experiment, method, schedule.clients, network)
    ledger = predict(schedule, wires.contact.parts, wires.traffic, stream.pids)
    loads = workload.play(experiment, method, schedule, stream, wires.traffic, ledger)
    mixes = any(part.kind == WEIGHTS and not part.shared for part in wires.traffic.down)
    return Forecast(
        schedule,
        placements,
        ledger,
        {part.kind for part in (*wires.traffic.down, *wires.traffic.up) if part.codec != "dense"},
        loads,
        workload.bounds(experiment, method),
        footprint.estimate(experiment, method, wires, network, loads, ledger, placements),
        volume.measure(schedule, ledger, len(placements), task_aware=method.Client.task_aware, mixes=mixes),
        _checkpoints(network, schedule.clients) if experiment.checkpoint.every else 0,
    )


def _checkpoints(network: Network, clients: int) -> int:
    start, tail = network_state(network).values(), network.tail.state_dict().values()
    return sum(tensor.nbytes for tensor in start) + KEPT * clients * sum(tensor.nbytes for tensor in tail)


def blank_network(plan: Plan) -> Network:
    """The start model without values, on the device meta; nothing is downloaded or read."""
    with torch.device("meta"):
        network = build_network(plan, weights="none")
    return network if plan.experiment.model.weights == "none" else replace(network, provided=given(network))
