"""What is refused as without effect is what changes nothing: no weight, no byte, no model that is searched."""

import re
from functools import cache

import pytest

from fedstil_mpi import methods
from fedstil_mpi.federation.effects import SETTINGS, check_effects, without_effect
from fedstil_mpi.util.errors import InputError
from support import tiny
from support.cases import SETTINGS as SMALL
from support.cases import STREAMS

ASKED = {
    "serving.average": 0.5,
    "compression.up": "int4",
    "compression.upload_above": 10.0,
    "compression.down": "int4",
    "compression.rows": "known",
    "compression.prototypes": "bfloat16",
    "compression.importance": "bfloat16",
}
ALL = [0, 1, 2]
KINDS = {name: (name, {}) for name in methods.names()} | {
    "fedstil without prototypes": ("fedstil", {"prototypes.exchange": False}),
    "fedstil that mixes nothing": ("fedstil", {"method.relevance": "none", "prototypes.exchange": False}),
    "fedstil with tokens": ("fedstil", {"method.relevance": "token_kl", "prototypes.exchange": False}),
    "single with prototypes": ("single", {"prototypes.exchange": True}),
}


def experiment(kind: str, **more):
    method, settings = KINDS[kind]
    return tiny.experiment(SMALL | {"model.backbone": "resnet18"} | settings | more, method)


@cache
def outcome(kind: str, key: str = "seed"):
    """Of three rounds and a last message down: what the clients know and are searched with, and what was booked."""
    f = tiny.federation(experiment(kind, **{key: ASKED.get(key, 1)}), STREAMS)
    for number in (1, 2, 3):
        f.play(number, ALL)
    f.distribute(4, ALL)
    searched = []
    for side in f.clients:
        with side.serving():
            tail = side.tail_for(2)
            searched += [tensor.flatten() for tensor in tail.state_dict().values()]
            searched.append(side.learner.extract_features(2, "query", tail).flatten())
    return [side.learner.fingerprint() for side in f.clients], f.ledger.entries, [s.tolist() for s in searched]


def test_the_test_asks_for_all_settings():
    assert list(ASKED) == [setting.key for setting in SETTINGS]


@pytest.mark.parametrize("key", ASKED)
@pytest.mark.parametrize("kind", KINDS)
def test_what_changes_nothing_is_refused_and_nothing_else(kind, key):
    asked = experiment(kind, **{key: ASKED[key]})
    refused = [setting.key for setting in without_effect(asked, methods.load(asked.method.name))]
    assert refused == ([key] if outcome(kind, key) == outcome(kind) else [])


def test_the_message_says_what_to_do():
    asked = experiment("ditto", **{"serving.average": 0.5})
    line = (
        "serving.average = 0.5 changes nothing with method ditto as it is set: what its clients are searched with does not come "
        "from the server; set serving.average=0.0, in a comparison for this variant"
    )
    with pytest.raises(InputError, match=re.escape(line)):
        check_effects(asked, methods.load("ditto"))


def test_where_nothing_is_asked_no_model_is_looked_at(monkeypatch):
    monkeypatch.setattr("fedstil_mpi.federation.effects.blank_network", None)
    for name in methods.names():
        check_effects(experiment(name), methods.load(name))
