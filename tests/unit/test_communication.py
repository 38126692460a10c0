"""The benchmark of communication: the reference code's numbers, and that what is predicted passes between real ranks."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedstil_mpi.comm.flat import Part
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.methods.base import Traffic
from support.cases import REFERENCED
from support.launch import mpirun

BENCH = Path(__file__).parents[2] / "bench"
sys.path.append(str(BENCH))
cases = import_module("traffic_cases")
tables = import_module("traffic_tables")
reference = import_module("reference_traffic")
page = import_module("communication")
summary = import_module("traffic_summary")

ALONE = ("single", "multi", "ewc", "mas")
TABLE = {
    **dict.fromkeys(ALONE, ((15_284_181, 61.137), (0, 0), (0, 0), 0, 0.06)),
    "icarl": ((22_379_433, 89.518), (0, 0), (0, 0), 0, 0.09),
    **dict.fromkeys(
        ("fedavg", "fedprox"),
        ((15_284_181, 61.137), (12_489_728, 49.959), (12_489_729, 49.959), 99.918, 6.01),
    ),
    "fedcurv": ((15_284_181, 61.137), (137_387_008, 549.548), (24_979_457, 99.918), 649.466, 38.48),
    "fedweit": ((77_707_221, 310.829), (74_907_648, 299.631), (24_969_217, 99.877), 399.507, 23.98),
    "fedstil": ((15_284_181, 61.137), (12_484_608, 49.938), (12_492_801, 49.971), 99.910, 6.01),
    "fedstil_atten": ((15_284_181, 61.137), (62_423_040, 249.692), (12_492_801, 49.971), 299.663, 17.79),
}
"""Method -> scalars and MB of a client's first contact, of what comes down in a later round, of what goes up; MB of a later
round, GB of 60 rounds. For ResNet-18 with five clients, counted on the running reference code."""


def counts(backbone: str):
    return reference.Counts.of(cases.network(backbone), cases.IMAGE)


@pytest.fixture(scope="module")
def resnet18():
    return counts("resnet18")


def test_groups_of_resnet18(resnet18):
    groups = (resnet18.full, resnet18.trained, resnet18.adaptive, resnet18.rest)
    assert [group.scalars for group in groups] == [15_284_181, 12_489_728, 12_484_608, 2_799_573]
    assert resnet18.token == 8_192
    assert (resnet18.full.bytes, resnet18.rest.bytes) == (61_136_808, 11_198_376)


@pytest.mark.parametrize("method", TABLE)
def test_table_of_the_reference_code(resnet18, method):
    found = reference.reference_messages(resnet18, clients=5)[method]
    messages = (found.first, found.later, found.up)
    both = found.later.bytes + found.up.bytes
    assert TABLE[method] == (
        *((m.scalars, round(m.bytes / 1e6, 3)) for m in messages),
        round(both / 1e6, 3),
        round(found.bytes_in(60) / 1e9, 2),
    )


def test_reference_code_of_every_method_is_counted(resnet18):
    assert set(reference.reference_messages(resnet18, 5)) == set(TABLE) == set(REFERENCED)


def test_reference_costs_that_grow_with_the_clients(resnet18):
    few, many = (reference.reference_messages(resnet18, clients) for clients in (5, 64))
    assert {m for m in few if few[m] != many[m]} == {"fedcurv", "fedstil_atten"}
    assert many["fedcurv"].later.scalars == 129 * 12_489_728
    assert many["fedstil_atten"].later.scalars == 64 * 12_484_608


def test_wide_scalars_take_eight_bytes():
    one, two, samples = reference.Payload(10), reference.Payload(2), reference.Payload(1, 1)
    assert (two + 2 * samples).bytes == 2 * 4 + 2 * 8
    assert reference.Messages(one, two, samples).bytes_in(3) == 10 * 4 + 2 * (2 * 4) + 3 * 8


@pytest.mark.parametrize("method", REFERENCED)
def test_our_reference_preset_sends_what_the_reference_code_sends(resnet18, method):
    case, rounds = cases.Case("resnet18", method, "reference_code"), cases.schedule(5, tasks=2, per_task=2)
    ledger = cases.predicted(case, cases.network("resnet18"), rounds)
    theirs = reference.reference_messages(resnet18, 5)[method]
    assert [ledger.total(UP, round, 3) for round in (1, 2, 3, 4)] == 4 * [theirs.up.bytes]
    assert [ledger.total(DOWN, round, 3) for round in (2, 3, 4, 5)] == 4 * [theirs.later.bytes]


def test_with_a_checkpoint_first_contact_is_the_classifier():
    schema = cases.schema_of(cases.Case("resnet18", "fedstil"), cases.network("resnet18"), shared_checkpoint=True)
    assert [part.itemsize for part in schema.initial_model.parts(complete=True)] == [4 * 8000 * 512]


def hand_made() -> tuple[SimpleNamespace, Ledger]:
    """Two clients, a round: 100 bytes for both at once, 10 down and 40 up (20 written) of each; then 30 for both."""
    traffic = Traffic(down=(Part("common", 1, shared=True), Part("own", 10)))
    contact = SimpleNamespace(parts=lambda complete: (Part("model", 25, shared=True),))
    ledger = Ledger()
    for client in (0, 1):
        ledger.book(1, client, DOWN, "model", 100)
        ledger.book(1, client, DOWN, "own", 10)
        ledger.book(1, client, UP, "own", 40, 20)
        ledger.book(2, client, DOWN, "common", 30)
    return SimpleNamespace(traffic=traffic, initial_model=contact), ledger


def test_what_is_shared_moves_once_to_each_rank():
    schema, ledger = hand_made()
    assert cases.moved_by_mpi(schema, ledger, ranks=2) == 100 + 2 * 10 + 2 * 20 + 30
    assert cases.moved_by_mpi(schema, ledger, ranks=3) == 2 * 100 + 2 * 10 + 2 * 20 + 2 * 30


def test_the_server_holds_one_copy_of_what_is_shared_and_dense_rows_of_the_rest():
    schema, ledger = hand_made()
    assert cases.server_memory(schema, ledger) == 100 + 2 * 10 + 2 * 40 + 30


def test_quiet_and_busiest_leave_out_the_first_round():
    ledger = Ledger()
    for round, size in enumerate([900, *[20] * (tables.ROUNDS - 2), 60], start=1):
        for client in range(2):
            ledger.book(round, client, UP, "weights", size + client)
    assert tables.quiet_and_busiest(ledger, UP, clients=2) == (20.5, 60.5)


def test_equal_rows_stand_together():
    rows = {("a", "best"): ["1"], ("a", "paper"): ["1"], ("b", "best"): ["1"], ("c", "best"): ["1"], ("c", "x"): ["2"]}
    assert tables.merged(rows) == [["a", "best, paper", "1"], ["b, c", "best", "1"], ["c", "x", "2"]]


def test_library_counts_adds_up_the_collectives_of_each_exchange():
    profile = "D\texchange\tprocs: 0,1\nO2A\t0\t30 bytes\t1 msgs sent\nA2O\t0\t4 bytes\t1 msgs sent\n"
    profile += "D\tother\tprocs: 0,1\nO2A\t0\t5 bytes\t1 msgs sent\nD\texchange\tprocs: 0,1\nA2O\t0\t34 bytes\t2 msgs\n"
    assert page.library_counts(profile) == {34: 2}


@pytest.mark.long
def test_prediction_is_what_passes_between_ranks():
    methods_ = ("fedstil", "fedcurv", "fedweit")  # personal; shared and ragged; sparse parts
    played = [["mobilenet_v2", method, "best", 3] for method in methods_]
    done = mpirun(3, [BENCH / "traffic_ranks.py", json.dumps(played)], timeout=300)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(played)
    for (_, method, *_), result in zip(played, results, strict=True):
        assert result["different"] == 0, method
        assert result["moved"] == result["moved_predicted"] > 0, method


# -- the summary -------------------------------------------------------------------------------------------------------


def test_the_summary_says_what_the_tables_say(resnet18, tmp_path):
    """FedSTIL's 6.01 GB by the reference code are 84 % less than FedCurv's 38.48 and 75 % less than FedWeIT's 23.98."""
    names = ("single", "fedavg", "fedcurv", "fedweit", "fedstil")
    code = {name: messages.bytes_in(60) / 1e9 for name, messages in reference.reference_messages(resnet18, 5).items()}
    found = {
        name: {"best": size, "paper": size, summary.CODE: code[name]}
        for name, size in zip(names, (1, 8, 8, 5, 4), strict=True)
    }
    text = summary.summary("resnet18", cases.network("resnet18"), found, "x.png")
    assert "**FedSTIL 4.00 GB, FedAvg 8.00 GB**" in text
    assert "sends 20% to 50% less than FedCurv and FedWeIT" in text
    assert "it is 84% less than FedCurv and 75% less than FedWeIT" in text
    assert len(re.findall(r"^[1-5]\. ", text, re.MULTILINE)) == 5
    summary.draw(found, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
