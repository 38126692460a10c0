"""Models of clients that sit rounds out lie on a shelf, and nothing comes out otherwise for it."""

from dataclasses import replace

import pytest
import torch

from fedstil_mpi.evaluation.search import Search
from fedstil_mpi.federation import rounds
from fedstil_mpi.federation.schedule import plan as schedule_of
from fedstil_mpi.methods import base
from fedstil_mpi.methods.aids import innermost
from fedstil_mpi.util.shelf import Shelf
from support import played, tiny
from support.live import storages

SETTINGS = {"train.steps": 2, "prototypes.exchange": True}
CASES = {
    "fedstil": {"method.server_memory": 0.5},
    "fedavg": {"serving.average": 0.5, "rounds.exchange_every": 2},
    "fedweit": {},
    "ditto": {},
    "fedfomo": {},
    "coded": {"compression.up": "int8", "compression.down": "int8"},
}


def play(name: str, away: bool, tmp_path):
    method = "fedstil" if name == "coded" else name
    config = tiny.experiment(SETTINGS | CASES[name], method)
    schedule = schedule_of(1, 4, 3, 1, 8, 2, 1, exchange_every=config.rounds.exchange_every)
    return played.play_recorded(config, played.FOUR, schedule, tmp_path, in_files=away)


@pytest.mark.parametrize("name", CASES)
def test_models_come_back_as_they_were(name, tmp_path):
    played.check_alike(*(play(name, where, tmp_path) for where in (False, True)))


def test_a_model_that_lies_on_a_shelf_is_in_memory_again_when_it_is_to_change(tmp_path):
    f, _ = play("fedstil", True, tmp_path)
    side = f.clients[0]
    learner, parameter = side.learner, next(side.learner.tail.parameters())
    assert (f.in_memory, learner.untold.start) == (set(), None)
    assert not learner.tail_memory.is_own
    before, lay = parameter.clone(), parameter.data_ptr()
    learner.own_tail()
    assert torch.equal(parameter, before)
    assert parameter.data_ptr() != lay
    f.in_memory.add(0)
    f.put_away()
    assert torch.equal(parameter, before)


def test_one_client_at_a_time_has_the_model_that_it_is_searched_with_in_memory(monkeypatch):
    """Where that is another one than it trains on; behind it, each lies on the shelf as before."""
    config = tiny.experiment(
        {"train.steps": 1, "serving.average": 0.5, "evaluation.gallery": ["client", "all"]}, "fedavg"
    )
    parts = played.federation(config, played.FOUR, schedule_of(1, 4, 3, 1, 3, None, None), in_files=True)
    f, everyone, in_memory = tiny.Federation(replace(parts, shelf=Shelf())), [0, 1, 2, 3], []
    for round in (1, 2):
        f.play(round, everyone)
    f.distribute(3, everyone)
    f.parts.put_away()
    learners = [side.learner for side in f.clients]
    lay = [next(learner.tail.parameters()).data_ptr() for learner in learners]

    def noted(search, task, tail):
        in_memory.append([learner.client for learner in learners if learner.tail_memory.is_own])
        return gallery(search, task, tail)

    gallery = Search._of
    monkeypatch.setattr(Search, "_of", noted)
    rounds.validate(f.parts, 2, served=True)
    assert {tuple(of) for of in in_memory} == {(0,), (1,), (2,), (3,)}
    assert [next(learner.tail.parameters()).data_ptr() for learner in learners] == lay
    assert f.parts.in_memory == set()


def test_a_client_has_one_row_beside_its_model_from_receipt_to_upload_and_none_thereafter(monkeypatch):
    """What is as long as all travelling weights: not the message that came, nor that which went. The server's rows are not in
    memory here."""
    monkeypatch.setattr(base, "RESIDENT", 0)
    config = tiny.experiment({"train.steps": 1, "prototypes.exchange": False}, "fedstil")
    parts = played.federation(config, played.FOUR, schedule_of(1, 4, 3, 1, 3, None, None), in_files=True)
    f = tiny.Federation(replace(parts, shelf=Shelf()))
    everyone, length = [0, 1, 2, 3], innermost(f.server).setup.start.nbytes

    def rows() -> int:
        return sum(size // length for size in storages().values() if size % length == 0)

    before = rows()
    for round in (1, 2, 3):
        counts = []
        for step in (f.distribute, f.learn, f.collect):
            step(round, everyone)
            counts.append(rows() - before)
        assert counts == [4, 4, 0]
