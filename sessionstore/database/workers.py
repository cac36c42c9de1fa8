"""Daemon threads that run calls for awaiting tasks; they start when the first call comes and never keep a program alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

# As many as there are readers: more could only wait for a connection.
READER_THREADS: Final = 4


class Workers:
    """A few threads that take calls from one queue. A call must not raise: it keeps its own outcome."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()

    def submit(self, call: Callable[[], None]) -> None:
        """Run a call on some thread, soon."""
        with self._lock:
            if self._idle == 0 and len(self._threads) < self._most:
                name = f"{self._name}-{len(self._threads) + 1}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._calls.put(call)

    def stop(self) -> None:
        """Let the threads end after what they have been given."""
        for _ in self._threads:
            self._calls.put(None)

    def _serve(self) -> None:
        while True:
            self._idle += 1
            call = self._calls.get()
            self._idle -= 1
            if call is None:
                return
            call()
            del call
