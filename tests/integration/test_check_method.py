"""The check of a method: the program's own pass it, and each kind of fault is found and named."""

import re

import pytest

from fedstil_mpi import methods
from support import SMALL
from support.documents import example
from support.launch import alone

FINE = [
    "options  presets best, paper, reference_code load",
    "bytes    as predicted from the layouts, over all rounds",
    "state    every checkpoint holds all that server and clients keep",
    "resume   paused 3 times and resumed, it gives the results of a run without a pause",
    "ranks    3 ranks go on with what one began, and give its results",
]

BYTES = """
from fedstil_mpi.comm.flat import Part
from fedstil_mpi.methods import fedavg
from fedstil_mpi.methods.fedavg import Options, PRESETS, Server
from fedstil_mpi.methods.base import Traffic
import torch

SENT = []

class Client(fedavg.Client):
    @staticmethod
    def traffic(setup, options):
        plain = fedavg.Client.traffic(setup, options)
        return Traffic(plain.down, (*plain.up, Part("extra", 2, ragged=True)))

    def update(self):
        SENT.append(1)
        return super().update() | {"extra": torch.zeros(len(SENT), 2)}
"""

HIDDEN = """
from fedstil_mpi.methods.fedavg import Client, Options, PRESETS
from fedstil_mpi.methods import fedavg
ROUNDS = []

class Server(fedavg.Server):
    def collect(self, online, updates):
        if len(ROUNDS) % 4 != 2:
            super().collect(online, updates)
        ROUNDS.append(online)
"""

RANKS = """
from fedstil_mpi.methods.fedavg import Options, PRESETS, Server
from fedstil_mpi.methods import fedavg
import torch

class Client(fedavg.Client):
    def update(self):
        from mpi4py import MPI
        message = super().update()
        return message | {"weights": message["weights"] * (1 + MPI.COMM_WORLD.rank)}
"""


def check(*arguments):
    return alone("-m", "fedstil_mpi.check_method", *arguments, SMALL)


def readme() -> str:
    return example("FedAvgM")


def test_the_readmes_method_passes(tmp_path):
    (tmp_path / "fedavgm.py").write_text(readme())
    done = check(tmp_path / "fedavgm.py", "method.momentum=0.5")
    assert (done.stdout.splitlines(), done.returncode) == (FINE, 0), done.stderr


@pytest.mark.long
@pytest.mark.parametrize("method", methods.names())
def test_the_programs_own_pass(method):
    done = check(method)
    lines = re.sub(r"paused \d times", "paused 3 times", done.stdout).splitlines()  # more often where it trains twice
    assert (lines[1:], done.returncode) == (FINE[1:], 0), done.stderr


def test_momentum_that_is_not_kept_is_named(tmp_path):
    (tmp_path / "fedavgm.py").write_text(readme().partition("    def state(self)")[0])
    done = check(tmp_path / "fedavgm.py")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[:2] == FINE[:2]
    assert lines[2].startswith(
        "state    FAILED: a resumed run would not have Server.step_P as the run it goes on from;"
    )
    assert lines[3:] == ["resume   not checked", "ranks    not checked"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "message"),
    [
        (BYTES, r"bytes    FAILED: RuntimeError: the ledger is not what the layouts predict: .*extra"),
        (HIDDEN, r"resume   FAILED: results differ in final/fingerprints"),
        (RANKS, r"ranks    FAILED: results differ in "),
        (readme().replace(', "step")', ",)"), r"ranks    FAILED: 3 ranks ended with exit code 1: .*size of tensor"),
        (readme().replace("0.9", "'much'"), r"options  FAILED: preset best: "),
        (
            readme().replace("* mean_P", "* men_P").replace("+ mean_P", "+ men_P"),
            r"bytes    FAILED: NameError: .*mine\.py:\d+",
        ),
    ],
    ids=["bytes", "resume", "ranks", "columns", "options", "code"],
)
def test_each_kind_of_fault_is_found(tmp_path, code, message):
    (tmp_path / "mine.py").write_text(code)
    done = check(tmp_path / "mine.py")
    assert done.returncode == 1, done.stderr
    (failed,) = [line for line in done.stdout.splitlines() if "FAILED" in line]
    assert re.match(message, failed), failed


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("prototypes.nroms=1", "unknown config key prototypes.nroms"),
        pytest.param("method.momentun=0.5", "unknown config key method.momentun", marks=pytest.mark.long),
    ],
)
def test_a_setting_that_there_is_not_is_an_input_error(tmp_path, setting, said):
    (tmp_path / "fedavgm.py").write_text(readme())
    done = check(tmp_path / "fedavgm.py", setting)
    assert (done.stdout.splitlines(), done.returncode) == (FINE[:1], 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_no_method_is_an_input_error(tmp_path):
    (tmp_path / "mine.py").write_text("Client = 3")
    done = check(tmp_path / "mine.py")
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "lacks Options, PRESETS, Server; expected a module with Options, PRESETS, Client, Server"
    )
