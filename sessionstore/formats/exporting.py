"""Writing sessions of a store to a file: one snapshot, so that the file shows one moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Final, Protocol, TypeVar

from .. import inputs, queries
from ..arguments import SessionFilter, SessionFilters, session_filter, several
from ..database.transaction import Transaction, Work
from ..errors import InvalidInputError, StoreCorruptError
from ..values import Message, SessionInfo
from ..values.receipts import ExportReceipt
from . import DEEP_AGENT, NATIVE, ONE_SESSION_FORMATS, deep_agent
from .chat import Source
from .layouts import layout
from .native_writing import NativeWriter
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

    def sessions(self, db: Transaction, *, by_key: bool = False) -> Iterator[tuple[int, SessionInfo]]:
        """Their keys and attributes; those of some ids in the order of these, or of their keys."""
        if self._ids is None:
            yield from queries.transfer.chosen(db, self._wanted)
            return
        named = (queries.transfer.named(db, self._wanted.namespace or "", session_id) for session_id in self._ids)
        yield from sorted(named, key=itemgetter(0)) if by_key else named

    @property
    def namespace(self) -> str | None:
        """Where they are; None for all namespaces."""
        return self._wanted.namespace

    @property
    def is_everything(self) -> bool:
        """Whether nothing of the namespace is left out but what has expired."""
        return self._ids is None and self._wanted.chooses_all


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

    def work(db: Transaction) -> ExportReceipt:
        # Opened in the snapshot: what cannot be read leaves no file behind, nor the old one replaced.
        sessions, messages = selection.totals(db)
        run = _Run(db, file_format, messages, progress)
        if file_format == DEEP_AGENT:
            with deep_agent.open_folder(target, store_path=store_path) as folder:
                return run.finish_folder(selection, folder)
        if file_format in ONE_SESSION_FORMATS and sessions != 1:
            raise InvalidInputError("format", f"{file_format} holds one session, and {sessions} are chosen; name one")
        with open_target(target, store_path=store_path) as writer:
            return run.finish_native(selection, writer) if file_format == NATIVE else run.finish(selection, writer)

    return read(work)


class _Run:
    """One export: what it reads, and how far it is."""

    def __init__(self, db: Transaction, file_format: str, total: int, progress: Progress | None) -> None:
        self._db = db
        self._format = file_format
        self._total = total
        self._progress = progress
        self._sessions = self._messages = 0

    def finish(self, selection: Selection, writer: LineWriter) -> ExportReceipt:
        """Write every session to one file."""
        form = layout(self._format)
        writer.write(form.begin())
        for key, info in selection.sessions(self._db):
            with self._whole(info):
                for part in form.session(info, self._source(key, info)):
                    writer.write(part)
        writer.write(form.end(self._sessions, self._messages, writer.sha256()))
        return self._receipt(writer.size_bytes, form.left_out)

    def finish_native(self, selection: Selection, writer: LineWriter) -> ExportReceipt:
        """Write every session, and what belongs to none if all of a namespace are written, so that nothing is lost."""
        lines = NativeWriter(self._db, writer)
        lines.begin()
        for key, info in selection.sessions(self._db, by_key=True):
            with self._whole(info):
                for _ in self._counted(lines.session(key, info)):
                    pass
                self._messages += lines.shared
        if selection.is_everything:
            lines.belongings(selection.namespace)
        lines.end(self._sessions)
        return self._receipt(writer.size_bytes, 0)

    def finish_folder(self, selection: Selection, folder: deep_agent.Folder) -> ExportReceipt:
        """Write every session to a file of its own."""
        for key, info in selection.sessions(self._db):
            with self._whole(info), folder.file(info.session_id) as writer:
                for part in deep_agent.file_parts(info, self._source(key, info)):
                    writer.write(part)
        return self._receipt(folder.size_bytes, 0)

    def _receipt(self, size_bytes: int, left_out: int) -> ExportReceipt:
        self._report()
        return ExportReceipt(
            format=self._format, sessions=self._sessions, messages=self._messages, size_bytes=size_bytes, left_out=left_out
        )

    @contextmanager
    def _whole(self, info: SessionInfo) -> Iterator[None]:
        """Count a session, which must have been read to its end."""
        before = self._messages
        yield
        if self._messages - before != info.message_count:
            raise StoreCorruptError(self._db.path, f"session {info.session_id!r} does not hold as many messages as it counts")
        self._sessions += 1

    def _source(self, key: int, info: SessionInfo) -> Source:
        def messages(*, ahead: bool = False) -> Iterator[Message]:
            found = queries.transfer.messages_of(self._db, key, info.session_id)
            return found if ahead else self._counted(found)

        return messages

    def _counted(self, messages: Iterator[Message]) -> Iterator[Message]:
        for message in messages:
            yield message
            self._messages += 1
            if self._messages % _MESSAGES_PER_REPORT == 0:
                self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._messages, self._total)
