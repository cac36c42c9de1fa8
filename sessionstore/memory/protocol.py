"""The protocol of memory backends: places that keep whole conversations by their ids.

A conversation is a list of message dicts. What one backend of this library takes, every other one takes too, and gives back
equal, so that conversations can be moved between them.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol, TypeGuard, runtime_checkable


@runtime_checkable
class MemoryBackend(Protocol):
    """A place that keeps whole conversations. A class with these four methods is one."""

    def save(self, session_id: str, messages: list[dict[str, Any]]) -> None:
        """Keep a conversation: all of its messages, oldest first. What was kept under the id before gives way.

        A save that raises has changed nothing: whoever loads gets the conversation from before.
        """

    def load(self, session_id: str) -> list[dict[str, Any]] | None:
        """The messages of a conversation, equal to those saved; None if there is none (or no more, where they expire)."""

    def delete(self, session_id: str) -> None:
        """Forget a conversation; nothing happens if there is none."""

    def list(self) -> list[str]:
        """The ids of all conversations, sorted."""


@runtime_checkable
class AsyncMemoryBackend(Protocol):
    """A place that keeps whole conversations, awaited: the methods of `MemoryBackend` as coroutines.

    `isinstance` looks at names only, so a backend of one kind passes for the other; `is_async` tells them apart.
    """

    async def save(self, session_id: str, messages: list[dict[str, Any]]) -> None:
        """Keep a conversation: all of its messages, oldest first."""

    async def load(self, session_id: str) -> list[dict[str, Any]] | None:
        """The messages of a conversation; None if there is none."""

    async def delete(self, session_id: str) -> None:
        """Forget a conversation; nothing happens if there is none."""

    async def list(self) -> list[str]:
        """The ids of all conversations, sorted."""


def is_async(backend: MemoryBackend | AsyncMemoryBackend) -> TypeGuard[AsyncMemoryBackend]:
    """Whether the methods of a backend are to be awaited."""
    return inspect.iscoroutinefunction(backend.save)
