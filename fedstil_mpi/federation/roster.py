"""What a rank has of each of its clients, made when it is first asked for: of one that never takes part it has a number."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


class Roster(Mapping[int, T]):
    """Client -> what there is of it, in the order given."""

    def __init__(self, clients: Iterable[int], make: Callable[[int], T]):
        self._clients = dict.fromkeys(clients)
        self._make = make
        self._made: dict[int, T] = {}

    def __getitem__(self, client: int) -> T:
        if client not in self._made:
            if client not in self._clients:
                raise KeyError(client)
            self._made[client] = self._make(client)
        return self._made[client]

    def __contains__(self, client: object) -> bool:
        return client in self._clients

    def __iter__(self) -> Iterator[int]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def change(self, gone: Iterable[int], come: Iterable[int]) -> None:
        """Clients that are here no more, with what there was of them, and others that are now; in ascending order from then on."""
        for client in gone:
            del self._clients[client]
            self._made.pop(client, None)
        self._clients = dict.fromkeys(sorted([*self._clients, *come]))

    def made(self) -> dict[int, T]:
        """Of those that were asked for so far, by client in ascending order."""
        return dict(sorted(self._made.items()))
