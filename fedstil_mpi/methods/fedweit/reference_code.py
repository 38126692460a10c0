"""FedWeIT's client as FedSTIL's reference code has it, for comparison."""

import torch

from fedstil_mpi.comm.flat import Message, to_host
from fedstil_mpi.methods.federated import WEIGHTS
from fedstil_mpi.methods.fedweit.bank import ADAPTIVE
from fedstil_mpi.methods.fedweit.method import Client
from fedstil_mpi.models.masked import ReferenceCodeMasked


class ReferenceCodeClient(Client):
    """The base is frozen, and every round starts from theta = base: only the mask outlives it.

    There is no drift penalty: the reference code compares the model with itself.
    """

    kind = ReferenceCodeMasked

    def absorb(self, knowledge: Message) -> None:
        super().absorb(knowledge)
        if "knowledge" in knowledge:
            self.bank = knowledge["knowledge"].view(-1, self.setup.layout.scalars).clone()
        self.restart()

    def decompose(self) -> None:
        super().decompose()
        for base in self.parameters.values():
            base.requires_grad_(False)

    def begin(self) -> None:
        """A new task begins like any other round."""

    @torch.no_grad()
    def end(self) -> None:
        """A finished task keeps its model whole, base included."""
        if self.learner.task_ends:
            self.past.keep(self.learner.task, self.learner.tail, {}, self.weights())

    @torch.no_grad()
    def update(self) -> Message:
        moved = to_host(self.setup.layout.pack(self.weights())) - self.start
        samples = torch.tensor([self.learner.untold.samples])
        return {WEIGHTS: moved, ADAPTIVE: self.adaptive(prune=False), "samples": samples}

    def weights(self) -> dict[str, torch.Tensor]:
        """Theta of each layer, not pruned."""
        return {name: part.theta(self.parameters[name], prune=False) for name, part in self.parts.items()}
