"""Writing sessions of a store to a file: one snapshot, so that the file shows one moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol, TypeVar

from .. import inputs, queries
from ..arguments import SessionFilter, SessionFilters, session_filter, several
from ..database.transaction import Transaction, Work
from ..errors import InvalidInputError, StoreCorruptError
from ..values import Message, SessionInfo
from ..values.receipts import ExportReceipt
from . import EXPORT_FORMATS, NATIVE, OPENAI_MESSAGES, native, openai
from .streams import LineWriter, Progress, open_target

T = TypeVar("T")

_MESSAGES_PER_REPORT: Final = 200


class Read(Protocol):
    """Does some work in one snapshot."""

    def __call__(self, work: Work[T], /) -> T:
        """Return what the work returns."""


class Selection:
    """The sessions of an export: those that a filter chooses, or those of some ids."""

    def __init__(self, wanted: SessionFilter, session_ids: tuple[str, ...] | None) -> None:
        self._wanted = wanted
        self._ids = session_ids

    def totals(self, db: Transaction) -> tuple[int, int]:
        """How many sessions and messages they are."""
        if self._ids is None:
            return queries.transfer.totals(db, self._wanted)
        held = [info.message_count for _, info in self.sessions(db)]
        return len(held), sum(held)

    def sessions(self, db: Transaction) -> Iterator[tuple[int, SessionInfo]]:
        """Their keys and attributes."""
        if self._ids is None:
            yield from queries.transfer.chosen(db, self._wanted)
        for session_id in self._ids or ():
            yield queries.transfer.named(db, self._wanted.namespace or "", session_id)


def selection(namespace: str | None, session_ids: object, filters: SessionFilters, *, file_format: str) -> Selection:
    """The checked choice of a call; namespace None means all of them."""
    if namespace is None and (file_format != NATIVE or session_ids is not None):
        raise InvalidInputError("all_namespaces", f"is for the format {NATIVE} without session_ids: ids repeat across namespaces")
    if session_ids is None:
        return Selection(session_filter(namespace, **filters), None)
    if filters:
        raise InvalidInputError("session_ids", "give either ids or filters")
    given = (session_ids,) if isinstance(session_ids, str) else several("session_ids", session_ids)
    ids = tuple(dict.fromkeys(inputs.identifier("session_ids", one) for one in given))
    return Selection(session_filter(namespace), ids)


def export_file(
    target: object, read: Read, selection: Selection, *, store_path: Path | None, file_format: str, progress: Progress | None
) -> ExportReceipt:
    """Write sessions to a file; `SessionStore.export_file` describes the arguments."""
    inputs.choice("format", file_format, EXPORT_FORMATS)

    def work(db: Transaction) -> ExportReceipt:
        # Opened in the snapshot: what cannot be read leaves no file behind, nor the old one replaced.
        sessions, messages = selection.totals(db)
        if file_format == OPENAI_MESSAGES and sessions != 1:
            raise InvalidInputError("format", f"{OPENAI_MESSAGES} holds one session, and {sessions} are chosen; name one")
        with open_target(target, store_path=store_path) as writer:
            return _Run(db, writer, file_format, messages, progress).finish(selection)

    return read(work)


class _Run:
    """One export: where it reads and writes, and how far it is."""

    def __init__(self, db: Transaction, writer: LineWriter, file_format: str, total: int, progress: Progress | None) -> None:
        self._db = db
        self._writer = writer
        self._format = file_format
        self._total = total
        self._progress = progress
        self._sessions = self._messages = 0

    def finish(self, selection: Selection) -> ExportReceipt:
        """Write every session."""
        if self._format == NATIVE:
            self._writer.write(native.header_line())
        for key, info in selection.sessions(self._db):
            self._write_session(info, self._counted(key, info))
            self._sessions += 1
        if self._format == NATIVE:
            self._writer.write(native.end_line(native.Trailer(self._sessions, self._messages, self._writer.sha256())))
        self._report()
        return ExportReceipt(
            format=self._format, sessions=self._sessions, messages=self._messages, size_bytes=self._writer.size_bytes
        )

    def _write_session(self, info: SessionInfo, messages: Iterator[Message]) -> None:
        write = self._writer.write
        before = self._messages
        if self._format == NATIVE:
            write(native.session_line(info))
            for message in messages:
                write(native.message_line(message))
        elif self._format == OPENAI_MESSAGES:
            for message in messages:
                write(openai.message_line(message.to_dict()))
        else:
            for part in openai.conversation_parts(info, (message.to_dict() for message in messages)):
                write(part)
        if self._messages - before != info.message_count:
            raise StoreCorruptError(self._db.path, f"session {info.session_id!r} does not hold as many messages as it counts")

    def _counted(self, key: int, info: SessionInfo) -> Iterator[Message]:
        for message in queries.transfer.messages_of(self._db, key, info.session_id):
            yield message
            self._messages += 1
            if self._messages % _MESSAGES_PER_REPORT == 0:
                self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._messages, self._total)
