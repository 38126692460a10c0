"""What each program of bench/peers.py is given, and how it is measured: numpy and torch alone, for it runs in their environments, too."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Task(NamedTuple):
    features: Tensor
    """float32 [K, n, F]: n samples of each client."""
    labels: Tensor
    """int64 [K, n], below C."""
    drawn: np.ndarray
    """int64 [rounds, clients a round]."""
    start: Tensor
    """float32 [C, F]: the classifier that training starts from."""
    lr: float
    weight_decay: float
    marks: list[int]
    """The rounds, from 1, at whose beginning CPU time is read."""


@cache
def read(folder: str) -> Task:
    arrays = np.load(Path(folder, "task.npz"))
    tensors = {name: torch.from_numpy(arrays[name]) for name in ("features", "labels", "start")}
    return Task(drawn=arrays["drawn"], **tensors, **json.loads(Path(folder, "task.json").read_text()))


class Model(nn.Module):
    """Features [n, F] -> scores [n, C], behind a batch norm that only standardises."""

    def __init__(self, start: Tensor):
        super().__init__()
        classes, features = start.shape
        self.neck = nn.BatchNorm1d(features).requires_grad_(False)
        self.classifier = nn.Linear(features, classes, bias=False)
        self.classifier.weight.data.copy_(start)

    def forward(self, features: Tensor) -> Tensor:
        return self.classifier(self.neck(features))

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self(features), labels)


def learning(model: nn.Module) -> list[nn.Parameter]:
    """What is trained, and travels."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def optimiser(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in parameters if p.requires_grad], lr, weight_decay=weight_decay, fused=True)


def described(adam: torch.optim.Optimizer) -> str:
    group = adam.param_groups[0]
    return f"{type(adam).__name__}, lr {group['lr']}, weight decay {group['weight_decay']}, fused {group['fused']}"


def cpu_seconds(root: int) -> float:
    """CPU time, user's and system's, of this process, its descendants, and those of them that have ended and were waited for."""
    seconds, children = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        pid = int(file.parent.name)
        seconds[pid] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        children.setdefault(int(fields[1]), []).append(pid)

    def of(pid: int) -> float:
        return seconds[pid] + sum(map(of, children.get(pid, ())))

    return of(root)


class Meter:
    """CPU time at the beginning of some rounds, and the training loss of all."""

    def __init__(self, marks: Sequence[int]):
        self.at = set(marks)
        self.cpu: dict[int, float] = {}
        self.losses: list[float] = []
        """Mean over a round's clients, before they train."""

    def begin(self, round: int) -> None:
        if round in self.at:
            self.cpu[round] = cpu_seconds(os.getpid())

    def report(self, settings: Mapping[str, Any]) -> None:
        """Printed, for bench/peers.py to read. settings: as the program has resolved them."""
        print(json.dumps({"cpu": self.cpu, "losses": self.losses, "settings": settings}))
