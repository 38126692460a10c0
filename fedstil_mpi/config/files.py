"""Config files and the command line's overrides as plain mappings, not yet held against what keys there are.

A config file holds only what differs from the defaults; `extends:` names a file (or a list of files, relative to the one
that names them) to start from; `section.key=value` on the command line comes last.
"""

import io
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import expanded, regular_file
from fedstil_mpi.util.text import one_line

REFERENCE = re.compile(r"\$\{(\w+(?:\.\w+)*|oc\.env:[^${}]*)\}")
MOST_BYTES = 1_000_000
"""Of a config file."""
MOST_PARENTS = 100
"""Files that a file may extend."""
NO_DECIMAL = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+)")
"""Whole numbers of YAML 1.1 that hardly anybody means: 010 is 8 there, and 1:30 is 90."""
MOST_CHARACTERS = 100_000
"""Of what a reference stands for."""


def load(path: Path, seen: tuple[Path, ...] = (), loaded: dict[Path, Any] | None = None) -> Any:
    """A file's keys above those of the files it extends. Raises InputError.

    seen: the files that led to it. loaded: those that were loaded on the way, which are not loaded twice.
    """
    tree = parse(path, f"{seen[-1].name} extends it: " if seen else "")
    folder, path = expanded(path).parent, expanded(path).resolve()
    loaded = {} if loaded is None else loaded
    if path in seen:
        raise InputError(f"{path} extends itself (via {' -> '.join(p.name for p in seen)}); remove one extends:")
    if path not in loaded:
        parents = tree.pop("extends", None) or []
        parents = [parents] if isinstance(parents, str) else parents
        if not isinstance(parents, list) or not all(isinstance(p, str) for p in parents) or len(parents) > MOST_PARENTS:
            raise InputError(f"config file {path} extends {parents!r}; expected a file or a list of files")
        below = [load(folder / expanded(parent), (*seen, path), loaded) for parent in parents]
        loaded[path] = _merged(path, [*below, tree])
    return loaded[path]


def parse(path: Path, reason: str = "") -> dict[Any, Any]:
    """One file's mapping; `reason` stands before the remedy in the message where it cannot be read. Raises InputError."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    remedy = f"{reason}give the path of a YAML file"
    path = regular_file(path, "config file", MOST_BYTES, remedy)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"config file {path} cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"config file {path} is not plain YAML: {error}") from None
    try:
        tree = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    # OSError: the file is a mere number; RecursionError: brackets in brackets; ValueError: a number of 5,000 digits.
    except (yaml.YAMLError, OmegaConfBaseException, OSError, RecursionError, ValueError) as error:
        raise InputError(f"config file {path} is not plain YAML: {one_line(error)}") from None
    if not isinstance(tree, dict):
        raise InputError(f"config file {path} holds a {type(tree).__name__}, expected a mapping of sections")
    return tree


def as_argument(key: str, value: Any) -> str:
    """The `section.key=value` of which `from_command_line` makes this value again; what JSON does not know is written as text."""
    return f"{key}={json.dumps(value, ensure_ascii=False, default=str)}"


def from_command_line(arguments: list[str], texts: Collection[str] = ()) -> Any:
    """The keys of `section.key=value` arguments, as a config. Raises InputError.

    texts: keys whose value is a text as it is typed: 007 is no 7 there. Elsewhere such a number is refused.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if not equals or key == "extends" or not re.fullmatch(r"\w+(\.\w+)*", key):
            raise InputError(f"argument {argument!r} is no override; expected section.key=value")
    try:
        keys = OmegaConf.from_dotlist(arguments)
        typed = dict(argument.split("=", 1) for argument in arguments)
        tree: Any = OmegaConf.to_container(keys)
        for key, value in leaves(tree):
            if isinstance(value, int | float) and key in typed:
                if key in texts:
                    OmegaConf.update(keys, key, typed[key])
                elif NO_DECIMAL.fullmatch(typed[key]):
                    raise InputError(f"argument {key}={typed[key]}; expected a number without leading zeros or colons")
        refuse_missing(tree)  # a merge would leave what is below
        return keys
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError, ValueError) as error:
        raise InputError(f"cannot read the overrides {arguments}: {one_line(error)}") from None


def plain(path: str | Path, *layers: Any) -> dict[str, Any]:
    """What `load` gave, with the layers above, as mappings, lists, texts and numbers.

    `${section.key}` and `${oc.env:NAME}` are filled in, from other keys and from this process's environment. path: names it
    in messages. Raises InputError where that cannot be done, or a key has no value yet (`???`).
    """
    from omegaconf import OmegaConf

    config = _merged(path, layers)
    check_references(OmegaConf.to_container(config))
    with _refusing(path):
        source: Any = OmegaConf.to_container(config, resolve=True)
        json.dumps(source)  # how it will travel to the other ranks
    refuse_missing(source)
    return source


def refuse_missing(tree: Any) -> None:
    """Raise InputError where a key of a config has no value yet (`???`)."""
    for key, value in leaves(tree):
        if value == "???":
            raise InputError(f"config key {key} has no value yet (???); give it one")


def _merged(path: str | Path, layers: Sequence[Any]) -> Any:
    from omegaconf import OmegaConf

    with _refusing(path):
        return OmegaConf.merge(*layers)


@contextmanager
def _refusing(path: str | Path) -> Iterator[None]:
    """Raises InputError for what OmegaConf and JSON raise."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (OmegaConfBaseException, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"config file {path} does not give plain sections and values: {one_line(error)}") from None


def check_references(tree: Any) -> None:
    """Raise InputError where texts that are made of each other would grow without bound; tree: with `${...}` in it."""
    known: dict[str, int] = {}

    def size(value: Any) -> int:
        if isinstance(value, Mapping | list):
            return sum(map(size, value.values() if isinstance(value, Mapping) else value))
        references = REFERENCE.findall(value) if isinstance(value, str) else []
        if isinstance(value, str) and value.count("${") != len(references):
            raise InputError(f"config value {value!r}; expected ${{section.key}} or ${{oc.env:NAME}} in it, not nested")
        return len(str(value)) + sum(map(size_of, references))

    def size_of(key: str) -> int:
        if key not in known:
            known[key] = 0  # what refers to itself is refused when it is filled in
            value = tree
            for part in key.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            known[key] = size(value)
        if known[key] > MOST_CHARACTERS:
            raise InputError(
                f"config value ${{{key}}} comes to more than {MOST_CHARACTERS:,} characters; refer to less"
            )
        return known[key]

    size(tree)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("section.key", value) of a config, in its order."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
