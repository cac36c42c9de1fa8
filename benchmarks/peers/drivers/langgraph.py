"""Checkpointers of LangGraph: a turn is one checkpoint with two messages more, a list one of all checkpoints."""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from typing import Any

from ..driver import Conversations, Messages


class _Saver(Conversations):
    """A thread whose state is the growing list of its messages."""

    def open(self) -> None:
        from langchain_core.messages import AIMessage, HumanMessage
        from langgraph.checkpoint.base import empty_checkpoint
        from langgraph.checkpoint.base.id import uuid6

        self._kinds = {"user": HumanMessage, "assistant": AIMessage}
        self._empty, self._id = empty_checkpoint, uuid6
        self._states: dict[str, tuple[list[Any], Any, dict[str, Any]]] = {}
        self.saver = self.make()

    @abstractmethod
    def make(self) -> Any:
        """The checkpointer."""

    def new(self, session_id: str) -> None:
        self._states[session_id] = ([], None, _thread(session_id))

    def fill(self, session_id: str, messages: Messages) -> None:
        self.new(session_id)
        self.turn(session_id, self.ready(session_id, messages))

    def resume(self, session_id: str, messages: Messages) -> None:
        found = self.saver.get_tuple(_thread(session_id))
        if found is None:
            self.new(session_id)
        else:
            version = found.checkpoint["channel_versions"]["messages"]
            self._states[session_id] = (found.checkpoint["channel_values"]["messages"], version, found.config)

    def ready(self, session_id: str, messages: Messages) -> list[Any]:
        return [self._kinds[one["role"]](content=one["content"], id=str(self._id())) for one in messages]

    def turn(self, session_id: str, ready: list[Any]) -> None:
        before, version, config = self._states[session_id]
        messages = [*before, *ready]
        version = self.saver.get_next_version(version, None)
        checkpoint = {
            **self._empty(),
            "id": str(self._id()),
            "channel_values": {"messages": messages},
            "channel_versions": {"messages": version},
        }
        metadata = {"source": "loop", "step": len(messages), "parents": {}}
        config = self.saver.put(config, checkpoint, metadata, {"messages": version})
        self._states[session_id] = (messages, version, config)

    def newest(self, session_id: str, count: int) -> int:
        return len(self._read(session_id)[-count:])

    def whole(self, session_id: str) -> int:
        return len(self._read(session_id))

    def fill_list(self, count: int) -> None:
        for number in range(count):
            self.fill(f"session-{number}", [{"role": "user", "content": f"Hello, {number}"}])
        self._states.clear()

    def listed(self) -> int:
        return sum(1 for _ in self.saver.list(None))

    def _read(self, session_id: str) -> list[Any]:
        found = self.saver.get_tuple(_thread(session_id))
        return [] if found is None else found.checkpoint["channel_values"]["messages"]


class Sqlite(_Saver):
    """SqliteSaver."""

    def make(self) -> Any:
        from langgraph.checkpoint.sqlite import SqliteSaver

        self._connection = sqlite3.connect(self.path, check_same_thread=False)
        saver = SqliteSaver(self._connection)
        saver.setup()
        return saver

    def close(self) -> None:
        self._connection.close()


class Adapter(_Saver):
    """SessionStoreSaver, this store's adapter."""

    def make(self) -> Any:
        import sessionstore
        from sessionstore.adapters.langgraph import SessionStoreSaver

        self._store = sessionstore.open(self.path, durability=self.sync or "full")  # type: ignore[arg-type]
        return SessionStoreSaver(self._store)

    def close(self) -> None:
        self._store.close()


def _thread(session_id: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": session_id, "checkpoint_ns": ""}}
