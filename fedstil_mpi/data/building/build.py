"""Public sets -> a pack: list, read once, share out among clients and tasks, divide, write."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

import numpy as np

import fedstil_mpi
from fedstil_mpi.data import readers
from fedstil_mpi.data.building.clients import assign_clients
from fedstil_mpi.data.building.disk_space import check_disk_space, make_folder
from fedstil_mpi.data.building.division import Division
from fedstil_mpi.data.building.pool import Pool, pool
from fedstil_mpi.data.building.protocols import Protocol, divide
from fedstil_mpi.data.building.scratch import Scratch
from fedstil_mpi.data.building.survey import Survey, survey
from fedstil_mpi.data.building.tasks import assign_tasks
from fedstil_mpi.data.pack import write_pack
from fedstil_mpi.data.pack.manifest import Manifest, Plan
from fedstil_mpi.data.readers.records import ImageRecord
from fedstil_mpi.util import plugins
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.progress import Progress, unseen

Sets = Mapping[str, Sequence[ImageRecord]]
"""Label of a set -> its images, by source."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What to build. Everything but the roots, `out` and `threads` goes into the pack's description."""

    sets: tuple[tuple[str, Path], ...]
    """(name of the reader, root)."""
    out: Path
    clients: int | None = None
    """None: as many as cameras, or, with assign "set", as sets."""
    tasks: int = 6
    height: int = 128
    width: int = 64
    protocol: Protocol = field(default_factory=Protocol)
    assign: str = "merge"
    order: str = "random"
    ratio: float = 0.5
    distance: float = 3.0
    seed: int = 0
    skip_unreadable: bool = False
    follow_links: bool = False
    threads: int = 4


@dataclass(frozen=True)
class Summary:
    """What was built of what was found."""

    plan: Plan
    found: dict[str, int]
    """Label of a set -> its files."""
    duplicates: dict[str, int]
    """Label of a set -> how many of them were left out because an earlier image has the same pixels."""
    passed_over: dict[str, Mapping[str, int]]
    """Label of a set -> reason -> how many files, or folders as a whole, were not taken for its images."""
    unreadable: tuple[Path, ...]
    """Files that were left out."""
    size: int
    """Bytes of the pack."""
    seconds: float


@dataclass(frozen=True)
class Draft:
    """The client and task of every image of some sets, and what each is for."""

    pool: Pool
    client: np.ndarray
    """int64 [n], the client of each image of the pool."""
    task: np.ndarray
    """int64 [n], its task there."""
    clients: int
    division: Division


def build(options: BuildOptions, progress: Progress = unseen) -> Summary:
    """Builds a pack. Equal options and files give equal bytes. Raises InputError and leaves nothing behind then.

    A first draft of all files is made before any is read, so that a mistake costs no time; a second one has those that
    remain without duplicates.
    """
    start = time.monotonic()
    listed = _read(options.sets, options.follow_links)
    sets = {label: found.records for label, found in listed.items()}
    files = [(label, record) for label, records in sets.items() for record in records]
    size = {"height": options.height, "width": options.width}
    stored = len(_draft(sets, options).division.rows)
    make_folder(options.out)
    check_disk_space(options.out, read=len(files), stored=stored, **size)
    with Scratch(options.out, **size) as scratch:
        found = survey(
            [record.path for _, record in files],
            scratch,
            threads=options.threads,
            skip_unreadable=options.skip_unreadable,
            watch=progress("reading", len(files)),
        )
        draft = _draft(_kept(sets, [files[number] for number in found.kept]), options)
        plan, rows = _plan(draft, found, options.tasks), draft.division.rows
        blocks = progress("writing", len(rows))(scratch.blocks(rows))
        about = _about(options, tuple(sets), duplicates=len(found.duplicates), unreadable=len(found.unreadable))
        write_pack(options.out, plan, blocks, about=about, **size)
    return Summary(
        plan,
        {label: len(records) for label, records in sets.items()},
        Counter(files[number][0] for number in found.duplicates),
        {label: found.passed_over for label, found in listed.items()},
        tuple(files[number][1].path for number in found.unreadable),
        options.out.stat().st_size,
        time.monotonic() - start,
    )


def _read(sets: Iterable[tuple[str, Path]], follow_links: bool) -> dict[str, readers.Found]:
    """Lists the sets. A second one by the same reader is labelled "<name>-2"."""
    found: dict[str, readers.Found] = {}
    for name, root in sets:
        label = plugins.label(name)
        numbered = chain([label], (f"{label}-{number}" for number in count(2)))
        found[next(free for free in numbered if free not in found)] = readers.read(name, root, follow_links)
    return found


def _kept(sets: Sets, files: Iterable[tuple[str, ImageRecord]]) -> Sets:
    """What is left of the sets. Raises InputError where one is empty."""
    kept: dict[str, list[ImageRecord]] = {label: [] for label in sets}
    for label, record in files:
        kept[label].append(record)
    for label, records in kept.items():
        if not records:
            raise InputError(
                f"nothing is left of the set {label}: its {len(sets[label])} images are duplicates of others or unreadable; "
                "leave it out or check its folder"
            )
    return kept


def _draft(sets: Sets, options: BuildOptions) -> Draft:
    images, seed, tasks = pool(sets), options.seed, options.tasks
    client = assign_clients(images, options.clients, options.assign)
    clients = int(client.max()) + 1
    mixing = {"ratio": options.ratio, "distance": options.distance}
    task = assign_tasks(images, client, tasks, order=options.order, seed=seed, **mixing)
    return Draft(images, client, task, clients, divide(images, client, task, clients, tasks, options.protocol, seed))


def _plan(draft: Draft, found: Survey, tasks: int) -> Plan:
    """Rows of the pool and of the survey are the same: both are ordered by set, then source."""
    division = draft.division
    manifest = Manifest(
        draft.client[division.rows],
        draft.task[division.rows],
        division.role,
        division.person,
        division.camera,
        tuple(draft.pool.sources[row] for row in division.rows),
        found.file_sha256[division.rows],
        found.pixels_sha256[division.rows],
    )
    return Plan(draft.clients, tasks, manifest, division.splits)


def _about(options: BuildOptions, labels: Sequence[str], **left_out: int) -> dict[str, str]:
    """How the pack was made, for whoever opens it; nothing that differs between two equal builds."""
    protocol = options.protocol
    shares = {
        "closed": f"train {protocol.train}, query {protocol.query}",
        "open": f"train people {protocol.train_people}, query {protocol.query / (1 - protocol.train):g} of the others",
        "reference_code": f"train {protocol.train}, query {protocol.query}, gallery {protocol.gallery}",
    }
    return {
        "program": f"fedstil_mpi {fedstil_mpi.__version__}, build",
        "sets": ", ".join(labels),
        "protocol": f"{protocol.name} ({shares[protocol.name]})",
        "clients": f"by {options.assign}",
        "tasks": f"{options.order} order, mixing ratio {options.ratio} distance {options.distance}",
        "seed": str(options.seed),
        **{name: f"{count} left out" for name, count in left_out.items()},
    }
