"""The store: sessions, sync and awaited; events that wait for a remote, as `record` leaves them and alone."""

from __future__ import annotations

import json
from typing import Any

import sessionstore

from ..driver import Conversations, Messages, Queue

_PAGE = 1_000
# Nobody listens there: events wait until they are taken by the benchmark.
_REMOTE = "http://127.0.0.1:9"
_MOST_BYTES = 1 << 20
_STREAM = "metrics"


class Sync(Conversations):
    """`sessionstore.open`."""

    def open(self) -> None:
        self._store = sessionstore.open(self.path, durability=_durability(self.sync))
        self._chats: dict[str, sessionstore.SessionHandle] = {}

    def new(self, session_id: str) -> None:
        self._chats[session_id] = self._store.session(session_id)

    def fill(self, session_id: str, messages: Messages) -> None:
        self.new(session_id)
        self._chats[session_id].append_many(messages)

    def resume(self, session_id: str, messages: Messages) -> None:
        self.new(session_id)

    def turn(self, session_id: str, ready: Messages) -> None:
        self._chats[session_id].append_many(ready)

    def newest(self, session_id: str, count: int) -> int:
        return len([message.to_dict() for message in self._store.messages(session_id, last=count)])

    def whole(self, session_id: str) -> int:
        return len([message.to_dict() for message in self._store.messages(session_id)])

    def fill_list(self, count: int) -> None:
        for number in range(count):
            self._store.session(f"session-{number}")

    def listed(self) -> int:
        count, cursor = 0, None
        while True:
            page = self._store.list(limit=_PAGE, cursor=cursor)
            count += len(page.items)
            if (cursor := page.next_cursor) is None:
                return count

    def close(self) -> None:
        self._store.close()


class Async(Conversations):
    """`sessionstore.aopen`."""

    async def open(self) -> None:
        self._store = await sessionstore.aopen(self.path, durability=_durability(self.sync))
        self._chats: dict[str, sessionstore.AsyncSessionHandle] = {}

    async def new(self, session_id: str) -> None:
        self._chats[session_id] = await self._store.session(session_id)

    async def fill(self, session_id: str, messages: Messages) -> None:
        await self.new(session_id)
        await self._chats[session_id].append_many(messages)

    async def resume(self, session_id: str, messages: Messages) -> None:
        await self.new(session_id)

    async def turn(self, session_id: str, ready: Messages) -> None:
        await self._chats[session_id].append_many(ready)

    async def newest(self, session_id: str, count: int) -> int:
        return len([message.to_dict() for message in await self._store.messages(session_id, last=count)])

    async def whole(self, session_id: str) -> int:
        return len([message.to_dict() for message in await self._store.messages(session_id)])

    async def fill_list(self, count: int) -> None:
        for number in range(count):
            await self._store.session(f"session-{number}")

    async def listed(self) -> int:
        count, cursor = 0, None
        while True:
            page = await self._store.list(limit=_PAGE, cursor=cursor)
            count += len(page.items)
            if (cursor := page.next_cursor) is None:
                return count

    async def close(self) -> None:
        await self._store.close()


class Record(Queue):
    """A figure recorded with a remote set: kept for analytics and enqueued, in one transaction. Taken as a drain does."""

    def open(self) -> None:
        from sessionstore.remote.settlement import Settlement, lease_for

        self._store = sessionstore.open(self.path, durability=_durability(self.sync), remote=_REMOTE)
        self._settlement = Settlement
        self._lease = lease_for(30)
        self._held: list[Any] = []

    def put(self, item: str) -> None:
        self._store.record("answer", 812.5, "ms", {"content": item})

    def put_many(self, items: list[str]) -> None:
        self._store.record_many(_figures(items))

    def take(self) -> bool:
        return self.take_many(1)

    def take_many(self, count: int) -> bool:
        """Settle what was taken the last time and claim the next ones, which is one transaction: the loop of a drain."""
        settled = self._settlement(token="token", sent_before=0, sent=tuple(self._held), over=True)
        self._held = self._store._settle_and_claim(settled, count, _MOST_BYTES, self._lease)
        return len(self._held) == count

    def close(self) -> None:
        self._store.close(drain_timeout=0)


class Outbox(Record):
    """The outbox alone: what is enqueued beside any other write, in a transaction of its own. Not a public call."""

    def open(self) -> None:
        super().open()
        from sessionstore import clock
        from sessionstore.queries import outbox
        from sessionstore.remote.events import METRIC, Event

        self._enqueue = outbox.enqueue
        self._event = lambda item: Event(METRIC, _STREAM, "", clock.utc_now(), {"name": "answer", "attributes": json.loads(item)})

    def put(self, item: str) -> None:
        self.put_many([item])

    def put_many(self, items: list[str]) -> None:
        told = [self._event(item) for item in items]
        self._store._write(lambda db: self._enqueue(db, told))


class AsyncRecord(Queue):
    """The same awaited."""

    async def open(self) -> None:
        self._store = await sessionstore.aopen(self.path, durability=_durability(self.sync), remote=_REMOTE)

    async def put(self, item: str) -> None:
        await self._store.record("answer", 812.5, "ms", {"content": item})

    async def put_many(self, items: list[str]) -> None:
        await self._store.record_many(_figures(items))

    async def close(self) -> None:
        await self._store.close(drain_timeout=0)


def _figures(items: list[str]) -> list[sessionstore.NewMetric]:
    return [sessionstore.NewMetric("answer", 812.5, "ms", {"content": item}) for item in items]


def _durability(sync: str) -> Any:
    return sync or "full"
