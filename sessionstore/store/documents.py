"""The calls that treat a session as a whole document, for memory backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .. import hints, queries
from ..content import StoredContent, decode
from ..rows import PreparedMessage, prepare
from .sessions import SessionCalls

if TYPE_CHECKING:
    from . import SessionStore


class DocumentCalls(SessionCalls):
    """Whole documents."""

    def as_memory_backend(self) -> hints.StoreBackend:
        """The store as a `MemoryBackend`: whole conversations, kept as the sessions of the store's namespace.

        A save appends what is new. One that would change or drop what is stored raises `ConflictError`.
        """
        from ..memory.in_store import StoreBackend

        return StoreBackend(cast("SessionStore", self))

    def _save_document(self, session_id: str, messages: object) -> None:
        from ..memory import documents

        settings = self._settings
        new = self._new_session(documents.conversation_id(session_id), {})
        given = documents.checked(messages, max_bytes=settings.max_text_bytes)

        def prepared(each: StoredContent) -> PreparedMessage:
            message = decode(each.role, each.text, each.extra)
            return prepare(message, kind=each.kind, max_bytes=settings.max_text_bytes, compress_over=settings.compress_over)

        return self._write(lambda db: queries.documents.save(db, new, given, prepared))

    def _load_document(self, session_id: str) -> list[dict[str, Any]] | None:
        from ..memory import documents

        wanted = documents.conversation_id(session_id)
        return self._read(lambda db: queries.documents.load(db, self.namespace, wanted))

    def _document_ids(self) -> list[str]:
        return self._read(lambda db: queries.documents.ids(db, self.namespace))
