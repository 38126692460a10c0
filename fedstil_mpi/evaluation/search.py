"""Where the queries of a client are searched: in their task's gallery, in all of the client's, or in those of all clients.

These are the galleries `task`, `client` and `all` of `evaluation.gallery`. A client's joined gallery has an image once, even
where several of its tasks have it. The joined gallery of all clients has it once for each client, as each extracts
features with a model of its own. Where tasks have models of their own, a query's describes all images of its client, lest
the features tell the task of an image; what other clients have is described by its tasks' models.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.client.comparison import Comparison
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.config.sections import Evaluation
from fedstil_mpi.evaluation import retrieval
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.evaluation.scopes import Scopes
from fedstil_mpi.models.network import Tail

TailFor = Callable[[int], Tail]
"""The model that a task is searched with; it need be valid only until the next call."""


class Gallery(NamedTuple):
    """Images as features."""

    features: Tensor
    """float32 [n, F]."""
    labels: np.ndarray
    """int64 [n, 2]: person and camera."""


class Everywhere(NamedTuple):
    """The joined gallery of all clients."""

    gallery: Gallery
    owners: np.ndarray
    """Whose each image is, int64 [n]."""

    def but(self, client: int) -> Gallery:
        """What the others have."""
        rows = np.flatnonzero(self.owners != client)
        return Gallery(self.gallery.features[rows], self.gallery.labels[rows])


def score(query: Gallery, gallery: Gallery, how: Evaluation) -> Sequence[float]:
    """METRICS of `retrieval.evaluate` for queries in a gallery, as a config says; nan where there are no queries. Where there is
    nothing to search none is counted, and the others are nan."""
    if not len(query.labels) or not len(gallery.labels):
        return [*[np.nan] * (len(METRICS) - 1), 0.0 if len(query.labels) else np.nan]
    (pids, cameras), (gallery_pids, gallery_cameras) = query.labels.T, gallery.labels.T
    result = retrieval.evaluate(
        query.features, pids, gallery.features, gallery_pids, cameras, gallery_cameras, how.protocol, how.rerank
    )
    return [*(result.rank(k) for k in (1, 3, 5, 10)), result.map, result.counted]


class Search:
    """A client's queries, and what they are searched in: as features, each of which is extracted once for all scopes."""

    def __init__(self, learner: Learner, tail_for: TailFor | None = None):
        """tail_for: the model that each task is searched with; None: the client's newest for all."""
        self.learner = learner
        self.by_task = tail_for is not None
        self._tail_for = tail_for or (lambda task: learner.tail)
        self._galleries: dict[int, Gallery] = {}

    def evaluate(self, scopes: Scopes, everywhere: Everywhere | None) -> np.ndarray:
        """Retrieval metrics, float64 [scopes, tasks, len(METRICS)]; nan for tasks that are not evaluated, or have no queries.

        everywhere: what `gather` returned, needed for the gallery all.
        """
        metrics = np.full((len(scopes.names), len(self.learner.tasks), len(METRICS)), np.nan)
        for task in self.learner.searched:
            tail = self._tail_for(task)
            query = self._extract(task, "query", tail)
            own = cache(partial(self._own, task, tail)) if self.by_task else lambda: self.joined
            galleries = [self._gallery(where, task, tail, own, everywhere) for where in scopes.galleries]
            metrics[:, task] = self._find(scopes, task, query, galleries)
        return metrics

    def _find(self, scopes: Scopes, task: int, query: Gallery, galleries: Sequence[Gallery]) -> np.ndarray:
        """The metrics of a task's queries, [scopes, METRICS]. galleries: those of the scopes."""
        how = self.learner.experiment.evaluation
        asked = [Gallery(query.features[rows], query.labels[rows]) for rows in scopes.queries(query.labels[:, 0])]
        return np.array([score(of_whom, gallery, how) for of_whom in asked for gallery in galleries])

    def _gallery(
        self, where: str, task: int, tail: Tail, own: Callable[[], Gallery], everywhere: Everywhere | None
    ) -> Gallery:
        """What a task's queries are searched in. tail: of the task; own: as `_own`; everywhere: as `evaluate` takes it."""
        if where == "task":
            return self._of(task, tail)
        if where == "client":
            return own()
        assert everywhere is not None
        if not self.by_task:
            return everywhere.gallery
        return _join([own(), everywhere.but(self.learner.client)], self.learner.feature_length, self.learner.device)

    def _own(self, task: int, tail: Tail) -> Gallery:
        """The client's galleries as the model of a query's task, `tail`, describes them, where tasks have models of their own."""
        return self._join(
            self._of(task, tail) if at == task else self._extract(at, "gallery", tail) for at in self.learner.searched
        )

    @cached_property
    def joined(self) -> Gallery:
        """The galleries of all tasks of the client that are evaluated, each described by its task's own model."""
        return self._join(self._of(task, self._tail_for(task)) for task in self.learner.searched)

    def _join(self, galleries: Iterable[Gallery]) -> Gallery:
        """Without images that an earlier one has. galleries: of the tasks that are evaluated."""
        parts = []
        for gallery, shown in zip(galleries, self.learner.views.shown, strict=False):
            features = gallery.features[torch.from_numpy(shown).to(self.learner.device)]
            parts.append(Gallery(features, gallery.labels[shown]))
        return _join(parts, self.learner.feature_length, self.learner.device)

    def _of(self, task: int, tail: Tail) -> Gallery:
        """A task's gallery as its own model, `tail`, describes it."""
        if task not in self._galleries:
            self._galleries[task] = self._extract(task, "gallery", tail)
        return self._galleries[task]

    def _extract(self, task: int, split: str, tail: Tail) -> Gallery:
        labels = getattr(self.learner.tasks[task], split).labels
        return Gallery(self.learner.extract_features(task, split, tail, self._comparison), labels)

    @cached_property
    def _comparison(self) -> Comparison:
        """Made by what is searched first, and not at all where nothing is."""
        return self.learner.comparison()


def gather(share: Callable[[np.ndarray], np.ndarray], own: Mapping[int, Gallery], length: int) -> Everywhere:
    """The galleries of all ranks' clients, joined in client order; valid on every rank. Collective: all ranks must call.

    share: rows of each rank -> rows of all ranks, on every rank (`Exchange.share`). own: the galleries of this rank's
    clients. length: F. The ledger does not book it: it serves measurement, a camera would not send it.
    """
    galleries = list(own.values())
    mine = _join(galleries, length, torch.device("cpu"))
    owners = np.repeat(np.array(list(own), np.int64), [len(gallery.labels) for gallery in galleries])
    features, labels, owners = share(mine.features.numpy()), share(mine.labels), share(owners)
    if (np.diff(owners) < 0).any():  # ranks need not have their clients in this order
        order = np.argsort(owners, kind="stable")
        features, labels, owners = features[order], labels[order], owners[order]
    joined = torch.from_numpy(features)
    return Everywhere(Gallery(joined.to(galleries[0].features.device if galleries else joined.device), labels), owners)


def _join(parts: Sequence[Gallery], length: int, device: torch.device) -> Gallery:
    """All rows, part by part, on the device."""
    if not parts:
        return Gallery(torch.empty(0, length, device=device), np.empty((0, 2), np.int64))
    return Gallery(torch.cat([part.features.to(device) for part in parts]), np.concatenate([p.labels for p in parts]))
