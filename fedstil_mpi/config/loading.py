"""YAML files, presets and overrides -> a checked Experiment.

A config file holds only what differs from the defaults of `config`; `extends:` names a file (or a list of files,
relative to the one that names them) to start from; `section.key=value` on the command line comes last. What a method's
preset sets lies under all of these: defaults < preset < files < command line.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fedstil_mpi.config.schema import Experiment, Method, check
from fedstil_mpi.util import plugins
from fedstil_mpi.util.errors import InputError, did_you_mean

PLUGINS = (("method", "name"), ("data", "kind"), ("model", "backbone"))
"""The keys, by section, whose value may be a plug-in."""

REPLACED = {
    "train.rate=reference": "train.rate=reference_code",
    "evaluation.protocol=reference": "evaluation.protocol=reference_code",
    "method.preset=reference": "method.preset=reference_code",
    "method.relevance=reference": "method.relevance=reference_code",
    "method.decomposition=published": "method.decomposition=reference_code",
    "method.mode=published": "method.mode=paper",
    "method.mode=reference": "method.mode=reference_code",
}
"""A key, or key=value, that was taken once -> what is written in its place now, both with their sections."""


def read(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """The file's keys, with what it extends below them and `section.key=value` overrides above, not yet checked.

    The result is plain: `${...}` is filled in, from other keys of the files or from this process's environment. Paths of
    plug-ins, which are relative to the current folder, become absolute, so that a saved config means the same anywhere.
    Raises InputError where a file cannot be read, is no plain YAML mapping (tags that build objects are refused) or
    extends itself.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.merge(load(Path(path)), from_command_line(overrides or []))
        source: Any = OmegaConf.to_container(merged, resolve=True)
        json.dumps(source)  # how it will travel to the other ranks
    except (OmegaConfBaseException, TypeError) as error:
        raise InputError(f"config file {path} does not give plain sections and values: {_one_line(error)}") from None
    for section, key in PLUGINS:
        if isinstance(keys := source.get(section), dict) and isinstance(name := keys.get(key), str):
            keys[key] = plugins.absolute(name)
    return source


def load(path: Path, seen: tuple[Path, ...] = ()) -> Any:
    """A file's keys above those of the files it extends; `seen`: the files that led to it. Raises InputError."""
    from omegaconf import OmegaConf

    if path.resolve() in seen:
        raise InputError(f"{path} extends itself (via {' -> '.join(p.name for p in seen)}); remove one extends:")
    tree = parse(path, f" (which {seen[-1].name} extends)" if seen else "")
    parents = tree.pop("extends", None) or []
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise InputError(f"config file {path} extends {parents!r}; expected a file or a list of files")
    below = [load(path.parent / parent, (*seen, path.resolve())) for parent in parents]
    return OmegaConf.merge(*below, tree)


def parse(path: Path, reason: str = "") -> dict[Any, Any]:
    """One file's mapping; `reason` says why it is read, for the message where it cannot be. Raises InputError."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problem = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise InputError(f"config file {path}{reason} {problem}; give the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"config file {path} is not plain YAML: {error}") from None
    try:
        tree = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    # OSError: the file holds a mere number; RecursionError: brackets in brackets in brackets.
    except (yaml.YAMLError, OmegaConfBaseException, OSError, RecursionError) as error:
        raise InputError(f"config file {path} is not plain YAML: {_one_line(error)}") from None
    if not isinstance(tree, dict):
        raise InputError(f"config file {path} holds a {type(tree).__name__}, expected a mapping of sections")
    return tree


def from_command_line(arguments: list[str]) -> Any:
    """The keys of `section.key=value` arguments, as a config. Raises InputError."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if not equals or key in ("", "extends"):
            raise InputError(f"argument {argument!r} is no override; expected section.key=value")
    try:
        return OmegaConf.from_dotlist(arguments)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"cannot read the overrides {arguments}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("section.key", value) of a config, in its order."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def resolve(
    source: Mapping[str, Any], options: type | None = None, presets: Mapping[str, Mapping] | None = None
) -> Experiment:
    """The checked experiment from what `read` returned.

    Without `options` everything but the method's own keys is checked; this needs no torch, and is enough to place the
    ranks. With the method's Options class and its presets ({name: {"section.key": value}}) the result is complete.
    """
    from omegaconf import OmegaConf

    section = source.get("method") or {}
    if not isinstance(section, Mapping):
        raise InputError(f"method = {section!r}; expected a section: the method's name is method.name")
    section = dict(section)
    own_words = plugins.is_plugin(str(section.get("name", "")))  # a plug-in's presets and options are its own
    for key, value in leaves(source):
        for old in (key, f"{key}={value}"):
            if old in REPLACED and not (own_words and old.startswith("method.")):
                raise InputError(f"config key {old} is {REPLACED[old]} now")
    common = {key: section.pop(key) for key in ("name", "preset") if key in section}
    tree = OmegaConf.create({**source, "method": common})
    below = OmegaConf.create({})
    own = section
    preset: Mapping[str, Any] = {}
    if options is not None:
        preset = _preset(common.get("name", Method.name), common.get("preset", Method.preset), presets or {})
        for key, value in preset.items():
            if not key.startswith("method."):
                OmegaConf.update(below, key, value)
        own = {k.removeprefix("method."): v for k, v in preset.items() if k.startswith("method.")} | section
    experiment: Experiment = structured(Experiment, [below, tree], "")
    if options is not None:
        experiment.method.options = structured(options, [OmegaConf.create(own)], "method.")
    check(experiment)
    experiment.method.overridden = _overridden(experiment, preset)
    return experiment


def _overridden(experiment: Experiment, preset: Mapping[str, Any]) -> dict[str, str]:
    found = dict(leaves(json.loads(experiment.as_json())))
    return {
        key: f"{_written(found[key])} (preset: {_written(value)})"
        for key, value in preset.items()
        if found.get(key, value) != value
    }


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _preset(method: str, name: str, presets: Mapping[str, Mapping]) -> Mapping[str, Any]:
    if name not in presets:
        raise InputError(f"method {method} has no preset {name!r}; choose one of {', '.join(sorted(presets))}")
    return presets[name]


def structured(schema: type, layers: list[Any], prefix: str) -> Any:
    """Merge layers into a dataclass; unknown keys and wrong types become one-line InputErrors that begin with `prefix`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for layer in layers:
        _refuse_unknown(OmegaConf.to_container(layer), schema, prefix)
    try:
        return OmegaConf.to_object(OmegaConf.merge(_defaults(schema), *layers))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"config key {prefix}{error.full_key}: {reason}") from None


@cache
def _defaults(schema: type) -> Any:
    """A schema as OmegaConf has it, which takes most of the time of a merge, and which a merge copies."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(schema)


def _refuse_unknown(layer: Any, schema: type, prefix: str) -> None:
    known = {f.name: f.type for f in fields(schema)} | ({} if prefix else {"extends": None})
    for key, value in layer.items():
        if key not in known:
            hint = did_you_mean(key, known, prefix).strip() or f"known here: {', '.join(known)}"
            raise InputError(f"unknown config key {prefix}{key}; {hint}")
        section = known[key]
        if is_dataclass(section) and isinstance(section, type):
            if not isinstance(value, Mapping):
                inner = f"{prefix}{key}.{fields(section)[0].name}"
                raise InputError(f"config key {prefix}{key} = {value!r}; expected a section with keys such as {inner}")
            _refuse_unknown(value, section, f"{prefix}{key}.")
