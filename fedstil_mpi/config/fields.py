"""Fields of config sections that know which values they take, and the check that holds values against them."""

from dataclasses import field, fields, is_dataclass
from typing import Any, TypeVar

from fedstil_mpi.util.errors import InputError, did_you_mean
from fedstil_mpi.util.plugins import is_plugin

T = TypeVar("T")
FLOAT32 = 1e30
"""A bound for factors and rates, whose products are to be numbers of 32 bits."""
LONGEST = 4096
"""Characters of a text: the longest path that Linux takes."""


def bounded(default: T, low: float, high: float) -> T:
    """A field for numbers from `low` to `high`. A null passes."""
    return field(default=default, metadata={"low": low, "high": high})


def choice(*choices: str, default: str | None = None, plugin: bool = False) -> str:
    """A field for one of these words, or for a plug-in; the default is the first word unless it is named."""
    return field(default=default or choices[0], metadata={"choices": choices, "plugin": plugin})


def check_values(section: Any, prefix: str = "") -> None:
    """Raise InputError at the first value of a section, or of a section in it, that its field does not take.

    prefix: what stands before the section's keys in the message, for example "train.".
    """
    for f in fields(section):
        key, value = f"{prefix}{f.name}", getattr(section, f.name)
        if isinstance(value, str) and (len(value) > LONGEST or "\0" in value):
            raise InputError(f"{key} = {value!r}; expected at most {LONGEST} characters, and no null character")
        if is_dataclass(f.type):
            check_values(value, f"{key}.")
        elif "choices" in f.metadata and not (f.metadata["plugin"] and is_plugin(value)):
            _check_choice(key, value, f.metadata["choices"])
        elif "each" in f.metadata:
            for one in value:
                _check_choice(key, one, f.metadata["each"])
            least = f.metadata.get("least", 0)
            if len(set(value)) < len(value) or len(value) < least:
                count = f"at least {least}, " * (least > 0)
                raise InputError(f"{key} = {value}; expected {count}different ones, of {', '.join(f.metadata['each'])}")
        elif "low" in f.metadata and value is not None:
            low, high = f.metadata["low"], f.metadata["high"]
            if not low <= value <= high:
                raise InputError(f"{key} = {value}; expected between {low} and {high}")


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{key} = {value!r}; {did_you_mean(value, choices)}expected one of {', '.join(choices)}")
