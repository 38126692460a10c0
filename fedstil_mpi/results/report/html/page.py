"""report.html: the whole report in one file that needs no network, with tables to sort and plots to switch variants in."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from fedstil_mpi.results.reading.variants import Variant
from fedstil_mpi.results.report.html import figures
from fedstil_mpi.results.report.html.rankings import rankings
from fedstil_mpi.results.report.styles import styles
from fedstil_mpi.results.report.tables import Rows

NEEDED = ("jinja2", "markdown_it", "plotly")


def missing() -> list[str]:
    """What has to be installed before `render` works: packages of the optional extra html."""
    return [name for name in NEEDED if find_spec(name) is None]


def render(
    variants: Sequence[Variant],
    reference: Variant,
    parts: Mapping[str, str],
    rows: Mapping[str, Rows],
    clients: Sequence[int] = (),
) -> str:
    """parts: title -> Markdown of each section of report.md, but the plots; rows: what the plots show, by name.

    clients: those whose ranking lists are shown, of the reference's first run. Raises InputError where these cannot be made.
    """
    from jinja2 import Environment, PackageLoader
    from markdown_it import MarkdownIt
    from plotly.offline import get_plotlyjs

    looks = styles(variants, reference.label)
    drawn = [*figures.figures(rows, looks), figures.ledger(variants, looks)]
    data = {"figures": drawn, "relevances": figures.relevances(variants)}
    environment = Environment(loader=PackageLoader(__package__, ""), autoescape=True)
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return environment.get_template("report.html.j2").render(
        sections={title: markdown.render(body) for title, body in parts.items()},
        variants=[{"label": label, "color": look["color"]} for label, look in looks.items()],
        reference=reference.label,
        rankings=rankings(reference.runs[0], clients) if clients else [],
        run=reference.runs[0],
        placements=placements(variants),
        plotly=get_plotlyjs(),
        data=data,
    )


def placements(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """Where runs took place: the ranks, and the runs that had them."""
    found: dict[str, dict[str, Any]] = {}
    for variant in variants:
        for run in variant.runs:
            ranks = run.environment.get("placement", [])
            place = found.setdefault(repr(ranks), {"ranks": ranks, "runs": []})
            place["runs"].append(f"{variant.label}, seed {run.seed}")
    return list(found.values())
