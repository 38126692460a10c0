"""A round in waves: models of those who are online are in memory by portions, and nothing comes out otherwise for it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fedstil_mpi import methods
from fedstil_mpi.comm.flat import Part
from fedstil_mpi.comm.ledger import Ledger
from fedstil_mpi.federation.rounds import NoCheckpoints, run_rounds
from fedstil_mpi.federation.schedule import plan as schedule_of
from fedstil_mpi.federation.server_place import places
from fedstil_mpi.federation.waves import portions
from fedstil_mpi.methods import base
from fedstil_mpi.methods.aids import innermost
from fedstil_mpi.methods.fedstil import method
from fedstil_mpi.util.shelf import Shelf
from support import played, tiny
from support.live import storages

SETTINGS = {"train.steps": 2, "prototypes.exchange": True}
CASES = {
    "fedstil": {"method.server_memory": 0.5, "participation.dropout": 0.3},
    "fedavg": {"serving.average": 0.5, "rounds.exchange_every": 2},
    "fedprox": {},
    "fedcurv": {},
    "ditto": {},
    "coded": {"compression.up": "int8", "compression.down": "int8"},
    "rows": {"compression.up": "ternary_entropy", "compression.rows": "known"},
}


def test_portions_are_as_even_as_can_be_with_clients_of_all_ranks_and_in_client_order():
    assert portions(range(7), 3) == [[0, 3, 6], [1, 4], [2, 5]]
    assert portions(range(3), 3) == portions(range(3), None) == [[0, 1, 2]]
    assert portions([], 3) == [[]]


@pytest.mark.parametrize(
    ("method", "drawn", "ranks", "expected"),
    [("fedavg", None, 6, 185), ("fedavg", 100, 6, None), ("fedavg", 100, 1, 37), ("fedweit", None, 6, None)],
)
def test_a_wave_has_as_many_as_take_128_mib_of_weights_on_a_rank(method, drawn, ranks, expected):
    """37 of 900,000 weights on each of the ranks with clients; none where no more are drawn, or the method cannot."""
    config = tiny.experiment({"rounds.clients_per_round": drawn}, method)
    setup = SimpleNamespace(clients=1000, layout=SimpleNamespace(scalars=900_000))
    schema = SimpleNamespace(setup=setup, traffic=SimpleNamespace(up=()))
    assert places(config, methods.load(method), schema, ranks).at_once == expected


def test_what_is_booked_by_portions_is_entered_as_if_they_were_one():
    parts = [Part("weights", 3), Part("people", 1, torch.int64, ragged=True)]
    rows = [torch.zeros(client, 1) for client in range(5)]
    once, apart = Ledger(), Ledger()
    for ledger, waves in ((once, portions(range(5), None)), (apart, portions(range(5), 2))):
        with ledger.together():
            for wave in waves:
                for part in parts:
                    ledger.book_rows(1, "C2S", part, wave, [rows[client] for client in wave])
    assert apart.entries == once.entries
    assert apart.total("C2S", 1) == once.total("C2S", 1) > 0


def play(name: str, at_once: int | None, tmp_path):
    method = {"coded": "fedstil", "rows": "fedavg"}.get(name, name)
    config = tiny.experiment(SETTINGS | CASES[name], method)
    schedule = schedule_of(1, 4, 3, 1, 6, None, 1, config.participation, exchange_every=config.rounds.exchange_every)
    return played.play_recorded(config, played.FOUR, schedule, tmp_path, in_files=True, at_once=at_once)


@pytest.mark.parametrize("name", CASES)
def test_a_run_in_waves_is_one_in_a_single_piece(name, tmp_path):
    once, *others = (play(name, at_once, tmp_path) for at_once in (None, 1, 3))
    for waves in others:
        played.check_alike(once, waves)


@pytest.mark.parametrize(("at_once", "together"), [(None, 4), (2, 2)])
def test_rows_in_memory_are_those_of_a_wave(monkeypatch, at_once, together):
    """As long as all travelling weights, of each client two: those at receipt, and what comes or goes."""
    monkeypatch.setattr(base, "RESIDENT", 0)
    config = tiny.experiment({"train.steps": 1, "prototypes.exchange": False}, "fedstil")
    f = played.federation(config, played.FOUR, schedule_of(1, 4, 3, 1, 2, None, None), in_files=True, at_once=at_once)
    f = replace(f, shelf=Shelf(), at_once=at_once)
    length = innermost(f.server).setup.start.nbytes

    def rows() -> int:
        return sum(size // length for size in storages().values() if size % length == 0)

    def counted(step):
        def wrapper(side, *given):
            done = step(side, *given)
            if side.learner.client == 3:  # the last of its wave
                counts.append(rows() - before)
            return done

        return wrapper

    before, counts = rows(), []
    for step in ("absorb", "update"):
        monkeypatch.setattr(method.Client, step, counted(getattr(method.Client, step)))
    run_rounds(f, NoCheckpoints())
    assert max(counts) == 2 * together
