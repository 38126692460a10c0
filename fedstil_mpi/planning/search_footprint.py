"""How much memory a rank needs to search its clients' queries."""

from collections.abc import Sequence

from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.evaluation import retrieval
from fedstil_mpi.planning.counting import CountingLearner

PAIR = 50
"""Bytes for a query and an image while they are sorted."""
RERANKING = 52
"""Bytes for two images that are re-ranked together: four numbers of eight bytes, five of four."""


def of_search(experiment: Experiment, feature: int, learners: Sequence[CountingLearner], global_gallery: int) -> int:
    """Bytes to search, on a rank; feature: of an image; global_gallery: its images, 0 without one.

    The features of each task's gallery, of one client or, to be sent, of all; of what they are joined to again; some of them
    once more, twice, in double precision; and of pairs of a query and an image, so many at a time, what says how near they
    are. With re-ranking all in double precision, and matrices of all of them by all of them.
    """
    own = [learner.images_searched_in for learner in learners]
    held = sum(own) if global_gallery else max(own)
    joined = global_gallery + max(own) * ("client" in experiment.evaluation.gallery)
    queries = max(len(task.query) for learner in learners for task in learner.tasks)
    rerank, largest = experiment.evaluation.rerank, max(joined, max(own))
    together = largest + queries if rerank else 0
    doubled = largest if rerank else min(largest, retrieval.BLOCK)
    pairs = min(largest * queries, max(retrieval.PAIRS, largest))
    return (held + joined + 4 * doubled) * feature + PAIR * pairs + RERANKING * together**2
