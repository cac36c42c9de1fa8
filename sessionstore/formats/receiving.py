"""Putting conversations that come from files into a store: each is one transaction, and what became of it is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from .. import queries
from ..config import StoreSettings
from ..database.transaction import Work
from ..errors import ConflictError, InvalidInputError
from ..queries.belongings import Counted, Kind
from ..queries.transfer import Companions, OnConflict, Put
from ..rows import PreparedMessage
from ..values import SessionInfo
from ..values.receipts import ImportReceipt

T = TypeVar("T")

Messages = Callable[[], Iterator[tuple[int, PreparedMessage]]]


class Write(Protocol):
    """Does some work in one transaction."""

    def __call__(self, work: Work[T], /) -> T:
        """Return what the work returns, after its commit."""


class Receiver:
    """Where an import puts its conversations.

    Attributes:
        settings: Those of the store.
    """

    def __init__(self, write: Write, settings: StoreSettings, on_conflict: OnConflict) -> None:
        self.settings = settings
        self._write = write
        self._on_conflict = on_conflict
        self._stored = self._skipped = self._replaced = self._merged = self._messages = 0
        self._renamed: list[tuple[str, str]] = []

    def put(self, info: SessionInfo, messages: Messages, companions: Companions | None = None) -> Put:
        """Store a conversation; its messages are asked for again if the transaction has to begin anew."""

        def work(db: Any) -> Put:
            return queries.transfer.put(
                db,
                info,
                messages(),
                on_conflict=self._on_conflict,
                on_expire=self.settings.on_expire,
                companions=companions,
            )

        done = self._write(work)
        if done.skipped:
            self._skipped += 1
            return done
        if done.merged:
            self._merged += 1
            self._messages += done.messages
            return done
        self._stored += 1
        self._messages += done.messages
        self._replaced += done.replaced
        if done.session_id != info.session_id:
            self._renamed.append((info.session_id, done.session_id))
        return done

    def adopt(self, parent_key: int, children: list[int]) -> None:
        """Note which session some were forked from."""
        self._write(lambda db: queries.kinship.adopt(db, parent_key, children))

    def put_belongings(self, batch: list[tuple[Kind, Counted]]) -> None:
        """Store what belongs to no session."""

        def work(db: Any) -> None:
            for kind, row in batch:
                queries.belongings.put(db, kind, (row,))
            queries.belongings.require_room(db, (row for kind, (row, _) in batch if kind is queries.belongings.STATE_VALUE))

        self._write(work)

    def receipt(self, file_format: str) -> ImportReceipt:
        """What was stored so far."""
        return ImportReceipt(
            format=file_format,
            sessions=self._stored,
            messages=self._messages,
            skipped=self._skipped,
            replaced=self._replaced,
            renamed=tuple(self._renamed),
            merged=self._merged,
        )

    def made_now(self, info: SessionInfo) -> SessionInfo:
        """A session that begins with its import, with the life that the store gives."""
        ttl, max_age = self.settings.ttl, self.settings.max_age
        expires_at = queries.lifecycle.expiry(info.created_at, info.created_at, ttl, max_age)
        return replace(info, ttl=ttl, max_age=max_age, expires_at=expires_at)

    def refusal(self, refused: InvalidInputError) -> InvalidInputError:
        """The error that says what is stored although a conversation was refused."""
        stored = f"; {self._stored_so_far()}" if self._stored or self._merged else ""
        return InvalidInputError(refused.field, refused.reason + stored, limit=refused.limit)

    def conflict(self, error: ConflictError, place: str) -> ConflictError:
        """The error that names where the conversation stands whose id is taken."""
        refused = ConflictError(error.session_id, f"{place}: {error}; {self._stored_so_far()}")
        refused.add_note("on_conflict='skip', 'replace', 'new-id' or 'merge' lets the import go on")
        return refused

    def _stored_so_far(self) -> str:
        stored = self._stored + self._merged
        return "1 conversation before it is stored" if stored == 1 else f"{stored} conversations before it are stored"
