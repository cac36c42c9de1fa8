"""persist-queue: its queue with acknowledgements on SQLite."""

from __future__ import annotations

from ..driver import Queue


class Ack(Queue):
    """SQLiteAckQueue; what was acknowledged stays in its table until it is cleared."""

    def open(self) -> None:
        import persistqueue

        self._queue = persistqueue.SQLiteAckQueue(f"{self.path}-queue", auto_commit=True, multithreading=True)

    def put(self, item: str) -> None:
        self._queue.put(item)

    def take(self) -> bool:
        return self._queue.ack(self._queue.get(block=False)) is not None

    def close(self) -> None:
        self._queue.close()
