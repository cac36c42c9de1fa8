"""A bell that any thread may ring for whoever waits to hear it: there are events on disk that are to be delivered."""

from __future__ import annotations

from collections.abc import Callable


class Bell:
    """Calls everybody who waits, in the thread that rings."""

    def __init__(self) -> None:
        self._listeners: set[Callable[[], None]] = set()

    def add(self, listener: Callable[[], None]) -> None:
        """Let somebody hear it from now on."""
        self._listeners.add(listener)

    def discard(self, listener: Callable[[], None]) -> None:
        """Let somebody hear it no more."""
        self._listeners.discard(listener)

    def ring(self) -> None:
        """Call them all. A listener does next to nothing: a commit waits for it."""
        for listener in tuple(self._listeners):
            listener()
