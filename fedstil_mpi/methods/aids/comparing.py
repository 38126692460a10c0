"""Comparing across cameras: an aid by which what is searched is compared so that a change of camera matters less.

A client has sent a prototype of each of its people, and has got those of the same people from other cameras. Their
differences, by the model that is searched, tell how its layers see other cameras' pictures (`client.elsewhere`), and which directions
of its features show the camera (`client.metric`). Nothing travels for it. As averaging over time it takes effect in what is searched after an exchange.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch

from fedstil_mpi.client import elsewhere
from fedstil_mpi.client.comparison import BY_COSINE, Comparison
from fedstil_mpi.client.metric import Metric, differences
from fedstil_mpi.client.rehearsal import Samples
from fedstil_mpi.comm.flat import Message
from fedstil_mpi.methods.aids import ServingAid
from fedstil_mpi.methods.aids.prototypes import PEOPLE, PrototypeClient
from fedstil_mpi.models.network import is_finite
from fedstil_mpi.util.state_tree import State

SHRINKAGE = 1.0
"""Of the metric: a direction along which cameras differ as along the average one is damped to 1 / sqrt(2)."""


class ComparingClient(ServingAid):
    """A client with prototypes that keeps those that it sends. Its tasks are searched with one model."""

    def __init__(self, inner: PrototypeClient):
        super().__init__(inner)
        self.pids = torch.empty(0, dtype=torch.int64)
        """Whom it has sent prototypes of, int64 [n] on the CPU."""
        self.prototypes = torch.empty(0, self.setup.representation)
        """[n, D] on the CPU."""

    def update(self) -> Message:
        message = self.inner.update()
        self.pids = torch.cat([self.pids, message[PEOPLE.kind][:, 0]])
        self.prototypes = torch.cat([self.prototypes, message["prototypes"]])
        return message

    @contextmanager
    def serving(self) -> Iterator[None]:
        with self.inner.serving():
            before = self.learner.comparison
            if self.arrived:
                self.learner.comparison = self.comparison
            try:
                yield
            finally:
                self.learner.comparison = before

    @torch.no_grad()
    def comparison(self) -> Comparison:
        """By the learner's tail as it is; by the cosine where no person is known from elsewhere, or the model has diverged."""
        learner, options = self.learner, self.learner.experiment.prototypes
        here = torch.isin(self.pids, torch.cat([self.pids[:0], *(part.pids.cpu() for part in learner.relayed)]))
        if not here.any():
            return BY_COSINE
        there = Samples.concatenate(learner.relayed)
        learner.forward_counts["search"] += int(here.sum()) + len(there)
        if learner.counts_only:
            return BY_COSINE
        tail, shape = learner.tail.eval(), there.representations.shape[1:]
        own = self.prototypes[here].to(learner.device).view(-1, *shape)
        pids = self.pids[here].to(learner.device)
        cameras = (learner.tasks[task].train.cameras.tolist() for task in range(learner.task + 1))
        own_cameras = frozenset(camera for camera in chain.from_iterable(cameras) if camera >= 0)
        share = options.norms if own_cameras else 0  # nobody can tell then what is from elsewhere
        norms, own_features, their_features = elsewhere.fit(tail, own, there.representations, share)
        found = differences(own_features, pids, their_features, there.pids)
        if not is_finite([found]):
            return BY_COSINE
        metric = Metric.across_cameras(found, SHRINKAGE) if options.metric else None
        return Comparison(metric, norms, own_cameras)

    def state(self) -> State:
        return {"inner": self.inner.state(), "pids": self.pids, "prototypes": self.prototypes}

    def restore(self, state: State) -> None:
        self.inner.restore(state["inner"])
        self.pids, self.prototypes = state["pids"], state["prototypes"]
