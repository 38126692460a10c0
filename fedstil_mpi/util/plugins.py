"""Plug-ins: a Python file or module of the user's own, named in a config where a built-in name could stand.

    mine.py, path/to/mine.py    a file, relative to the folder in which the command is started
    my_package.mine             a module, found as `import` finds it

Only what is named is executed, and what it imports. A file's folder is not searched for the modules that it imports: a
plug-in of several files is a package, installed or found through PYTHONPATH.
"""

import importlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import expanded, regular_file
from fedstil_mpi.util.text import one_line

MOST_BYTES = 10_000_000
"""Of a plug-in's file."""


def is_plugin(name: str) -> bool:
    """Whether a name means a file or a module: built-in names have no dots, and timm's begin with `timm:`."""
    return "." in name and ":" not in name


def label(name: str) -> str:
    """What a method, a reader or a backbone is called in tables: the file's or the module's last name."""
    if not is_plugin(name):
        return name
    return Path(name).stem if name.endswith(".py") else name.rpartition(".")[2]


def absolute(name: str) -> str:
    """The name that means the same plug-in in any folder; other names stay as they are."""
    return os.path.abspath(expanded(name)) if is_plugin(name) and name.endswith(".py") else name


def check(key: str, name: str) -> None:
    """Raise InputError where there is no such file or module; nothing of it is executed. key: where it was named."""
    if name.endswith(".py"):
        regular_file(name, f"{key} =", MOST_BYTES, "give the path of a Python file")
        return
    folders: list[str] | None = None
    for depth, part in enumerate(name.split("."), 1):
        # The parents' own code is not run, as importlib.util.find_spec would.
        spec = PathFinder.find_spec(part, folders)
        if spec is None or (spec.submodule_search_locations is None and depth <= name.count(".")):
            raise InputError(
                f"{key} = {name}: there is no such module; give a .py file, or add its folder to PYTHONPATH"
            )
        folders = list(spec.submodule_search_locations or ())


def load(key: str, name: str, needs: Iterable[str] = (), *, early: bool = False) -> ModuleType:
    """Import a plug-in, once a process.

    needs: what it has to define. early: torch may not be imported yet, as the rank has no GPU and no threads so far.
    Raises InputError where it is missing, is no Python, fails on import or lacks something.
    """
    check(key, name)
    torch_was_there = "torch" in sys.modules
    try:
        module = _execute(Path(name).resolve()) if name.endswith(".py") else importlib.import_module(name)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"{key} = {name} is no Python: {one_line(error)}; correct the file") from None
    except (Exception, SystemExit) as error:
        kind = type(error).__name__
        raise InputError(f"{key} = {name} fails on import with {kind}: {one_line(error)}; correct it") from error
    if early and not torch_was_there and "torch" in sys.modules:
        raise InputError(
            f"{key} = {name} imports torch at its top, before the ranks have their GPUs; import it inside functions"
        )
    if lacking := [need for need in needs if not hasattr(module, need)]:
        raise InputError(f"{key} = {name} lacks {', '.join(lacking)}; expected a module with {', '.join(needs)}")
    return module


def _execute(path: Path) -> ModuleType:
    """The module of a file. It has a name of its own, so that two files of one name do not clash."""
    name = f"{path.stem}_{zlib.crc32(os.fsencode(path)):08x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
