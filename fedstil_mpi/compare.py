"""Compare methods on one stream: variants x seeds, one run after the other, then one report.

    mpirun -n 6 python -m fedstil_mpi.compare configs/compare/quickstart.yaml [section.key=value ...]

What is complete is not run again, and a run that was interrupted goes on from its last checkpoint: a comparison is
continued by the command that began it. Runs of one seed share the images, the start model and what its stem makes of the
images.

A preset is what it says: a key of a preset is refused with another value, unless the variant itself gives it that value.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from fedstil_mpi import methods
from fedstil_mpi.comm.start import start
from fedstil_mpi.comm.world import World
from fedstil_mpi.config import files, loading
from fedstil_mpi.config.command_line import Parser, integer
from fedstil_mpi.config.fields import check_values
from fedstil_mpi.config.schema import check_folder_name
from fedstil_mpi.federation.shared_resources import open_shared_resources
from fedstil_mpi.launch.allocator import return_freed_memory
from fedstil_mpi.launch.signals import listening
from fedstil_mpi.results.writing.run_folder import RunFolder
from fedstil_mpi.results.writing.trackers import check_installed
from fedstil_mpi.run import execute
from fedstil_mpi.util.errors import InputError, did_you_mean
from fedstil_mpi.util.files import expanded, write_text
from fedstil_mpi.util.terminal import Detail, say

if TYPE_CHECKING:
    from fedstil_mpi import report

MOST_RUNS = 5000
LONGEST_LABEL = 150
VARIANT = "the variant"
OWN_KEYS = ("name", "output")
"""Keys of the comparison that the command line may set; its others are for every run."""


@dataclass(kw_only=True)
class ComparisonConfig:
    """The keys of a comparison's config file."""

    base: str
    """The experiment that all runs start from; relative to this file."""
    name: str = "comparison"
    """Name of the folder for the runs and the report."""
    output: str = "runs"
    """Folder that holds it."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    against: str | None = None
    """The variant that the report holds the others against; null: the first of FedSTIL."""
    settings: dict[str, Any] = field(default_factory=dict)
    """"section.key": value for all variants."""
    variants: dict[str, dict[str, Any]]
    """Label -> {"section.key": value}."""


@dataclass(frozen=True)
class Entry:
    """One run of a comparison, of plain values."""

    label: str
    seed: int
    folder: str
    source: dict[str, Any]
    """As `config.loading.read` gives it."""
    set_by: dict[str, str]
    """"section.key" -> what sets it above the base: VARIANT, the file's settings, the command line."""


def command_line() -> Parser:
    parser = Parser("fedstil_mpi.compare", "Run several methods on several seeds and report.")
    parser.add_argument("config", help="a YAML file; see configs/compare/")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="for every run; name= and output= are the comparison's",
    )
    parser.add_argument("--seeds", type=integer, nargs="+", help="instead of the file's")
    parser.add_argument("--only", nargs="+", metavar="LABEL", help="these variants only")
    parser.add_argument("--no-report", action="store_true", help="runs only: for jobs that share a comparison")
    parser.add_argument("--verbose", action="store_true", help="of each run all that fedstil_mpi.run prints")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line()
    parser.help_first(arguments)
    with start() as world, listening() as asked:
        with world.verdict():
            options = parser.parse(arguments)
            plan = read(options.config, options.overrides) if world.is_server else None
            entries = expand(plan, options.config, options.overrides, options.seeds, options.only) if plan else []
        everywhere = [Entry(**entry) for entry in world.broadcast_json([asdict(entry) for entry in entries])]
        compare(world, everywhere, asked, "usual" if options.verbose else "brief")
        with world.verdict():
            write_labels(entries)
            if plan is not None and not options.no_report:
                report_on(plan, entries)


def read(path: str, overrides: Sequence[str] = ()) -> ComparisonConfig:
    """A comparison's config, which may extend others, below its own keys among the overrides.

    Raises InputError where it cannot be used.
    """
    from omegaconf import OmegaConf

    own = files.from_command_line([override for override in overrides if _key(override) in OWN_KEYS], OWN_KEYS)
    found = files.load(Path(path))
    if "base" not in found:
        raise InputError(f"{path} has no base:, so it is no comparison; python -m fedstil_mpi.run is for a single run")
    source = OmegaConf.create(files.plain(path, found, own))
    plan: ComparisonConfig = loading.structured(ComparisonConfig, [source], "comparison.")
    check_folder_name(plan.name)
    check_values(plan, "comparison.")
    plan.output = str(expanded(plan.output))
    plan.variants = {normalize("NFC", label): keys for label, keys in plan.variants.items()}
    plan.against = plan.against and normalize("NFC", plan.against)
    if not plan.variants or not plan.seeds or len(set(plan.seeds)) < len(plan.seeds):
        raise InputError(
            f"{path} has variants {list(plan.variants)} and seeds {plan.seeds}; give one or more of each, no seed twice"
        )
    if len(plan.variants) * len(plan.seeds) > MOST_RUNS:
        raise InputError(
            f"{path} has {len(plan.variants)} variants x {len(plan.seeds)} seeds; expected at most {MOST_RUNS:,} runs"
        )
    for label in plan.variants:
        if not label.isprintable() or len(label) > LONGEST_LABEL or label.startswith("_"):  # which no legend shows
            raise InputError(
                f"{path}: label {label!r}; expected at most {LONGEST_LABEL} printable characters, the first no _"
            )
        if not _in_names(label):
            raise InputError(
                f"{path} has the label {label!r}, of which no folder can be named; use some of a to z, 0 to 9"
            )
    if plan.against is not None and plan.against not in plan.variants:
        raise InputError(f"{path}: against = {plan.against!r}; expected one of {', '.join(plan.variants)}")
    return plan


