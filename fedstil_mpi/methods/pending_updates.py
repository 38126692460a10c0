"""What goes to every other client once, when it is new."""


class PendingUpdates:
    """Which clients have not yet got the newest of what the others sent."""

    def __init__(self, clients: int):
        self.clients = range(clients)
        self.waiting: set[int] = set()

    def mark(self, sender: int) -> None:
        self.waiting.update(client for client in self.clients if client != sender)

    def take(self, client: int) -> bool:
        """Whether there is something new for this client, which it has from now on."""
        waits = client in self.waiting
        self.waiting.discard(client)
        return waits
