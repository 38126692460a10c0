"""The predicted tables of bench/communication.md: what the reference code sends, and what ours does."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import traffic_cases as cases
from reference_traffic import Counts, Payload, reference_messages
from traffic_cases import Case

from fedstil_mpi import methods
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.config.sections import LOSSY
from fedstil_mpi.models.network import Network
from fedstil_mpi.util.tables import markdown

TASKS, PER_TASK = 6, 10
ROUNDS = TASKS * PER_TASK
CLIENTS = 5


def merged(rows: Mapping[tuple[str, str], Sequence[str]]) -> list[list[str]]:
    """[methods, presets, *cells] from (method, preset) -> cells: equal presets of a method in a row, then equal methods."""
    presets: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for (method, preset), cells in rows.items():
        presets[method, *cells].append(preset)
    together: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for (method, *cells), of in presets.items():
        together[", ".join(of), *cells].append(method)
    return [[", ".join(of), *cells] for cells, of in together.items()]


def network_table(counts: Mapping[str, Counts]) -> str:
    rows = []
    for backbone, c in counts.items():
        classifier = Payload(cases.CLASSES * c.feature)
        sizes = (c.full, c.trained, c.adaptive, c.rest, Payload(c.token), classifier)
        rows.append([backbone, *(amount(size) for size in sizes)])
    head = ["backbone", "d_full: all", "d_tr: learns", "d_ad: weights of the tail", "rest", "task token", "classifier"]
    return markdown(head, rows)


def reference_table(counts: Counts) -> str:
    rows = {}
    for method, m in reference_messages(counts, CLIENTS).items():
        both = megabytes(m.later.bytes + m.up.bytes)
        rows[method, ""] = [*map(amount, (m.first, m.later, m.up)), both, f"{m.bytes_in(ROUNDS) / 1e9:.2f}"]
    head = ["method", "first contact", "down later", "up", "MB of a later round", "GB in 60 rounds"]
    return markdown(head, [[name, *cells] for name, _, *cells in merged(rows)])


def own_table(backbone: str, network: Network) -> str:
    plan = cases.schedule(CLIENTS, TASKS, PER_TASK)
    rows = {}
    for method in methods.names():
        for preset in cases.presets(method):
            case = Case(backbone, method, preset, CLIENTS)
            schema = cases.schema_of(case, network)
            ledger = cases.predicted(case, network, plan)
            checkpoint = cases.schema_of(case, network, shared_checkpoint=True).initial_model
            first = [
                sum(part.itemsize for part in contact.parts(complete=True))
                for contact in (schema.initial_model, checkpoint)
            ]
            rounds = [*quiet_and_busiest(ledger, DOWN), *quiet_and_busiest(ledger, UP)]
            total = (ledger.total(DOWN) + ledger.total(UP)) / CLIENTS
            rows[method, preset] = [*(f"{size:,.0f}" for size in first + rounds), f"{total / 1e9:.2f}"]
    head = ["method", "preset", "first contact", "with a checkpoint", "down, quiet", "down, busiest"]
    return markdown([*head, "up, quiet", "up, busiest", "GB in 60 rounds"], merged(rows), left=2)


def savings(backbone: str, network: Network, counts: Counts) -> str:
    """How much less FedSTIL sends than each of the others that exchange weights, in the reference code and in ours."""
    plan = cases.schedule(CLIENTS, TASKS, PER_TASK)
    theirs = {
        method: m.bytes_in(ROUNDS) for method, m in reference_messages(counts, CLIENTS).items() if m.later.scalars
    }
    ours = {}
    for method in theirs.keys() & set(methods.names()):
        case = Case(backbone, method, "best", CLIENTS)
        ledger = cases.predicted(case, network, plan)
        ours[method] = ledger.total(DOWN) + ledger.total(UP)
    parts = [
        f"{1 - theirs['fedstil'] / theirs[method]:.1%} and {1 - ours['fedstil'] / ours[method]:.1%} less than {method}"
        for method in theirs
        if method in ours and method != "fedstil"
    ]
    return f"Over 60 rounds FedSTIL sends (reference code, ours with preset best) {'; '.join(parts)}."


def clients_table(backbone: str, network: Network, counts: Counts, clients: Sequence[int]) -> str:
    rows = {}
    for method in methods.names():
        cells = []
        for k in clients:
            plan = cases.schedule(k, TASKS, PER_TASK)
            case = Case(backbone, method, "best", k)
            ledger = cases.predicted(case, network, plan)
            theirs = reference_messages(counts, k).get(method)
            for direction in (DOWN, UP):
                quiet, _ = quiet_and_busiest(ledger, direction, k)
                size = theirs and (theirs.later if direction == DOWN else theirs.up).bytes
                cells.append(megabytes(k * quiet, 0) + ("" if size is None else f" ({megabytes(k * size, 0)})"))
        rows[method, ""] = cells
    head = ["method", *(f"K = {k}, {direction}" for k in clients for direction in ("down", "up"))]
    return markdown(head, [[name, *cells] for name, _, *cells in merged(rows)])


def codecs_table(backbone: str, network: Network) -> str:
    """MB of a client in 60 rounds of every method whose weights travel, and what each codec saves of them."""
    plan, rows = cases.schedule(CLIENTS, TASKS, PER_TASK), {}
    exchanging = [name for name in methods.names() if cases.schema_of(Case(backbone, name), network).traffic.up]
    for method in exchanging:
        ledgers = (cases.predicted(Case(backbone, method, codec=codec), network, plan) for codec in ("none", *LOSSY))
        dense, *coded = (ledger.total(DOWN) + ledger.total(UP) for ledger in ledgers)
        saved = (f"{megabytes(size / CLIENTS)} ({1 - size / dense:.1%})" for size in coded)
        rows[method, ""] = [megabytes(dense / CLIENTS), *saved]
    return markdown(["method", "dense", *LOSSY], [[name, *cells] for name, _, *cells in merged(rows)])


def quiet_and_busiest(ledger: Ledger, direction: str, clients: int = CLIENTS) -> tuple[float, float]:
    """Bytes of a later round, mean over clients: the least and the most of rounds 2 to the last."""
    rounds = [ledger.total(direction, round) / clients for round in range(2, ROUNDS + 1)]
    return min(rounds), max(rounds)


def amount(payload: Payload) -> str:
    return f"{payload.scalars:,} / {megabytes(payload.bytes)}" if payload.scalars else "0"


def megabytes(size: float, digits: int = 3) -> str:
    return f"{size / 1e6:,.{digits}f}" if size else "0"
