"""Signs of life from the workers, for the driver; it does not know what they do."""


class Heartbeats:
    """Counts heartbeats; an actor, since Ray Train reports nothing between two epochs."""

    def __init__(self) -> None:
        self._count = 0

    def beat(self) -> None:
        """A worker is alive."""
        self._count += 1

    def count(self) -> int:
        """How many heartbeats there were; starts again at 0 if the actor was restarted."""
        return self._count
