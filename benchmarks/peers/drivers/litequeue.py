"""litequeue: pop locks an item, done marks it; both stay in its table until they are pruned."""

from __future__ import annotations

from ..driver import Queue


class Lite(Queue):
    """LiteQueue."""

    def open(self) -> None:
        from litequeue import LiteQueue

        self._queue = LiteQueue(self.path)

    def put(self, item: str) -> None:
        self._queue.put(item)

    def take(self) -> bool:
        message = self._queue.pop()
        if message is None:
            return False
        self._queue.done(message.message_id)
        return True

    def close(self) -> None:
        self._queue.conn.close()
