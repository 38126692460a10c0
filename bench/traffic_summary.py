"""What stands at the top of bench/communication.md: five lines, and a bar for each method."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import traffic_cases as cases
from matplotlib.figure import Figure
from reference_traffic import Counts, reference_messages
from traffic_cases import Case
from traffic_tables import CLIENTS, PER_TASK, ROUNDS, TASKS

from fedstil_mpi import methods
from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.models.network import Network
from fedstil_mpi.results.report.styles import COLOURS
from fedstil_mpi.util.files import atomic

CODE = "reference code"
Totals = Mapping[str, Mapping[str, float]]
"""Method -> preset -> GB of a client in a whole run; CODE is the reference code by its own formulas."""

LINES = """\
In a run of {rounds} rounds a client sends and receives, first contact included, with {backbone} and {clients} clients:

1. **FedSTIL {fedstil:.2f} GB, FedAvg {fedavg:.2f} GB**: personal knowledge costs no more than a common mean.
2. **FedSTIL sends {least:.0%} to {most:.0%} less than FedCurv and FedWeIT as this program has them**, which send importances and own
   weights only where they are new.
3. **In the reference code it is {code_fedcurv:.0%} less than FedCurv and {code_fedweit:.0%} less than FedWeIT**, which there send every
   client what all others have, in every round, so that their bytes grow with the number of clients. The paper's -62 % lies between
   these numbers and ours.
4. **A codec saves more than the choice of the method**: with `ternary` FedSTIL sends {ternary:.1%} less than without.
5. Which saving is told depends on what is counted: preset, backbone, first contact. All of it is below, and `plan` says it of
   any config.

![GB of a client in {rounds} rounds]({picture})"""


def totals(backbone: str, network: Network, counts: Counts) -> Totals:
    found: dict[str, dict[str, float]] = {}
    code = reference_messages(counts, CLIENTS)
    for method in methods.names():
        found[method] = {preset: _gigabytes(network, Case(backbone, method, preset)) for preset in ("best", "paper")}
        if method in code:
            found[method][CODE] = code[method].bytes_in(ROUNDS) / 1e9
    return found


def summary(backbone: str, network: Network, found: Totals, picture: str) -> str:
    best = {method: of["best"] for method, of in found.items()}
    code = {method: of[CODE] for method, of in found.items() if CODE in of}
    savings = [1 - best["fedstil"] / best[other] for other in ("fedcurv", "fedweit")]
    return LINES.format(
        rounds=ROUNDS,
        backbone=backbone,
        clients=CLIENTS,
        fedstil=best["fedstil"],
        fedavg=best["fedavg"],
        least=min(savings),
        most=max(savings),
        code_fedcurv=1 - code["fedstil"] / code["fedcurv"],
        code_fedweit=1 - code["fedstil"] / code["fedweit"],
        ternary=1 - _gigabytes(network, Case(backbone, "fedstil", codec="ternary")) / best["fedstil"],
        picture=picture,
    )


def draw(found: Totals, path: Path) -> None:
    """Of the methods that exchange anything. Raises OSError."""
    exchanging = {method: of for method, of in found.items() if of["best"] > min(of["best"] for of in found.values())}
    kinds = (CODE, "paper", "best")
    figure = Figure(figsize=(8, 0.6 + 0.55 * len(exchanging)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(exchanging))
    for offset, (kind, colour) in enumerate(zip(kinds, COLOURS, strict=False)):
        widths = [of.get(kind, np.nan) for of in exchanging.values()]
        drawn = axes.barh(places + 0.27 * (offset - 1), widths, 0.25, label=kind, color=colour)
        axes.bar_label(drawn, ["" if np.isnan(width) else f"{width:.1f}" for width in widths], padding=3, fontsize=7)
    axes.set_yticks(places, list(exchanging))
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_xlabel(f"GB of a client in {ROUNDS} rounds")
    figure.legend(loc="outside right upper")
    with atomic(path) as partial_file:
        figure.savefig(partial_file, format="png", dpi=130)


def _gigabytes(network: Network, case: Case) -> float:
    ledger = cases.predicted(case, network, cases.schedule(case.clients, TASKS, PER_TASK))
    return (ledger.total(DOWN) + ledger.total(UP)) / case.clients / 1e9
