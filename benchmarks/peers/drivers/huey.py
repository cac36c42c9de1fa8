"""The storage of huey: a dequeue deletes the item, there is nothing to acknowledge."""

from __future__ import annotations

from ..driver import Queue


class Storage(Queue):
    """SqliteStorage."""

    def open(self) -> None:
        from huey.storage import SqliteStorage

        self._storage = SqliteStorage("queue", filename=self.path)

    def put(self, item: str) -> None:
        self._storage.enqueue(item.encode())

    def take(self) -> bool:
        return self._storage.dequeue() is not None

    def close(self) -> None:
        self._storage.close()