def expand(
    plan: ComparisonConfig, path: str, overrides: list[str], seeds: Sequence[int] | None, only: Sequence[str] | None
) -> list[Entry]:
    """The runs of a comparison, seed by seed; what is named twice is run once.

    Raises InputError for labels that are none and for keys that it sets.
    """
    only = list(dict.fromkeys(normalize("NFC", label) for label in only or []))
    for label in only:
        if label not in plan.variants:
            raise InputError(
                f"--only {label!r}; {did_you_mean(label, plan.variants)}there are {', '.join(plan.variants)}"
            )
    overrides = [override for override in overrides if _key(override) not in OWN_KEYS]
    for override in overrides:
        if _key(override) in ("seed", "resume"):
            raise InputError(f"{override}: that is for the comparison to set; give --seeds, or seeds in {path}")
    base, folder = Path(path).parent / expanded(plan.base), Path(plan.output) / plan.name
    entries = []
    for seed in dict.fromkeys(seeds or plan.seeds):
        for label in only or plan.variants:
            name = f"{_in_names(label)}-{seed}"
            leaves = dict(files.leaves(plan.settings)) | dict(files.leaves(plan.variants[label]))
            own = {"seed": seed, "name": name, "output": str(folder), "resume": "auto"}
            source = loading.read(base, [*_arguments(leaves), *overrides, *_arguments(own)])
            entries.append(Entry(label, seed, str(folder / name), source, _set_by(plan, label, overrides)))
    names = [entry.folder for entry in entries]
    if len(set(names)) < len(names):
        raise InputError(f"{path} has labels that give one folder name: {', '.join(plan.variants)}; rename one")
    return entries


def _arguments(keys: Mapping[str, Any]) -> list[str]:
    return [files.as_argument(key, value) for key, value in keys.items()]


def _in_names(label: str) -> str:
    """What stands for a label in folders' names; empty where nothing can."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def _key(override: str) -> str:
    return override.partition("=")[0]


def _set_by(plan: ComparisonConfig, label: str, overrides: list[str]) -> dict[str, str]:
    """ "section.key" -> what sets it, above the base."""
    layers = {
        "the comparison's settings": plan.settings,
        VARIANT: plan.variants[label],
        "the command line": files.from_command_line(overrides),
    }
    return {key: name for name, layer in layers.items() for key, _ in files.leaves(layer)}


def compare(world: World, entries: list[Entry], asked: Callable[[], bool], detail: Detail) -> None:
    """Run what is not complete yet. All of it is checked before the first run starts. Collective: all ranks must call.

    asked: whether this rank was asked to stop; detail: how much is printed of each run.
    """
    with world.verdict():
        first = loading.resolve(entries[0].source)
    resources = open_shared_resources(world, first)
    with world.verdict():
        effective: set[str] = set()
        states = [prepare(entry, effective) for entry in entries] if world.is_server else None
    states = world.broadcast_json(states)
    for number, (entry, state) in enumerate(zip(entries, states, strict=True), 1):
        if state == "complete":
            continue
        if world.is_server:
            say(f"run {number} of {len(entries)}: {entry.label}, seed {entry.seed}")
        resources = execute(world, entry.source, resources, detail=detail, asked=asked)
        return_freed_memory()  # else the next run may not fit into its pieces: ten runs came to 5 GB instead of 0.5


def prepare(entry: Entry, effective: set[str]) -> str:
    """Check the run's config; returns the state of its folder.

    effective: labels none of whose settings is without effect, which the seed does not change; added to.
    """
    from fedstil_mpi.federation.effects import check_effects

    method, experiment = methods.resolve(entry.source)
    for key, value in experiment.method.overridden.items():
        if (by := entry.set_by.get(key, "the base")) != VARIANT:
            raise InputError(
                f"variant {entry.label!r} has preset {experiment.method.preset}, but {by} sets {key}={value}; set {key} in "
                "the variant itself, where it can be seen, or leave it to the preset"
            )
    check_installed(experiment.tracking)
    folder = RunFolder(Path(entry.folder))
    state = folder.state(experiment)
    if state == "complete":
        folder.open(experiment)  # what it was killed before removing
        folder.close()
    elif entry.label not in effective:
        check_effects(experiment, method)
        effective.add(entry.label)
    return state


def write_labels(entries: Sequence[Entry]) -> None:
    """Note in each run's folder what the comparison calls it. For one rank."""
    for entry in entries:
        write_text(Path(entry.folder) / "label", entry.label + "\n")


def report_on(plan: ComparisonConfig, entries: Sequence[Entry]) -> "report.Comparison":
    """Write the report beside the runs, show its table, and return what it is on. For one rank."""
    from fedstil_mpi import report

    against = plan.against if plan.against in {entry.label for entry in entries} else None
    found = report.load([Path(entry.folder) for entry in entries], against)
    report.show(found, report.write(found, Path(plan.output) / plan.name / "report"))
    return found


if __name__ == "__main__":
    main()
