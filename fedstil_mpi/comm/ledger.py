"""The ledger: which client received or sent how many bytes of which kind in which round.

It counts what edge links would carry: a broadcast of n bytes to K online clients is K x n. What MPI itself moved
between ranks depends on the number of ranks and stands beside it, in `Exchange.moved`.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from fedstil_mpi.comm.flat import Part
    from fedstil_mpi.util.state_tree import State

DOWN, UP = "S2C", "C2S"
"""The directions of an edge link: server to client, client to server."""

_round_of = attrgetter("round")

HEADER_BYTES = 8
"""What an edge link carries so that the receiver of a ragged part knows how many items follow: one int64."""


class Entry(NamedTuple):
    round: int
    client: int
    direction: str
    """S2C (server to client) or C2S (client to server)."""
    kind: str
    raw: int
    """Bytes as dense scalars."""
    encoded: int
    """Bytes as they leave after the codec."""


@dataclass
class Ledger:
    """All entries of a run, in the order in which payloads entered a collective. Kept on rank 0."""

    entries: list[Entry] = field(default_factory=list)
    _sums: defaultdict = field(default_factory=lambda: defaultdict(int))
    """Encoded bytes by (direction, round or None for all, client or None for all)."""
    _open: set[str] = field(default_factory=set)
    """Kinds of which the encoded bytes are not known; the raw ones stand for them, or the most there can be."""
    _optional: set[tuple[str, str]] = field(default_factory=set)
    """(direction, kind) of which another ledger may lack entries that are here."""
    _apart: defaultdict[tuple[str, str], list[tuple]] | None = None
    """What `book` is to be given once all is there, `together`: by direction and part."""

    def book(self, round: int, client: int, direction: str, kind: str, raw: int, encoded: int | None = None) -> None:
        """Book one payload of one client; payloads of zero bytes leave no entry."""
        if not raw and not encoded:
            return
        entry = Entry(round, client, direction, kind, raw, raw if encoded is None else encoded)
        self.entries.append(entry)
        sums = self._sums
        sums[direction, round, client] += entry.encoded
        sums[direction, round, None] += entry.encoded
        sums[direction, None, client] += entry.encoded
        sums[direction, None, None] += entry.encoded

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is booked inside, portion by portion of the clients, is entered as if it had been one: part by part, in client order."""
        self._apart = defaultdict(list)
        yield
        apart, self._apart = self._apart, None
        for payloads in apart.values():
            for payload in sorted(payloads, key=lambda payload: payload[1]):
                self.book(*payload)

    def leave_open(self, kind: str) -> None:
        """Say that the encoded bytes of this kind are not those that will be measured."""
        self._open.add(kind)

    def let_lack(self, direction: str, kind: str) -> None:
        """Say that senders may leave out what is booked here of this kind in this direction."""
        self._optional.add((direction, kind))

    def book_rows(
        self, round: int, direction: str, part: "Part", online: Sequence[int], rows: Any, written: Any = None
    ) -> None:
        """Book a part of the messages of all online clients, with the headers of a ragged one.

        rows: what the method sends, by online client; written: what a codec made of it, None where this is not known.
        """
        coded, apart = part.codec != "dense", self._apart

        def keep(*payload: Any) -> None:
            assert apart is not None
            apart[direction, part.kind].append(payload)

        book = self.book if apart is None else keep
        if coded and written is None:
            self.leave_open(part.kind)
        for index, client in enumerate(online):
            items = len(rows[index]) if part.ragged else 1
            raw, encoded = items * part.itemsize, written[index].numel() if coded and written is not None else None
            if part.raw is not None:
                raw, encoded = part.raw * (items if part.at_most is None else min(items, 1)), raw
            book(round, client, direction, part.kind, raw, encoded)
            if part.ragged:
                book(round, client, direction, "header", HEADER_BYTES)

    def state(self, since: int = 0) -> "State":
        """since: a round after which only entries of later ones are in it."""
        first = bisect_right(self.entries, since, key=_round_of)
        return {"entries": [list(entry) for entry in self.entries[first:]], "open": sorted(self._open)}

    def restore(self, state: "State") -> None:
        """Take up what `state` gave, after what is here."""
        self._open.update(state["open"])
        for entry in state["entries"]:
            self.book(*entry)

    def total(self, direction: str, round: int | None = None, client: int | None = None) -> int:
        """Encoded bytes in one direction, of one round or all, of one client or all."""
        return self._sums.get((direction, round, client), 0)

    def by_kind(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(direction, kind) -> (raw, encoded) bytes of the whole run."""
        sums: dict[tuple[str, str], tuple[int, int]] = {}
        for e in self.entries:
            raw, encoded = sums.get((e.direction, e.kind), (0, 0))
            sums[e.direction, e.kind] = (raw + e.raw, encoded + e.encoded)
        return sums

    def of_round(self, round: int | None) -> Sequence[Entry]:
        """The entries of a round, found where rounds were booked in order; None: of all."""
        if round is None:
            return self.entries
        first = bisect_left(self.entries, round, key=_round_of)
        return self.entries[first : bisect_right(self.entries, round, first, key=_round_of)]

    def difference(self, other: "Ledger", round: int | None = None) -> list[str]:
        """Lines that say where two ledgers disagree, in a round or altogether; empty when every entry is equal, whatever
        the order.

        Encoded bytes of which one of the two knows nothing are not compared, and what may be left out may be missing.
        """
        unknown = self._open | other._open
        mine, theirs = (Counter(_comparable(e, unknown) for e in of.of_round(round)) for of in (self, other))
        here = (e for e in _rest(mine, theirs) if (e.direction, e.kind) not in self._optional)
        there = (e for e in _rest(theirs, mine) if (e.direction, e.kind) not in other._optional)
        return [f"only here: {e}" for e in here] + [f"only there: {e}" for e in there]


def _comparable(entry: Entry, unknown: set[str]) -> Entry:
    return entry._replace(encoded=entry.raw) if entry.kind in unknown else entry


def _rest(a: Counter, b: Counter) -> Iterable[Entry]:
    return sorted((a - b).elements())
