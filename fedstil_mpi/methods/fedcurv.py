"""FedCurv (Shoham et al., 2019): FedAvg whose clients keep the parameters that matter to other clients.

A client is held to where the others stood, and to where it stood itself at the end of its newest finished task:
    lambda * [Omega_i (phi - phi*_i)^2 + sum over j != i of Omega_j (phi - phi*_j)^2]
with the diagonal Fisher information Omega as in EWC. Of the others only two sums are needed, S = sum Omega_j and
U = sum Omega_j phi*_j, for their terms are S (phi - U/S)^2 but for a constant, which is left out of the penalty.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedstil_mpi.client.batches import Batch
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.flat import Message, Part, Rows, to_device, to_host
from fedstil_mpi.config.fields import FLOAT32, bounded, choice
from fedstil_mpi.methods import fedavg
from fedstil_mpi.methods.base import Setup, Traffic
from fedstil_mpi.methods.federated import WEIGHTS
from fedstil_mpi.methods.importance import check_data, fisher, reference_code
from fedstil_mpi.methods.pending_updates import PendingUpdates
from fedstil_mpi.methods.quadratic import Quadratic, quadratic
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.state_tree import State

IMPORTANCE = "importance"


@dataclass(kw_only=True)
class Options(fedavg.Options):
    penalty: float = bounded(50.0, 0, FLOAT32)
    """Weight lambda of the penalty."""
    importance: str = choice("task", "round")
    """task (Fisher information of each finished task, added up) | round (as the reference code: again after every round,
    over whole batches of all tasks, and the anchor is where the round ended)."""
    data: str = choice("train", "query")
    """train | query (only for importance: round; the reference code reads the images that it is tested with)."""
    micro_batch: int = bounded(8, 1, 10**6)
    """Only for importance: task. Samples a backward pass of the Fisher information; 1: exact."""
    dispatch: str = choice("sums", "lists")
    """sums (S and U of the others, when they are new) | lists (as the reference code: Omega and Omega * phi of every
    client to every client in every round, its own included; needs importance: round)."""

    def __post_init__(self) -> None:
        check_data(self.data, self.importance)
        if self.dispatch == "lists" and self.importance != "round":
            raise InputError("method.dispatch = 'lists'; expected sums, or lists with method.importance = round")

    def renews(self, task_ends: bool) -> bool:
        """Whether a client has a new Omega at the end of a round."""
        return task_ends or self.importance == "round"


PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    "paper": fedavg.PRESETS["paper"],
    "reference_code": fedavg.PRESETS["reference_code"]
    | {
        "method.importance": "round",
        "method.data": "query",
        "method.dispatch": "lists",
        "method.penalty": 50.0,
    },
}


class Client(fedavg.Client):
    options: Options
    transient = ("held",)

    def __init__(self, learner: Learner, setup: Setup, options: Options):
        super().__init__(learner, setup, options)
        self.sums: dict[str, Tensor] = {}
        """(S, U), [2, P] on the CPU: this client's "own" and those of the "others" (with lists: of all clients)."""
        self.held: Quadratic | None = None
        """Made of the sums; None: not made yet."""

    @staticmethod
    def traffic(setup: Setup, options: Any) -> Traffic:
        plain, scalars = fedavg.Client.traffic(setup, options), setup.layout.scalars
        if options.dispatch == "lists":
            lists = Part(IMPORTANCE, setup.clients * 2 * scalars, shared=True)
            return Traffic((*plain.down, lists), (*plain.up, Part(IMPORTANCE, scalars)))
        sums = Part(IMPORTANCE, 2 * scalars, ragged=True, columns=2)
        return Traffic((*plain.down, sums), (*plain.up, sums))

    def absorb(self, knowledge: Message) -> None:
        super().absorb(knowledge)
        if IMPORTANCE in knowledge and len(sums := to_host(knowledge[IMPORTANCE])):
            self.sums["others"] = sums.view(-1, 2, self.setup.layout.scalars).sum(0)
            self.held = None

    def begin(self) -> None:
        if self.held is None and self.sums and self.options.penalty:
            sums_2P = to_device(torch.stack(list(self.sums.values())).sum(0), self.learner.device)
            unpack = self.setup.layout.unpack
            self.held = Quadratic(self.options.penalty, unpack(centre(sums_2P)), unpack(sums_2P[0]))

    def context(self) -> Quadratic | None:
        return self.held

    @staticmethod
    def penalty(parameters: Mapping[str, Tensor], context: Quadratic, batch: Batch, scores: Tensor) -> Tensor:
        return quadratic(parameters, context)

    def end(self) -> None:
        if not self.options.renews(self.learner.task_ends):
            return
        parameters = list(self.parameters.values())
        if self.options.importance == "round":
            tasks = range(self.learner.task + 1)
            tensors = reference_code(self.learner, parameters, tasks, self.options.data, power=2)
        else:
            tensors = fisher(self.learner, parameters, self.options.micro_batch)
        importance = to_host(self.setup.layout.pack(dict(zip(self.parameters, tensors, strict=True))))
        if self.options.importance == "task" and "own" in self.sums:
            importance += self.sums["own"][0]
        self.sums["own"] = pulled(importance, self.theta())
        self.held = None

    def update(self) -> Message:
        if self.options.dispatch == "lists":
            sums = self.sums["own"][0]
        elif self.options.renews(self.learner.untold.ended_task):
            sums = self.sums["own"].view(1, -1)
        else:
            sums = torch.empty(0, 2 * self.setup.layout.scalars)
        return super().update() | {IMPORTANCE: sums}

    def state(self) -> State:
        return {"sums": self.sums}

    def restore(self, state: State) -> None:
        self.sums = state["sums"]


