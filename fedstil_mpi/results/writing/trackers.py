"""Programs that draw how runs go, and compare them: what `tracking` names. On rank 0."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import storing, write_text


class Tracker(Protocol):
    def note(self, round: int, values: Mapping[str, float]) -> None:
        """Take up what is known of a round, by name.

        A tracker is given all rounds from the first on, also by a run that goes on; it has each once in the end.
        """

    def close(self) -> None:
        """Nothing follows in this process."""


class TensorBoard:
    """Event files in `tensorboard/` of the run folder; those of an earlier attempt make room for the same rounds again."""

    def __init__(self, folder: Path):
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def note(self, round: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, round)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """A run in MLflow's experiment `fedstil_mpi`, wherever MLFLOW_TRACKING_URI says.

    `mlflow-run` of the run folder names it.
    """

    def __init__(self, folder: Path):
        from mlflow import MlflowClient

        self._client, kept = MlflowClient(), folder / "mlflow-run"
        if not kept.exists():
            found = self._client.get_experiment_by_name("fedstil_mpi")
            experiment = found.experiment_id if found else self._client.create_experiment("fedstil_mpi")
            with storing(kept):
                write_text(kept, self._client.create_run(experiment, run_name=folder.name).info.run_id)
        self._run = kept.read_text()
        self._newest = cache(self._newest_of)

    def note(self, round: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if round > self._newest(name):
                self._client.log_metric(self._run, name, value, step=round)

    def close(self) -> None:
        self._client.set_terminated(self._run)

    def _newest_of(self, name: str) -> int:
        """The last round that an earlier attempt has noted of this."""
        return max((found.step for found in self._client.get_metric_history(self._run, name)), default=0)


KINDS: dict[str, Callable[[Path], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
"""By the name of the package that each needs, which is an optional extra of the same name."""


def check_installed(names: Sequence[str]) -> None:
    """Raise InputError where the package of one of them is missing."""
    for name in names:
        if find_spec(name) is None:
            raise InputError(
                f"tracking has {name}, which is not installed; pip install 'fedstil-mpi[{name}]', or leave it out"
            )


def open_trackers(names: Sequence[str], folder: Path) -> dict[str, Tracker]:
    """By name. Raises InputError where one cannot begin, as where its server does not answer; StorageError."""
    opened = {}
    for name in names:
        try:
            opened[name] = KINDS[name](folder)
        except InputError:
            raise
        except Exception as error:  # whatever the package raises
            raise InputError(f"tracking by {name} cannot begin ({error}); correct it, or leave it out") from None
    return opened
