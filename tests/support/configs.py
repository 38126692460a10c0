"""Config files that are written, read and resolved as a run does it, with a method's options as small as can be."""

import json
from dataclasses import dataclass

import pytest

from fedstil_mpi.config import loading
from fedstil_mpi.util.errors import InputError


@dataclass(kw_only=True)
class Options:
    alpha: float = 0.5
    kind: str = "plain"


PRESETS = {
    "best": {},
    "strong": {
        "method.alpha": 0.9,
        "method.kind": "strong",
        "train.lr": 0.1,
        "train.steps": 7,
        "rounds.total": 30,
        "memory.share": None,
    },
}


def write(folder, name="config.yaml", text=""):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(folder, text="", *overrides):
    """The experiment of a config file and overrides, with the source going through JSON as it does between ranks."""
    source = loading.read(write(folder, text=text), list(overrides))
    return loading.resolve(json.loads(json.dumps(source)), Options, PRESETS)


def refusal(folder, text="", *overrides):
    """The one line with which a config is refused."""
    with pytest.raises(InputError) as caught:
        load(folder, text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message