class Server(fedavg.Server):
    columns = ("theta", "sums")
    options: Options

    @staticmethod
    def by_columns(options: Any) -> bool:
        return options.dispatch == "sums"

    def __init__(self, setup: Setup, options: Options):
        super().__init__(setup, options)
        self.sums_K2P = setup.start.new_zeros(setup.clients, 2, setup.layout.scalars)
        """(Omega, Omega * phi*) as each client sent it last."""
        self.pending = PendingUpdates(setup.clients)
        self.starts: dict[int, Tensor] = {}
        """With lists: the weights that a client was sent and has not answered yet, [P]; who is not there has the start model's."""

    def knowledge(self, online: list[int]) -> Rows:
        if self.options.dispatch == "lists":
            return super().knowledge(online) | {IMPORTANCE: self.sums_K2P.view(-1)}
        sums = self.of_others([client for client in online if self.pending.take(client)])
        nothing = torch.empty(0, 2 * self.setup.layout.scalars)
        return super().knowledge(online) | {IMPORTANCE: [sums.get(client, nothing) for client in online]}

    def of_others(self, clients: list[int]) -> dict[int, Tensor]:
        """(S, U) over the other clients of each of these, as one item [1, 2P]: all clients' less its own.

        In float64, so that a large importance leaves what is added to it and taken off again its digits.
        """
        if not clients:
            return {}
        total_2P = torch.zeros(2, self.setup.layout.scalars, dtype=torch.float64)
        for sums_2P in self.sums_K2P:
            total_2P += sums_2P
        return {client: (total_2P - self.sums_K2P[client]).float().view(1, -1) for client in clients}

    def sent(self, online: list[int], knowledge: Rows) -> None:
        if self.options.dispatch == "lists":
            rows = knowledge[WEIGHTS]
            same = isinstance(rows, Tensor) and rows.dim() == 1
            self.starts |= zip(online, [rows] * len(online) if same else rows, strict=True)

    def collect(self, online: list[int], updates: Rows) -> None:
        for row, client in enumerate(online):
            sums = updates[IMPORTANCE][row]
            if self.options.dispatch == "lists":
                sums = pulled(sums, self.starts.pop(client, self.setup.start) + updates[WEIGHTS][row])
            if len(sums):
                self.sums_K2P[client] = sums.view(2, -1)
                self.pending.mark(client)
        super().collect(online, updates)

    def state(self) -> State:
        starts = {str(client): start_P.clone() for client, start_P in self.starts.items()}  # many can be one
        return super().state() | {"sums": self.sums_K2P, "waiting": sorted(self.pending.waiting), "starts": starts}

    def restore(self, state: State, theta_of: Callable[[int], Tensor]) -> None:
        super().restore(state, theta_of)
        self.sums_K2P = state["sums"]
        self.pending.waiting = set(state["waiting"])
        self.starts = {int(client): start_P for client, start_P in state["starts"].items()}


def pulled(importance: Tensor, weights: Tensor) -> Tensor:
    """(Omega, Omega * phi), [2, P]: what can be added up over tasks and clients."""
    return torch.stack([importance, importance * weights])


def centre(sums_2P: Tensor) -> Tensor:
    """Where the sum of all Omega_j (phi - phi_j)^2 is smallest, U / S, [P]; 0 where nothing holds a weight (S = 0)."""
    importance, pull = sums_2P
    return torch.where(importance > 0, pull / importance, 0.0)
