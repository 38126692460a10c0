"""Runs that differ only in their seed are one variant; what a variant is called, and in what variants differ."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedstil_mpi.config.files import leaves
from fedstil_mpi.config.identity import NOT_DECIDING
from fedstil_mpi.results.reading.runs import Run
from fedstil_mpi.util import plugins
from fedstil_mpi.util.errors import InputError

NOT_COMPARED = ("seed", *NOT_DECIDING)
"""What may differ within a variant: which repetition a run is, and where and how it took place."""
SHARED = ("data", "model", "warmup", "rounds", "participation", "evaluation")
"""Sections in which variants must agree for their numbers to measure the same."""
NOT_SHARED = ("rounds.exchange_every",)
"""Keys of these sections that decide what a result costs, and not what it is measured on."""
KEYS_IN_LABEL = 3
ALWAYS = {
    "evaluation.gallery": '["task"]',
    "rounds.exchange_every": "1",
    "data.synthetic.neighbours": "ring",
    "data.synthetic.strangers": "0",
}
"""What runs did whose configs do not know the key yet."""


@dataclass(frozen=True)
class Variant:
    """One setting, run with one or more seeds."""

    label: str
    config: dict[str, str]
    """"section.key" -> value as text, without what is not compared."""
    runs: tuple[Run, ...]
    """In the order of their seeds."""

    @property
    def method(self) -> str:
        return plugins.label(self.config["method.name"])

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def task_aware(self) -> bool:
        """Whether each task is searched with a model of its own."""
        return any(model == "served_task_free" for model, _ in self.runs[0].evaluations)


def group(runs: Sequence[Run]) -> tuple[list[Variant], list[str]]:
    """The variants in the order in which they were found, and a note on each run that was left out.

    A variant is called what its runs' comparison calls it, else by its method and, if that is not `best`, its preset.
    Where several would be called the same, the values follow in which they differ, but for those of most of them.
    """
    configs = [_flat(run.config) for run in runs]
    labels: dict[Any, set[str]] = defaultdict(set)
    for run, config in zip(runs, configs, strict=True):
        if run.label is not None:
            labels[frozenset(config.items())].add(run.label)
    variants: dict[Any, Variant] = {}
    notes = []
    for run, config in zip(runs, configs, strict=True):
        setting = frozenset(config.items())
        known = labels[setting]
        label = run.label or (min(known) if len(known) == 1 else None)  # a run may end before it gets its label
        variant = variants.get((setting, label)) or Variant(label or _method(config), config, ())
        same = [other for other in variant.runs if other.seed == run.seed]
        if same:
            notes.append(f"{run.folder} repeats {same[0].folder} (same setting, same seed) and is left out")
        else:
            _check_shape(run, variant.runs[0] if variant.runs else run)
            in_order = sorted((*variant.runs, run), key=lambda run: run.seed)
            variants[setting, label] = replace(variant, runs=tuple(in_order))
    return _named(list(variants.values())), notes


def scopes(variants: Sequence[Variant]) -> list[str]:
    """Of any of their runs."""
    return list(dict.fromkeys(scope for variant in variants for run in variant.runs for scope in run.scopes))


def differences(variants: Sequence[Variant]) -> dict[str, dict[str, list[str]]]:
    """Key -> value -> labels, of every key with more than one value among the variants that have it."""
    values: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for variant in variants:
        for key, value in variant.config.items():
            values[key][value].append(variant.label)
    return {key: dict(of_key) for key, of_key in values.items() if len(of_key) > 1}


def warnings(variants: Sequence[Variant]) -> list[str]:
    """One line for each reason why the variants' numbers do not measure the same."""
    lines = [
        f"{key} is not the same: {listed(of_key)}" for key, of_key in differences(variants).items() if is_shared(key)
    ]
    seeds = defaultdict(list)
    for variant in variants:
        seeds[", ".join(map(str, variant.seeds))].append(variant.label)
    if len(seeds) > 1:
        lines.append(f"the seeds are not the same: {listed(seeds)}")
    return lines


def is_shared(key: str) -> bool:
    """Whether variants must agree in this key for their numbers to measure the same."""
    return key.partition(".")[0] in SHARED and key not in NOT_SHARED


def listed(labels: Mapping[str, Sequence[str]]) -> str:
    """value (label, label); value (label); the value of most labels, if there are many, comes last as "else value"."""
    most = max(labels, key=lambda value: len(labels[value]))
    rest = [f"{value} ({', '.join(of_value)})" for value, of_value in labels.items() if value != most]
    return "; ".join([*rest, f"else {most}" if len(labels[most]) > 2 else f"{most} ({', '.join(labels[most])})"])


def _flat(config: Mapping[str, Any]) -> dict[str, str]:
    found = dict(leaves(config))
    if isinstance(gallery := found.get("evaluation.gallery"), str):  # of an older version, which had one
        found["evaluation.gallery"] = [gallery]
    return ALWAYS | {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in found.items()
        if key.partition(".")[0] not in NOT_COMPARED
    }


def _method(config: Mapping[str, str]) -> str:
    preset = config.get("method.preset", "best")
    return plugins.label(config["method.name"]) + (f" {preset}" if preset != "best" else "")


def _named(variants: Sequence[Variant]) -> list[Variant]:
    """The variants with labels of which no two are equal."""
    count: Counter[str] = Counter()
    named = []
    for variant in variants:
        called_so = [other for other in variants if other.label == variant.label]
        values = [
            f"{key.rpartition('.')[2]}={variant.config[key]}"
            for key, holders in differences(called_so).items()
            if key in variant.config and 2 * len(holders[variant.config[key]]) <= len(called_so)
        ]
        more = [f"+{len(values) - KEYS_IN_LABEL} more"] if len(values) > KEYS_IN_LABEL else []
        label = " ".join([variant.label, *values[:KEYS_IN_LABEL], *more])
        count[label] += 1
        named.append(replace(variant, label=label if count[label] == 1 else f"{label} #{count[label]}"))
    return named


def _check_shape(run: Run, other: Run) -> None:
    """Raises InputError where two runs of one setting have not the same evaluations, clients and tasks."""
    mine, theirs = ({key: found.metrics.shape[:3] for key, found in of.evaluations.items()} for of in (run, other))
    if mine != theirs:
        raise InputError(
            f"{run.folder} and {other.folder} have equal configs but not equal shapes: found {mine} and {theirs} "
            "(evaluations, clients, tasks); expected runs of one stream, report on them one by one"
        )
