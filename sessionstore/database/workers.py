"""Daemon threads that run calls for awaiting tasks; they start when the first call comes and never keep a program alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from ..errors import ClosedStoreError

# As many as there are readers: more could only wait for a connection.
READER_THREADS: Final = 4


class Workers:
    """A few threads that take calls from one queue. A call must not raise: it keeps its own outcome."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._stopped = False
        # Whoever is interrupted while holding it can take it again.
        self._lock = threading.RLock()

    def submit(self, call: Callable[[], None]) -> None:
        """Run a call on some thread, soon.

        Raises:
            ClosedStoreError: The threads were stopped.
        """
        with self._lock:
            if self._stopped:
                raise ClosedStoreError
            self._unfinished += 1
            if self._unfinished > len(self._threads) and len(self._threads) < self._most:
                name = f"{self._name}-{len(self._threads) + 1}"
                self._threads.append(threading.Thread(target=self._serve, name=name, daemon=True))
                self._threads[-1].start()
            self._calls.put(call)

    def stop(self) -> None:
        """Let the threads end after what they have been given."""
        with self._lock:
            self._stopped = True
            # Also the second time: the first one may have been interrupted.
            for _ in self._threads:
                self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            # Nothing of a call may live on until the next one comes.
            del call
            with self._lock:
                self._unfinished -= 1
