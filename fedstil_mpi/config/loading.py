"""YAML files, presets and overrides -> a checked Experiment.

What a method's preset sets lies under what files and the command line say: defaults < preset < files < command line.
"""

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from fedstil_mpi.config import files
from fedstil_mpi.config.files import leaves
from fedstil_mpi.config.schema import Experiment, Method, check
from fedstil_mpi.util import plugins
from fedstil_mpi.util.errors import InputError, did_you_mean
from fedstil_mpi.util.files import expanded

PLUGINS = (("method", "name"), ("data", "kind"), ("model", "backbone"))
"""The keys, by section, whose value may be a plug-in."""

PATHS = (("", "output"), ("data", "path"), ("model", "weights"))
"""The keys, by section, whose value is, or may be, a path."""
LISTS = ("tracking", "evaluation.gallery")
"""Keys whose value is a list of words; a single word may stand for itself."""
REPLACED = {
    "train.rate=reference": "train.rate=reference_code",
    "evaluation.protocol=reference": "evaluation.protocol=reference_code",
    "method.preset=reference": "method.preset=reference_code",
    "method.relevance=reference": "method.relevance=reference_code",
    "method.decomposition=published": "method.decomposition=reference_code",
    "method.mode=published": "method.mode=paper",
    "method.mode=reference": "method.mode=reference_code",
    "train.precision": "model.precision",
}
"""A key, or key=value, that was taken once -> what is written in its place now, both with their sections."""


def read(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """The file's keys, with what it extends below them and `section.key=value` overrides above, not yet checked.

    The result is plain; see `files.plain`. `~` is expanded in paths, and those of plug-ins, which are relative to the
    current folder, become absolute, so that a saved config means the same anywhere. Raises InputError where the files or
    the overrides cannot be used.
    """
    source = files.plain(path, files.load(Path(path)), files.from_command_line(overrides or [], texts(Experiment)))
    if {"base", "variants"} <= source.keys():
        raise InputError(f"{path} is a comparison, no single run; give it to python -m fedstil_mpi.compare")
    for section, key in (*PLUGINS, *PATHS):
        keys = source.get(section) if section else source
        if isinstance(keys, dict) and isinstance(value := keys.get(key), str):
            keys[key] = plugins.absolute(value) if (section, key) in PLUGINS else str(expanded(value))
    if isinstance(name := source.get("name"), str):
        source["name"] = unicodedata.normalize("NFC", name)  # one name, however it was typed
    return source


@cache
def texts(schema: type, prefix: str = "") -> frozenset[str]:
    """The keys of a schema whose value is a text, with their sections."""
    found: set[str] = set()
    for key, kind in get_type_hints(schema).items():
        if is_dataclass(kind) and isinstance(kind, type):
            found |= texts(kind, f"{prefix}{key}.")
        elif kind in (str, str | None):
            found.add(f"{prefix}{key}")
    return frozenset(found)


def resolve(
    source: Mapping[str, Any], options: type | None = None, presets: Mapping[str, Mapping] | None = None
) -> Experiment:
    """The checked experiment from what `read` returned.

    Without `options` everything but the method's own keys is checked; this needs no torch, and is enough to place the
    ranks. With the method's Options class and its presets ({name: {"section.key": value}}) the result is complete.
    """
    from omegaconf import OmegaConf

    section = {} if source.get("method") is None else source["method"]
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
    for key in LISTS:
        if isinstance(word := OmegaConf.select(tree, key), str):
            OmegaConf.update(tree, key, [word])
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
    except (OverflowError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"the config has a value that cannot be used: {error}") from None


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
        elif section is bool and isinstance(value, int) and value not in (0, 1):
            raise InputError(f"config key {prefix}{key} = {value}; expected true or false")
        elif isinstance(value, Mapping) and not {Any, dict} & {section, get_origin(section)}:
            raise InputError(f"config key {prefix}{key} = {value!r}; expected a value, no section")
