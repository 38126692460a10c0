"""What is told to everybody once, when it is new."""


class PendingUpdates:
    """Which clients have not yet got the newest of what the others told."""

    def __init__(self, clients: int):
        self.clients = range(clients)
        self.lacking: set[int] = set()

    def tell(self, teller: int) -> None:
        self.lacking.update(client for client in self.clients if client != teller)

    def deliver(self, client: int) -> bool:
        """Whether there is news for this client, which it has from now on."""
        lacks = client in self.lacking
        self.lacking.discard(client)
        return lacks
