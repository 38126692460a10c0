"""What docs/architecture.md names is there, and its drawing has the rooms in the order of the contracts."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fedstil_mpi"
TEXT = (ROOT / "docs" / "architecture.md").read_text()
FILES = re.findall(r"([\w/]+\.py)(?:, (\w+))?", TEXT)
"""Each path, and the function that stands behind it, if one does."""
NAMES = sorted(set(re.findall(r"`(\w+(?:\.\w+)+)`", TEXT)) - {"pyproject.toml"})
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]


@pytest.mark.parametrize(("path", "function"), FILES)
def test_files_are_there(path, function):
    assert not function or f"def {function}(" in (PACKAGE / path).read_text()
    assert (PACKAGE / path).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_names_are_there(name):
    module, _, member = name.rpartition(".")
    assert hasattr(importlib.import_module(f"fedstil_mpi.{module}"), member)


def test_the_rooms_are_drawn_as_the_contract_has_them():
    drawn = iter(re.findall(r"(?<=  )\w+(?=  )", TEXT[: TEXT.index("## An image")]))
    for layer in LAYERS:
        rooms = set(layer.split(" | "))
        assert {next(drawn) for _ in rooms} == rooms
    assert next(drawn, None) is None


def test_something_is_named():
    assert len(FILES) >= 10
    assert len(NAMES) >= 12
