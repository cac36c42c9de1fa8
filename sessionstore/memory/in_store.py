"""The store as a memory backend: a conversation is a session, and a save appends what is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .documents import conversation_id

if TYPE_CHECKING:
    from ..aio import AsyncSessionStore
    from ..store import SessionStore


class StoreBackend:
    """Whole conversations in a store, made by `store.as_memory_backend()`. It closes with its store.

    What is saved are sessions like all others: they expire by the store's `ttl`, are searched, counted and told to the remote.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Append what a conversation has more than its session, which is made if there is none, in one transaction.

        The session's idle time begins anew, also where nothing is new. Of two that save at once, the later one sees what the
        earlier one stored.

        Args:
            session_id: As for `session`.
            messages: The whole conversation, oldest first. Dicts of other shapes than messages are kept, too.

        Raises:
            ConflictError: The session holds other messages than the first of these; nothing is changed.
            InvalidInputError: The id or a message is refused.
        """
        self._store._save_document(session_id, messages)  # noqa: SLF001 - the store's own face

    def load(self, session_id: str) -> list[dict[str, Any]] | None:
        """The messages of a session; None if there is none, or if it has expired."""
        return self._store._load_document(session_id)  # noqa: SLF001

    def delete(self, session_id: str) -> None:
        """Delete a session; nothing happens if there is none."""
        self._store.delete(conversation_id(session_id))

    def list(self) -> list[str]:
        """The ids of all sessions that have not expired, sorted."""
        return self._store._document_ids()  # noqa: SLF001

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"


class AsyncStoreBackend:
    """Whole conversations in a store, awaited. The methods are those of `StoreBackend`."""

    def __init__(self, store: AsyncSessionStore) -> None:
        self._store = store

    async def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Append what a conversation has more than its session; the arguments are those of the sync method."""
        await self._store._save_document(session_id, messages)  # noqa: SLF001 - the store's own face

    async def load(self, session_id: str) -> list[dict[str, Any]] | None:
        """The messages of a session; None if there is none, or if it has expired."""
        return await self._store._load_document(session_id)  # noqa: SLF001

    async def delete(self, session_id: str) -> None:
        """Delete a session; nothing happens if there is none."""
        await self._store.delete(conversation_id(session_id))

    async def list(self) -> list[str]:
        """The ids of all sessions that have not expired, sorted."""
        return await self._store._document_ids()  # noqa: SLF001

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"
