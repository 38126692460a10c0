"""A method that keeps more than its state holds is found out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedstil_mpi import methods
from fedstil_mpi.checkpoints import coverage
from fedstil_mpi.util.errors import InputError
from support import tiny
from support.documents import example

STREAMS = [[tiny.task(1, 2, seed=1)], [tiny.task(3, 2, seed=2)]]
MOMENTUM = "momentum.py"
CLIENT = """
import torch
from fedstil_mpi.methods.fedavg import Options, PRESETS, Server
from fedstil_mpi.methods import fedavg

class Client(fedavg.Client):
    def end(self):
        {end}
"""


def readme() -> str:
    return example("FedAvgM")


def played(code: str, tmp_path: Path, **settings: object) -> tiny.Federation:
    (tmp_path / MOMENTUM).write_text(code)
    values = {"train.steps": 2, "train.batch": 8} | {key.replace("__", "."): value for key, value in settings.items()}
    federation = tiny.federation(tiny.experiment(values, str(tmp_path / MOMENTUM)), STREAMS)
    federation.play(1, range(2))
    return federation


def check(federation: tiny.Federation) -> None:
    coverage.check(federation.clients, federation.server, tiny.network())


@pytest.mark.parametrize("exchange", [False, True])
def test_momentum_that_is_not_kept_is_named(tmp_path, exchange):
    check(played(readme(), tmp_path, prototypes__exchange=exchange))
    forgetful = readme().partition("    def state(self)")[0]
    with pytest.raises(
        InputError, match=r"a resumed run would not have Server\.step_P as the run it goes on from; let"
    ):
        check(played(forgetful, tmp_path / "..", prototypes__exchange=exchange))


@pytest.mark.parametrize(
    ("end", "names"),
    [
        ("self.last = self.theta()", "Client.last"),
        ("self.kept = [{'a': (self.theta(), 2)}]", "Client.kept"),
        ("self.rounds = self.learner.draws", "Client.rounds"),
        ("self.learner.extra = torch.ones(1)", "Client.learner/Learner.extra"),
        ("self.layer = torch.nn.Linear(2, 2)", "Client.layer"),
        ("self.me = self; self.function = torch.nn.functional.relu", "Client.me, Client.function"),
    ],
)
def test_what_a_client_keeps_is_named(tmp_path, end, names):
    with pytest.raises(InputError, match=f"would not have {names} as the run"):
        check(played(CLIENT.format(end=end), tmp_path))


def test_what_every_round_sets_can_be_declared(tmp_path):
    check(played(CLIENT.format(end="self.last = self.theta()") + "    transient = ('last',)\n", tmp_path))


def test_a_state_that_no_file_can_hold(tmp_path):
    code = CLIENT.format(end="pass") + "    def state(self):\n        return {'people': {1, 2}}\n"
    with pytest.raises(InputError, match=r"Client\.state\(\) cannot be kept: state method/people is a set"):
        check(played(code, tmp_path))


def test_a_restore_that_fails(tmp_path):
    code = CLIENT.format(end="pass") + "    def restore(self, state):\n        self.last = state['last']\n"
    with pytest.raises(InputError, match=r"Client\.restore\(state\(\)\) fails with KeyError: 'last'; correct it"):
        check(played(code, tmp_path))


def test_everything_that_holds_values_is_looked_at():
    """Also what a method's own objects hold."""

    class Own:
        transient = ("scratch",)

        def __init__(self, value: float):
            self.scratch = value
            self.value = value

        def __call__(self) -> float:
            return self.value

    def things(value: int) -> dict:
        generators = np.random.default_rng(value), torch.Generator().manual_seed(value)
        made = [
            Own(value),
            np.full(2, value),
            {value},
            {"a": (value,)},
            torch.nn.Parameter(torch.full((1,), 1.0 * value)),
        ]
        return dict(enumerate([*made, *generators, torch.optim.SGD([torch.ones(1)], lr=value)]))

    assert coverage.differences(coverage.snapshot(things(1)), coverage.snapshot(things(1))) == []
    found = coverage.differences(coverage.snapshot(things(1)), coverage.snapshot(things(2)))
    assert {path.partition("/")[0] for path in found} == set(map(str, range(8)))
    assert "0/Own.value" in found
    assert "0/Own.scratch" not in found
    assert coverage.snapshot([methods, len]) == {"": ["0", "1"], "0": "module", "1": "builtin_function_or_method"}
