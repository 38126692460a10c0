"""Adam, fused: without temporaries as large as the model, which on a CPU cost as much time as all the arithmetic.

The arithmetic is torch's. Its class `torch.optim.Adam` would load torch's compiler first (models/compiler.py).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from fedstil_mpi.util.state_tree import State

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""Of a parameter: means of its gradients and of their squares, and how many gradients it has had."""


class Adam:
    """Steps of `torch.optim.Adam(parameters, lr, weight_decay=weight_decay, fused=True)`, to the bit."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float):
        self.parameters = list(parameters)
        self.lr = lr
        self.weight_decay = weight_decay
        self._moments: dict[int, list[Tensor]] = {}
        """Place of a parameter that has had a gradient -> its MOMENTS."""

    def clear(self) -> None:
        """Free the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have gradients, of which there is one at least."""
        rows = [
            (parameter, parameter.grad, *self._moments_of(place))
            for place, parameter in enumerate(self.parameters)
            if parameter.grad is not None
        ]
        learn, gradients, means, squares, steps = (list(column) for column in zip(*rows, strict=True))
        adam(
            *(learn, gradients, means, squares, [], steps),
            fused=True,
            amsgrad=False,
            maximize=False,
            lr=self.lr,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            weight_decay=self.weight_decay,
        )

    def _moments_of(self, place: int) -> list[Tensor]:
        if place not in self._moments:
            parameter = self.parameters[place]
            steps = torch.zeros((), device=parameter.device)
            self._moments[place] = [torch.zeros_like(parameter), torch.zeros_like(parameter), steps]
        return self._moments[place]

    def state(self) -> State:
        """Place -> its moments by name; the tensors themselves, which the next step changes."""
        return {str(place): dict(zip(MOMENTS, moments, strict=True)) for place, moments in self._moments.items()}

    def restore(self, state: State) -> None:
        """Go on from what `state` gave, on the parameters' device."""
        for place, moments in state.items():
            device = self.parameters[int(place)].device
            self._moments[int(place)] = [moments[name].to(device, copy=True) for name in MOMENTS]
