"""results.h5: what a run has found, for the report and for other programs."""

import json
from pathlib import Path

import h5py
import numpy as np

from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.results.writing.record import MODELS, Record
from fedstil_mpi.util import hdf5
from fedstil_mpi.util.files import storing, write


def write_results(path: Path, record: Record, timings: list[dict[str, float]], fingerprints: list[str]) -> None:
    """Write an HDF5 file with a checksum, which is there only when it is complete. Raises StorageError.

    timings: per rank, seconds by activity; fingerprints: per client, of its last model. The ledger is a table with the
    columns round, client, direction, kind, raw, encoded; of the seconds each activity is one, nan where a rank has none.
    """

    def fill(file: h5py.File) -> None:
        file.attrs["metrics"] = METRICS
        file.attrs["events"] = json.dumps(record.events)
        for model in (model for model in MODELS if record.metrics[model]):
            group = file.create_group(model)
            rounds = sorted(record.metrics[model])
            group["rounds"] = np.array(rounds)
            group["metrics"] = np.stack([record.metrics[model][r] for r in rounds])
            for metric in METRICS:
                group[f"accuracy_matrix/{metric}"] = record.accuracy_matrices(model, metric)
            for name, values in record.final(model).items():
                group[f"final/{name}"] = values
        file["training/rounds"] = np.array(sorted(record.reports))
        file["training/reports"] = np.stack([record.reports[r] for r in sorted(record.reports)])
        file["training/reports"].attrs["columns"] = ("loss", "accuracy", "images")
        efforts = record.schedule.efforts()
        file["participation/online"] = ~np.isnan(efforts)
        file["participation/effort"] = efforts
        if record.relevances:
            file["relevance/rounds"] = np.array(sorted(record.relevances))
            file["relevance/matrices"] = np.stack([record.relevances[r] for r in sorted(record.relevances)])
        text = h5py.string_dtype()
        file["final/fingerprints"] = np.array(fingerprints, dtype=text)
        kinds = [("round", "i8"), ("client", "i8"), ("direction", text), ("kind", text)]
        kinds += [("raw", "i8"), ("encoded", "i8")]
        file["ledger"] = np.array([tuple(e) for e in record.ledger.entries], dtype=kinds)
        for activity in sorted(set().union(*timings)):
            file[f"seconds/{activity}"] = [of_rank.get(activity, np.nan) for of_rank in timings]

    with storing(path):
        write(path, hdf5.made(fill))
