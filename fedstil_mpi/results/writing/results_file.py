"""results.h5: what a run has found, for the report and for other programs. Its layout: docs/results.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.results.writing.mixing_rows import LEVEL
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.util import hdf5
from fedstil_mpi.util.files import storing, write

REPORTS = ("loss", "accuracy", "images")
"""Of a client's local training in a round."""
NO_COORDINATE = "This is a netCDF dimension but not a netCDF variable."
"""The name of a scale that only names an axis, and has no values."""


def write_results(path: Path, record: Record, timings: list[dict[str, float]], fingerprints: list[str]) -> None:
    """Write an HDF5 file with a checksum, which is there only when it is complete. Raises StorageError.

    timings: per rank, seconds by activity; fingerprints: per client, of its last model.
    """

    def fill(file: h5py.File) -> None:
        file.attrs["metrics"] = METRICS
        file.attrs["events"] = json.dumps(record.events)
        add_coordinates(file, record)
        for model in (model for model, of_rounds in record.metrics.items() if of_rounds):
            add_model(file.create_group(model), record, model)
        add_rounds(file.create_group("training"), record.reports)
        reports = file["training"].create_dataset("reports", data=_stacked(record.reports))
        reports.attrs["columns"] = REPORTS
        label(reports, "", "training/rounds", "client", "report")
        efforts = record.schedule.efforts()
        add_rounds(file.create_group("participation"), range(1, len(efforts) + 1))
        for name, values in (("online", ~np.isnan(efforts)), ("effort", efforts)):
            file["participation"][name] = values
            label(file["participation"][name], "1", "participation/rounds", "client")
        if record.relevances:
            add_relevance(file.create_group("relevance"), record)
        file["final/fingerprints"] = text(fingerprints)
        label(file["final/fingerprints"], "", "client")
        file["ledger"] = ledger(record)
        file.create_dataset("entry", len(file["ledger"]), "i1").make_scale(NO_COORDINATE)
        label(file["ledger"], "bytes", "entry")
        file["seconds/rank"] = np.arange(len(timings))
        file["seconds/rank"].make_scale("rank")
        for activity in sorted(set().union(*timings)):
            file[f"seconds/{activity}"] = [of_rank.get(activity, np.nan) for of_rank in timings]
            label(file[f"seconds/{activity}"], "s", "seconds/rank")

    with storing(path):
        write(path, hdf5.made(fill))


def add_coordinates(file: h5py.File, record: Record) -> None:
    """The axes that several data sets have, as dimension scales; of_client: whose weights a relevance weighs."""
    clients, tasks = np.arange(record.schedule.clients), np.arange(record.schedule.tasks)
    numbers = {"client": clients, "of_client": clients, "task": tasks, "stage": tasks}
    words = {"scope": record.scopes, "metric": METRICS, "report": REPORTS}
    for name, values in (numbers | {name: text(values) for name, values in words.items()}).items():
        file[name] = values
        file[name].make_scale(name)


def add_rounds(group: h5py.Group, rounds: Mapping[int, object] | Sequence[int]) -> None:
    """The rounds of a group's data sets, as their first axis."""
    group["rounds"] = np.array(sorted(rounds))
    group["rounds"].make_scale("rounds")


def add_model(group: h5py.Group, record: Record, model: str) -> None:
    """What one of the clients' models was worth: at every evaluation, at every stage, in the end."""
    add_rounds(group, record.metrics[model])
    group["metrics"] = _stacked(record.metrics[model])
    label(group["metrics"], "1", f"{model}/rounds", "client", "scope", "task", "metric")
    for metric in METRICS:
        group[f"accuracy_matrix/{metric}"] = record.accuracy_matrices(model, metric)
        label(group[f"accuracy_matrix/{metric}"], "1", "client", "scope", "stage", "task")
    for name, values in record.final(model).items():
        group[f"final/{name}"] = values
        label(group[f"final/{name}"], "%", "client", "scope")


def add_relevance(group: h5py.Group, record: Record) -> None:
    """How what clients were sent was mixed; only rows of those who were take space, the others read as not a number."""
    clients, rounds = record.schedule.clients, sorted(record.relevances)
    add_rounds(group, rounds)
    shape, row = (len(rounds), clients, clients), (1, 1, clients)
    matrices = group.create_dataset("matrices", shape, np.float32, chunks=row, fillvalue=np.nan, compression=LEVEL)
    for place, round in enumerate(rounds):
        for receiver, packed in record.relevances[round].items():
            matrices.id.write_direct_chunk((place, receiver, 0), packed)
    label(matrices, "1", "relevance/rounds", "client", "of_client")


def label(dataset: h5py.Dataset, units: str, *axes: str) -> None:
    """Say what a data set's numbers are counted in, and which scales its axes have. units: 1 for a fraction; "" for none."""
    if units:
        dataset.attrs["units"] = units
    for dimension, axis in zip(dataset.dims, axes, strict=True):
        dimension.attach_scale(dataset.file[axis])
        dimension.label = axis.rpartition("/")[2]


def ledger(record: Record) -> np.ndarray:
    """A table with the columns round, client, direction, kind, raw, encoded."""
    entries = record.ledger.entries
    kinds = {kind: kind.encode() for kind in {entry.kind for entry in entries}}
    columns = [("round", "i8"), ("client", "i8"), ("direction", "S3"), ("kind", text(list(kinds)).dtype)]
    rows = [(e.round, e.client, e.direction, kinds[e.kind], e.raw, e.encoded) for e in entries]
    return np.array(rows, dtype=[*columns, ("raw", "i8"), ("encoded", "i8")])


def text(words: Sequence[str]) -> np.ndarray:
    """UTF-8 of one length, as every HDF5 program reads it: of two bytes or more, for netCDF takes single ones for letters."""
    encoded = [word.encode() for word in words]
    return np.array(encoded, dtype=f"S{max([2, *map(len, encoded)])}")


def _stacked(by_round: Mapping[int, np.ndarray]) -> np.ndarray:
    return np.stack([by_round[round] for round in sorted(by_round)])
