"""Variants held against a reference seed by seed, and what the differences allow to say."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from fedstil_mpi.evaluation.scopes import words
from fedstil_mpi.results.reading.measures import at_end, half_width, megabytes, spread
from fedstil_mpi.results.reading.variants import Variant, scopes
from fedstil_mpi.results.report.tables import Rows
from fedstil_mpi.util.tables import markdown

LEVEL = 0.5
"""Points within which two variants are as good as each other."""
FEW = 10
"""Of N(0, 1) the bootstrap's interval leaves out 0 in 28 of 100 cases with three points, in 15 with five, in 10 with ten."""


def section(variants: Sequence[Variant], reference: Variant) -> str:
    """Served rank-1 of the reference minus that of each other variant, by scope, over the seeds that both have."""
    rows = []
    for scope, variant in product(scopes(variants), variants):
        if variant is not reference:
            points = paired_points(variant, reference, scope)
            cells = ["–"] * 5
            if len(points):
                low, high = interval(points)
                between = "–" if np.isnan(low) else f"{low:+z.1f} to {high:+z.1f}"
                ends = f"{points.min():+z.1f}", f"{points.max():+z.1f}"
                cells = [f"{spread(points).mean:+z.1f}", between, *ends, verdict(low, high)]
            rows.append([variant.label, words(scope), str(len(points)), *cells])
    return (
        f"Served rank-1 of **{reference.label}** minus that of the variant, in points, seed by seed. Positive: "
        f"{reference.label} is better. It is *level* where the 95 % interval of the mean (bootstrap, BCa; "
        f"Student's t of fewer than {FEW} seeds) lies within ± {LEVEL}, else *ahead* or *behind* where it leaves out 0, else *undecided*. "
        "Every seed's accuracy: [by_seed.csv](by_seed.csv).\n\n"
        + markdown(["variant", "scope", "n", "mean", "95 % interval", "smallest", "largest", reference.label], rows, 2)
    )


def paired_points(variant: Variant, reference: Variant, scope: str | None = None) -> np.ndarray:
    """Reference minus variant for each seed that both have, in a scope as `Run.of` takes it. float64 [seeds]."""
    ours, theirs = ({run.seed: at_end(run, "served", "rank1", scope) for run in of.runs} for of in (reference, variant))
    points = np.array([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    return points[~np.isnan(points)]


def interval(points: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean, the same for equal points; nan for fewer than three.

    By bootstrap (BCa), or of fewer than FEW points, for which that is far too narrow, by Student's t.
    """
    if len(points) < 3:
        return np.nan, np.nan
    if np.ptp(points) == 0:
        return float(points[0]), float(points[0])
    if len(points) < FEW:
        mean, half = spread(points).mean, half_width(points)
        return mean - half, mean + half
    from scipy.stats import bootstrap  # takes a second, which only reports of several seeds need

    found = bootstrap((points,), np.mean, rng=np.random.default_rng(1)).confidence_interval
    return float(found.low), float(found.high)


def verdict(low: float, high: float) -> str:
    """What an interval of differences says of the reference."""
    if np.isnan(low):
        return "–"
    if low >= -LEVEL and high <= LEVEL:
        return "level"
    return "ahead" if low > 0 else "behind" if high < 0 else "undecided"


def by_seed(variants: Sequence[Variant]) -> Rows:
    """For a CSV file: a line for each run and scope."""
    return [
        {
            "variant": variant.label,
            "seed": run.seed,
            "scope": scope,
            "served_rank1": at_end(run, "served", "rank1", scope),
            "served_map": at_end(run, "served", "map", scope),
            "served_forgetting": at_end(run, "served", "forgetting", scope),
            "total_mb": megabytes(run),
        }
        for variant in variants
        for run in variant.runs
        for scope in run.scopes
    ]
