"""What the reference code of FedSTIL and its baselines sends: its messages, counted on a network of ours.

Its own counts are for 8000 classes, images of 128 x 64 (Swin 224 x 224), stride 1 in the last stage and 5 clients. All
is dense: float32, 8 bytes for what is int64 (batch-norm counters, indices, the number of samples).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from torch import Tensor

from fedstil_mpi.models.network import (
    Network,
    adaptive_parameters,
    network_state,
    representation_shape,
    trainable_parameters,
)

BANK = 5
"""Adaptive weights in FedWeIT's knowledge base."""
ICARL_CLASSES = 10
"""Rows of the classifier that iCaRL puts in the place of the usual one before it has met any person."""
REFERENCE_SWIN = 33_916_131
"""Scalars of the reference code's network with Swin-T, which is not torchvision's."""


@dataclass(frozen=True)
class Payload:
    """How much travels: scalars, of which `wide` take 8 bytes and the others 4."""

    scalars: int = 0
    wide: int = 0

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> "Payload":
        sizes = [(tensor.numel(), tensor.dtype.itemsize == 8) for tensor in tensors]
        return cls(sum(size for size, _ in sizes), sum(size for size, wide in sizes if wide))

    @property
    def bytes(self) -> int:
        return 4 * (self.scalars + self.wide)

    def __add__(self, other: "Payload") -> "Payload":
        return Payload(self.scalars + other.scalars, self.wide + other.wide)

    def __rmul__(self, times: int) -> "Payload":
        return Payload(times * self.scalars, times * self.wide)


SAMPLES = Payload(1, 1)


@dataclass(frozen=True)
class Counts:
    """The groups of a network's tensors that the reference code's messages are made of."""

    full: Payload
    """Every parameter and buffer."""
    trained: Payload
    """The parameters that learn."""
    adaptive: Payload
    """The weights of the tail's convolutions and linear layers."""
    rest: Payload
    """What goes beside the adaptive layers at first contact: the tensors of all other modules without children."""
    backbone: Payload
    """All but neck and classifier."""
    neck: Payload
    feature: int
    """Length of a feature."""
    token: int
    """Length of a task token."""

    @classmethod
    def of(cls, network: Network, image_size: tuple[int, int]) -> "Counts":
        state, tail = network_state(network), network.tail
        adaptive = adaptive_parameters(tail)
        left_out = {f"tail.{name.removesuffix('.weight')}" for name in adaptive}
        modules = {"stem": network.stem, "tail": tail}
        leaves = {
            f"{part}.{name}"
            for part, whole in modules.items()
            for name, module in whole.named_modules()
            if not any(module.children())
        }
        rest = [t for name, t in state.items() if name.rpartition(".")[0] in leaves - left_out]
        backbone = [t for name, t in state.items() if not name.startswith(("tail.neck.", "tail.classifier."))]
        return cls(
            full=Payload.of(state.values()),
            trained=Payload.of(trainable_parameters(tail).values()),
            adaptive=Payload.of(adaptive.values()),
            rest=Payload.of(rest),
            backbone=Payload.of(backbone),
            neck=Payload.of(tail.neck.state_dict().values()),
            feature=tail.classifier.in_features,
            token=prod(representation_shape(network, image_size)),
        )


@dataclass(frozen=True)
class Messages:
    """What one client gets and sends."""

    first: Payload
    """Down, at first contact."""
    later: Payload = Payload()
    """Down, in a later round."""
    up: Payload = Payload()
    """Up, in every round."""

    def bytes_in(self, rounds: int) -> int:
        """Down and up together, over so many rounds from the first contact on."""
        return self.first.bytes + (rounds - 1) * self.later.bytes + rounds * self.up.bytes


def reference_messages(counts: Counts, clients: int) -> dict[str, Messages]:
    """Our name of a method -> what the reference code sends."""
    full, trained, adaptive = counts.full, counts.trained, counts.adaptive
    alone = Messages(full)
    averaging = Messages(full, trained, trained + SAMPLES)
    token = Payload(counts.token)
    knowledge_base = BANK * adaptive
    stil_up = adaptive + token + SAMPLES
    return {
        **dict.fromkeys(("single", "multi", "ewc", "mas"), alone),
        # The backbone is registered under two names, and so travels twice.
        "icarl": Messages(2 * counts.backbone + counts.neck + Payload(ICARL_CLASSES * counts.feature)),
        **dict.fromkeys(("fedavg", "fedprox"), averaging),
        "fedcurv": Messages(full, trained + 2 * clients * trained, 2 * trained + SAMPLES),
        "fedweit": Messages(adaptive + knowledge_base + counts.rest, adaptive + knowledge_base, 2 * adaptive + SAMPLES),
        "fedstil": Messages(adaptive + counts.rest, adaptive, stil_up),
        "fedstil_atten": Messages(adaptive + counts.rest, clients * adaptive, stil_up),
    }
