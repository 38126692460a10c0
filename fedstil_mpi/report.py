"""Report on one or many runs: tables, plots, and the numbers behind them.

    python -m fedstil_mpi.report runs/x [runs/y ...] [--output DIR] [--against LABEL] [--rankings CLIENT ...]

Every argument is a run folder or holds run folders. Needs no MPI, and torch for --rankings alone. Exit code 2: the input cannot
be used, and one line says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedstil_mpi.config.command_line import Parser, cli_main
from fedstil_mpi.evaluation.scopes import headline, words
from fedstil_mpi.results.reading import runs
from fedstil_mpi.results.reading.variants import Variant, group, scopes, warnings
from fedstil_mpi.results.report import edge_links, paired, plots, sections, tables
from fedstil_mpi.results.report.html import page
from fedstil_mpi.util import lease, terminal
from fedstil_mpi.util.errors import InputError, did_you_mean
from fedstil_mpi.util.files import expanded, writable, write_text
from fedstil_mpi.util.terminal import say
from fedstil_mpi.util.text import printable_lines


@dataclass(frozen=True, repr=False)
class Comparison:
    variants: list[Variant]
    reference: Variant
    """What the others are held against, seed by seed."""
    notes: list[str]
    """What was left out."""

    def _repr_markdown_(self) -> str:
        """The main table, which is what a notebook shows."""
        return tables.as_markdown(tables.main_table(self.variants), self.task_aware)

    @property
    def task_aware(self) -> list[str]:
        """Labels of the variants that search each task with a model of its own."""
        return [variant.label for variant in self.variants if variant.task_aware]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("fedstil_mpi.report", "Report on one or many runs.")
    parser.add_argument("runs", nargs="+", type=expanded, help="a run folder, or a folder that holds run folders")
    parser.add_argument(
        "--output", type=expanded, help="folder for the report; default: report/ in the only run, or here"
    )
    parser.add_argument("--against", metavar="LABEL", help="variant to hold the others against; default: first FedSTIL")
    parser.add_argument(
        "--rankings",
        type=int,
        nargs="+",
        default=[],
        metavar="CLIENT",
        help="in report.html the answers to some queries of these clients; needs save_models=true and the images",
    )

    def report() -> None:
        options = parser.parse_args(arguments)
        comparison = load(options.runs, options.against)
        alone = options.runs[0] if len(options.runs) == 1 else Path()
        show(comparison, write(comparison, options.output or alone / "report", options.rankings))

    cli_main(report)


def load(paths: Sequence[Path], against: str | None = None) -> Comparison:
    """The runs at or below each path; against: label of the variant that the others are held against, None: the first of
    FedSTIL. Raises InputError where the runs cannot be used."""
    complete, interrupted = runs.find(paths)
    found = [runs.read(folder) for folder in complete]
    variants, notes = group(found)
    notes += [
        f"{run.folder} is of an older version: its results have no checksum" for run in found if not run.has_checksum
    ]
    notes += [f"{folder} has no results.h5, so the run is not complete; left out" for folder in interrupted]
    labels = [variant.label for variant in variants]
    if against is not None and against not in labels:
        raise InputError(
            f"no variant is called {against!r}; {did_you_mean(against, labels)}there are {', '.join(labels)}"
        )
    wanted = [v for v in variants if v.label == against] or [v for v in variants if v.method == "fedstil"] or variants
    return Comparison(variants, wanted[0], notes)


def write(comparison: Comparison, output: Path, rankings: Sequence[int] = ()) -> Path:
    """Write report.md, and report.html where its packages are installed, into the folder `output`; returns the former.

    rankings: clients whose ranking lists are shown there. For one rank. Raises InputError where the folder cannot be used, or
    the lists not be made.
    """
    file = output / "report.md"
    with writable(output, "choose another folder with --output"), lease.held(output):
        rows = plots.write_all(comparison.variants, comparison.reference, output)
        tables.write_csv(output / "table.csv", tables.as_rows(tables.main_table(comparison.variants)))
        tables.write_csv(output / "scopes.csv", tables.as_rows(tables.scopes_table(comparison.variants)))
        tables.write_csv(output / "by_seed.csv", paired.by_seed(comparison.variants))
        write_text(file, text(comparison, list(rows)))
        (output / "report.html").unlink(missing_ok=True)  # an earlier report's
        if not page.missing():
            html = page.render(comparison.variants, comparison.reference, parts(comparison), rows, rankings)
            write_text(output / "report.html", html)
    return file


def parts(comparison: Comparison) -> dict[str, str]:
    """The title and the Markdown of every section but the plots."""
    variants, starred = comparison.variants, comparison.task_aware
    found = {
        "Report": _remarks(comparison),
        "What was compared": sections.compared(variants),
        "Results": tables.as_markdown(tables.main_table(variants), starred)
        + f"\n\nAfter the last round, {_headlines(variants)}; bold: best of the column. All terms are defined below.",
    }
    if len(scopes(variants)) > 1:
        found["By scope"] = "Served rank-1, by where queries are searched, and whose:\n\n" + tables.as_markdown(
            tables.scopes_table(variants), starred
        )
    if starred:
        found["Without knowing a query's task"] = (
            "\\* These search each task with a model of its own. With their newest model on all tasks:\n\n"
            + tables.as_markdown(tables.task_free_table(variants))
        )
    if len(variants) > 1:
        found["Savings"] = sections.savings(variants, comparison.reference)
        found["Seed by seed"] = paired.section(variants, comparison.reference)
    found["Bytes by kind"] = sections.bytes_by_kind(variants)
    found["On edge links"] = edge_links.section(variants, comparison.reference)
    found["Definitions"] = sections.definitions(variants)
    return {title: printable_lines(body) for title, body in found.items()}


def text(comparison: Comparison, drawn: Sequence[str]) -> str:
    """report.md, where the plots named in `drawn` lie beside it."""
    found = parts(comparison)
    definitions = found.pop("Definitions")
    found["Plots"] = "\n\n".join(
        f"{plots.PLOTS[name].caption} ([numbers]({name}.csv)):\n\n![]({name}.png)" for name in drawn
    )
    found["Definitions"] = definitions
    lines = [f"{'#' if title == 'Report' else '##'} {title}\n\n{body}" for title, body in found.items()]
    return "\n\n".join(line.strip() for line in lines) + "\n"


def _remarks(comparison: Comparison) -> str:
    lines = [f"**Warning: not comparable.** {line}" for line in warnings(comparison.variants)]
    return "\n\n".join([*lines, *(f"Note: {note}" for note in comparison.notes)])


def _headlines(variants: Sequence[Variant]) -> str:
    found = dict.fromkeys(headline(run.scopes) for variant in variants for run in variant.runs)
    return f"scope {', '.join(map(words, found))}"


def show(comparison: Comparison, file: Path) -> None:
    """The main table and what to know about it, for a person."""
    console = terminal.console()
    starred = comparison.task_aware
    console.print(tables.printed(tables.main_table(comparison.variants), starred))
    if len(scopes(comparison.variants)) > 1:
        console.print("\nserved rank-1 by scope")
        console.print(tables.printed(tables.scopes_table(comparison.variants), starred))
    if starred:
        console.print("* searches each task with a model of its own; without: see the report")
    for line in warnings(comparison.variants):
        say(f"warning: not comparable: {line}")
    for note in comparison.notes:
        say(f"note: {note}")
    if lacking := page.missing():
        say(f"note: report.html is left out: {', '.join(lacking)} not installed; pip install 'fedstil-mpi[html]'")
    console.print(f"report in {file}" + ("" if lacking else " and report.html"), soft_wrap=True)


if __name__ == "__main__":
    main()
