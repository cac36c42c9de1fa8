"""Checkpointers of LangGraph: a checkpoint with two messages more than the one before is put; the newest one is read, whole."""

from __future__ import annotations

import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, ClassVar

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.sqlite import SqliteSaver

import sessionstore
from sessionstore.adapters.langgraph import SessionStoreSaver

from .. import texts
from .driver import OURS, Driver, Framework


class _Checkpoints(Driver):
    """A thread whose state is a growing list of messages."""

    recent: ClassVar[int | None] = None
    saver: BaseCheckpointSaver[Any]

    async def begin(self, length: int) -> None:
        """Put a checkpoint with so many messages, which all turns go on from, so that the state stays as long as it is."""
        self._base: list[AnyMessage] = [_message(one, number) for number, one in enumerate(texts.history(length))]
        self._begun: RunnableConfig = {"configurable": {"thread_id": "chat", "checkpoint_ns": ""}}
        self._version: Any = None
        self._begun = self._put(self._base)

    async def turn(self, number: int) -> None:
        begin = len(self._base) + 2 * number
        self._put([*self._base, *(_message(one, begin + place) for place, one in enumerate(texts.turn(number)))])

    async def newest(self) -> int:
        found = self.saver.get_tuple({"configurable": {"thread_id": "chat", "checkpoint_ns": ""}})
        return len(found.checkpoint["channel_values"]["messages"]) if found is not None else 0

    def _put(self, messages: list[AnyMessage]) -> RunnableConfig:
        self._version = self.saver.get_next_version(self._version, None)
        checkpoint = {
            **empty_checkpoint(),
            "id": str(uuid6()),
            "channel_values": {"messages": messages},
            "channel_versions": {"messages": self._version},
        }
        metadata: Any = {"source": "loop", "step": len(messages), "parents": {}}
        return self.saver.put(self._begun, checkpoint, metadata, {"messages": self._version})  # type: ignore[arg-type]


class _Ours(_Checkpoints):
    async def open(self, path: Path, length: int, stack: AsyncExitStack) -> None:
        self.saver = SessionStoreSaver(stack.enter_context(sessionstore.open(path)))
        await self.begin(length)


class _Own(_Checkpoints):
    async def open(self, path: Path, length: int, stack: AsyncExitStack) -> None:
        self.saver = SqliteSaver(stack.enter_context(closing(sqlite3.connect(path, check_same_thread=False))))
        await self.begin(length)


def _message(message: dict[str, str], number: int) -> AnyMessage:
    kind = HumanMessage if message["role"] == "user" else AIMessage
    return kind(content=message["content"], id=f"message-{number}")


FRAMEWORK = Framework(
    "LangGraph", "a checkpoint of two messages more than", "the checkpoint of", {OURS: _Ours, "SqliteSaver": _Own}
)
