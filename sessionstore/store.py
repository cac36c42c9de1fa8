"""SessionStore: the calls that users make. One public call is one transaction, or one snapshot."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, Self, TypeVar, Unpack

from . import inputs, queries
from .arguments import (
    UNSET,
    MessageDetails,
    NewMessage,
    NewSession,
    SessionAttributes,
    SessionFilter,
    SessionFilters,
    Unset,
    new_session,
    refuse_unknown,
    session_filter,
    several,
)
from .config import StoreSettings
from .content import decoded
from .database.database import Database
from .database.registry import release
from .database.transaction import Work
from .errors import ClosedStoreError, InvalidInputError, ReadOnlyStoreError
from .rows import PreparedMessage, chat_message, prepare
from .values import (
    END_STATUSES,
    MAX_SEQ,
    DeleteReceipt,
    Diagnosis,
    EndStatus,
    ExportReceipt,
    ImportReceipt,
    Message,
    Page,
    SessionInfo,
    StoreStatus,
    ToolCall,
    ToolCallReport,
)

if TYPE_CHECKING:
    from .handle import SessionHandle

T = TypeVar("T")

MAX_BATCH: Final = 100_000


class SessionStore:
    """Sessions and their messages in one file. `sessionstore.open()` makes it; it may be used by many threads.

    Every call raises `ClosedStoreError` after `close()`, `ForkedStoreError` in a forked child, `StoreBusyError` when others
    hold the file past the `busy_timeout`, `StoreCorruptError` when it meets damage, and `InvalidInputError` for arguments it
    refuses. A call that returns is on disk; a call that raises has written nothing.
    """

    def __init__(self, database: Database, settings: StoreSettings, *, parent: SessionStore | None = None) -> None:
        self._database = database
        self._settings = settings
        self._parent = parent
        self._closed = False
        self._released = parent is not None

    # -- the store itself

    @property
    def namespace(self) -> str:
        """The namespace that the calls work in."""
        return self._settings.namespace

    def in_namespace(self, namespace: str) -> SessionStore:
        """The same file, seen in another namespace. It closes with this store."""
        settings = replace(self._settings, namespace=inputs.namespace(namespace))
        return type(self)(self._database, settings, parent=self)

    def close(self) -> None:
        """Finish running calls and let go of the file. A second close does nothing.

        Raises:
            StoreBusyError: Another process held the file past the `busy_timeout`; close again to try again.
        """
        self._closed = True
        if not self._released:
            release(self._database, timeout=self._settings.busy_timeout)
            self._released = True

    def __enter__(self) -> Self:
        self._require_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database.name!r}, namespace={self._settings.namespace!r})"

    def status(self) -> StoreStatus:
        """How the store is doing: engine, journal mode and why, sizes, counts, what happened since it was opened."""
        from .diagnosis import status

        return self._read(lambda db: status(db, self._database, self._settings))

    def doctor(self) -> Diagnosis:
        """Look at every page and every message for damage; takes time with the size of the file."""
        from .diagnosis import diagnose

        return self._read(lambda db: diagnose(db, self._database))

    # -- sessions

    def session(self, session_id: str, **attributes: Unpack[SessionAttributes]) -> SessionHandle:
        """A handle on the session of this id, which is made if there is none.

        Args:
            session_id: 1 to 256 printable characters; compared exactly as given.
            attributes: `user_id`, `agent_id`, `title`, `tags`, `metadata`, `pinned` (see `SessionAttributes`). They apply when
                the session is made; those of a session that is there stay.
        """
        from .handle import SessionHandle

        refuse_unknown(attributes, SessionAttributes)
        new = new_session(self.namespace, session_id, **attributes)
        self._get_or_create(new)
        return SessionHandle(self, new.session_id)

    def create(self, session_id: str, **attributes: Unpack[SessionAttributes]) -> SessionInfo:
        """Make a session. The arguments are those of `session`.

        Raises:
            ConflictError: There is a live session of this id.
        """
        refuse_unknown(attributes, SessionAttributes)
        new = new_session(self.namespace, session_id, **attributes)
        return self._write(lambda db: queries.sessions.create(db, new))

    def get(self, session_id: str) -> SessionInfo | None:
        """What is known about a session; None if there is none."""
        wanted = inputs.identifier("session_id", session_id)
        return self._read(lambda db: queries.sessions.find(db, self.namespace, wanted))

    def update(
        self,
        session_id: str,
        *,
        title: str | None | Unset = UNSET,
        metadata: Mapping[str, Any] | None | Unset = UNSET,
        tags: Iterable[str] | Unset = UNSET,
        user_id: str | None | Unset = UNSET,
        agent_id: str | None | Unset = UNSET,
        expected_version: int | None = None,
    ) -> SessionInfo:
        """Change attributes; what is not named stays, None clears, `tags` and `metadata` replace the old ones.

        Raises:
            NotFoundError: There is no such session.
            ConflictError: Its version is not `expected_version`: somebody changed it meanwhile.
        """
        wanted = inputs.identifier("session_id", session_id)
        version = inputs.optional_whole_number("expected_version", expected_version, least=1)
        values: dict[str, Any] = {}
        if not isinstance(title, Unset):
            values["title"] = inputs.short_text("title", title, max_chars=inputs.MAX_TITLE_CHARS)
        if not isinstance(metadata, Unset):
            # Decoded again, the dict cannot change until it is stored.
            text = inputs.metadata(metadata)
            values["metadata"] = None if text is None else decoded(text)
        for name, owner in (("user_id", user_id), ("agent_id", agent_id)):
            if not isinstance(owner, Unset):
                values[name] = inputs.optional_identifier(name, owner)
        new_tags = None if isinstance(tags, Unset) else inputs.tags(tags)
        if not values and new_tags is None:
            raise InvalidInputError("title", "or another attribute must be given: nothing would change")
        return self._write(
            lambda db: queries.lifecycle.update(db, self.namespace, wanted, values, tags=new_tags, expected_version=version)
        )

    def end(
        self,
        session_id: str,
        status: EndStatus = "completed",
        *,
        quality_score: int | None | Unset = UNSET,
        error: str | None | Unset = UNSET,
    ) -> SessionInfo:
        """Say how a session ended.

        Args:
            session_id: An open session, or one that was ended before.
            status: "completed" or "failed".
            quality_score: 1 (very poor) to 5 (excellent).
            error: What went wrong, at most 10,000 characters.

        A repeated end keeps the score and the error that it does not name. Later appends are stored and do not open it again.
        """
        wanted = inputs.identifier("session_id", session_id)
        values: dict[str, Any] = {"status": inputs.choice("status", status, END_STATUSES), "expires_at": None}
        if not isinstance(quality_score, Unset):
            values["quality_score"] = inputs.optional_whole_number("quality_score", quality_score, least=1, most=5)
        if not isinstance(error, Unset):
            values["error"] = inputs.short_text("error", error, max_chars=inputs.MAX_ERROR_CHARS)
        return self._write(lambda db: queries.lifecycle.update(db, self.namespace, wanted, {**values, "ended_at": db.now}))

    def rename(self, session_id: str, new_session_id: str) -> SessionInfo:
        """Give a session another id.

        Raises:
            ConflictError: There is a live session of that id.
        """
        wanted = inputs.identifier("session_id", session_id)
        new_id = inputs.identifier("new_session_id", new_session_id)
        return self._write(lambda db: queries.lifecycle.rename(db, self.namespace, wanted, new_id))

    def pin(self, session_id: str, pinned: bool = True) -> SessionInfo:
        """Spare a session when old ones are removed, or spare it no longer."""
        wanted = inputs.identifier("session_id", session_id)
        values = {"pinned": inputs.flag("pinned", pinned)}
        return self._write(lambda db: queries.lifecycle.update(db, self.namespace, wanted, values))

    def archive(self, session_id: str, archived: bool = True) -> SessionInfo:
        """Take a session out of the usual lists, or back into them. It stays readable."""
        wanted = inputs.identifier("session_id", session_id)
        away = inputs.flag("archived", archived)
        return self._write(
            lambda db: queries.lifecycle.update(db, self.namespace, wanted, {"archived_at": db.now if away else None})
        )

    def tag(self, session_id: str, *tags: str) -> SessionInfo:
        """Add tags; those that it has already stay."""
        wanted = inputs.identifier("session_id", session_id)
        added = inputs.tags(tags)
        return self._write(lambda db: queries.lifecycle.retag(db, self.namespace, wanted, add=added))

    def untag(self, session_id: str, *tags: str) -> SessionInfo:
        """Remove tags; those that it does not have change nothing."""
        wanted = inputs.identifier("session_id", session_id)
        removed = inputs.tags(tags)
        return self._write(lambda db: queries.lifecycle.retag(db, self.namespace, wanted, remove=removed))

    def tags(self) -> dict[str, int]:
        """How many sessions have each tag."""
        return self._read(lambda db: queries.catalog.tag_counts(db, self.namespace))

    def namespaces(self) -> tuple[str, ...]:
        """The namespaces of this file that have sessions."""
        return self._read(lambda db: queries.catalog.namespaces(db))  # noqa: PLW0108 - loaded by the thread that reads

    def list(self, *, limit: int = 50, cursor: str | None = None, **filters: Unpack[SessionFilters]) -> Page[SessionInfo]:
        """One page of sessions, last changed first, without their messages.

        Args:
            limit: 1 to 1,000.
            cursor: The `next_cursor` of the page before, from a call with the same filters.
            filters: `agent_id`, `user_id`, `status`, `tag`, `metadata`, `since`, `until`, `text`, `pinned`, `archived`
                (see `SessionFilters`). Archived sessions are left out unless asked for.

        Raises:
            InvalidInputError: The cursor is damaged or belongs to other filters.
        """
        wanted = self._filter(filters)
        most = inputs.whole_number("limit", limit, least=1, most=inputs.MAX_PAGE)
        if cursor is not None and not isinstance(cursor, str):
            raise InvalidInputError("cursor", "must be the next_cursor of a page")
        return self._read(lambda db: queries.catalog.page(db, wanted, limit=most, cursor=cursor))

    def count(self, **filters: Unpack[SessionFilters]) -> int:
        """How many sessions `list` would show with these filters."""
        wanted = self._filter(filters)
        return self._read(lambda db: queries.catalog.count(db, wanted))

    def delete(
        self, session_ids: str | Iterable[str] | None = None, *, dry_run: bool = False, **filters: Unpack[SessionFilters]
    ) -> DeleteReceipt:
        """Delete one session, several, or all that filters choose, with their messages and tags.

        Args:
            session_ids: One id or several; ids that are not there are reported, not refused.
            dry_run: Only tell what would be deleted.
            filters: Those of `list`; archived sessions are included unless `archived` says otherwise. Give either ids or filters.
        """
        namespace = self.namespace
        only_tell = inputs.flag("dry_run", dry_run)
        refuse_unknown(filters, SessionFilters)
        wanted = session_filter(namespace, **filters)
        if (session_ids is None) == wanted.chooses_all:
            raise InvalidInputError("session_ids", "give either ids or at least one filter")
        if session_ids is None:
            return self._write(lambda db: queries.lifecycle.delete_filtered(db, wanted, dry_run=only_tell))
        given = (session_ids,) if isinstance(session_ids, str) else several("session_ids", session_ids)
        ids = tuple(inputs.identifier("session_ids", one) for one in given)
        return self._write(lambda db: queries.lifecycle.delete(db, namespace, ids, dry_run=only_tell))

    # -- messages

    def append(
        self,
        session_id: str,
        message: str | Mapping[str, Any],
        content: str | Sequence[Any] | None = None,
        *,
        name: str | None = None,
        tool_calls: Sequence[Any] | None = None,
        tool_call_id: str | None = None,
        **details: Unpack[MessageDetails],
    ) -> Message:
        """Store a message at the end of a session.

        Args:
            session_id: A session that is there.
            message: A role, followed by the content, or a whole message dict. A dict comes back equal from `to_dict()`.
            content: A text (also an empty one), content parts, or None; only with a role.
            name: Goes into the message dict; only with a role.
            tool_calls: Goes into the message dict; only with a role.
            tool_call_id: Goes into the message dict; only with a role.
            details: `model`, `input_tokens`, `output_tokens`, `response_time_ms`, `dedupe_key` and more (see `MessageDetails`).

        Raises:
            NotFoundError: There is no such session.
            ConflictError: The dedupe key was used for another message.
            QuotaError: The session has had 16,777,215 messages.
        """
        refuse_unknown(details, MessageDetails)
        wanted = inputs.identifier("session_id", session_id)
        given = {"name": name, "tool_calls": tool_calls, "tool_call_id": tool_call_id}
        extra = {key: value for key, value in given.items() if value is not None}
        if isinstance(message, str):
            if content is None and tool_calls is None:
                raise InvalidInputError("content", "is missing; give a text (an empty one will do), or a whole message dict")
            message = chat_message(message, content, extra)
        elif content is not None or extra:
            raise InvalidInputError("content", "must be inside of the message dict, or the message must be a role")
        prepared = prepare(message, max_bytes=self._settings.max_text_bytes, **details)
        namespace = self._settings.namespace
        return self._write(lambda db: queries.messages.append(db, namespace, wanted, (prepared,))[0])

    def append_many(self, session_id: str, messages: Iterable[Mapping[str, Any] | NewMessage]) -> builtins.list[Message]:
        """Store several messages in one transaction: all or none. Returns them in the order given.

        Raises:
            NotFoundError: There is no such session.
            ConflictError: A dedupe key was used for another message.
            QuotaError: The session has had 16,777,215 messages.
        """
        wanted = inputs.identifier("session_id", session_id)
        prepared = [self._prepared(index, message) for index, message in enumerate(several("messages", messages))]
        if len(prepared) > MAX_BATCH:
            raise InvalidInputError("messages", f"must be at most {MAX_BATCH} in one call", limit=MAX_BATCH)
        namespace = self._settings.namespace
        return self._write(lambda db: queries.messages.append(db, namespace, wanted, prepared))

    def messages(
        self,
        session_id: str,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        keep_pairs: bool = False,
    ) -> builtins.list[Message]:
        """Messages of a session, oldest first.

        Args:
            session_id: A session that is there.
            last: Only the newest so many.
            before: Only those with a smaller seq.
            after: Only those with a larger seq.
            keep_pairs: Put each tool result right behind its call, as chat APIs ask for. The start grows to take in the call of
                its first result; results whose call is nowhere are left out; the end shrinks before a call whose result lies
                behind `before`. Calls without a result stay: `repair` gives them one.

        Raises:
            NotFoundError: There is no such session.
        """
        wanted = inputs.identifier("session_id", session_id)
        newest = inputs.optional_whole_number("last", last)
        upper = inputs.optional_whole_number("before", before)
        lower = inputs.optional_whole_number("after", after)
        read = queries.messages.read_pairs if inputs.flag("keep_pairs", keep_pairs) else queries.messages.read
        namespace = self._settings.namespace
        return self._read(lambda db: read(db, namespace, wanted, last=newest, before=upper, after=lower))

    def iterate(self, session_id: str, *, after: int = 0, page_size: int = 500) -> Iterator[Message]:
        """All messages of a session, read in pages, so that neither memory nor a snapshot is held for long."""
        while page := self._message_page(session_id, after=after, page_size=page_size):
            yield from page
            after = page[-1].seq

    def pop(self, session_id: str) -> Message | None:
        """Remove the last message and return it; None if there is none. Its seq is not given again."""
        wanted = inputs.identifier("session_id", session_id)
        return self._write(lambda db: queries.edits.pop(db, self.namespace, wanted))

    def truncate(self, session_id: str, *, after: int) -> int:
        """Remove all messages with a larger seq and return how many."""
        wanted = inputs.identifier("session_id", session_id)
        kept = inputs.whole_number("after", after, most=MAX_SEQ)
        return self._write(lambda db: queries.edits.truncate(db, self.namespace, wanted, after=kept))

    def clear(self, session_id: str) -> int:
        """Remove all messages of a session, keep the session, and return how many they were."""
        return self.truncate(session_id, after=0)

    # -- tool calls

    def open_tool_calls(self, session_id: str) -> tuple[ToolCall, ...]:
        """The tool calls that have no result yet, in order."""
        wanted = inputs.identifier("session_id", session_id)
        return self._read(lambda db: queries.tool_calls.check(db, self.namespace, wanted).unmatched_calls)

    def check(self, session_id: str) -> ToolCallReport:
        """Tool calls without a result and results without a call: providers refuse a history that has any."""
        wanted = inputs.identifier("session_id", session_id)
        return self._read(lambda db: queries.tool_calls.check(db, self.namespace, wanted))

    def repair(self, session_id: str) -> builtins.list[Message]:
        """Append a result that says "interrupted" for each open tool call; deletes nothing; a second call adds nothing."""
        wanted = inputs.identifier("session_id", session_id)
        return self._write(lambda db: queries.tool_calls.repair(db, self.namespace, wanted))

    # -- files

    def import_file(
        self,
        source: str | PathLike[str] | BinaryIO,
        *,
        format: Literal["auto", "sessionstore", "openai", "openai-messages"] = "auto",  # noqa: A002 - the usual word
        on_conflict: Literal["fail", "skip", "replace", "new-id"] = "fail",
        session_id: str | None = None,
        progress: Callable[[int, int | None], object] | None = None,
    ) -> ImportReceipt:
        """Store the conversations of a JSONL file, plain or gzip; each one is a transaction.

        Args:
            source: A path, or a binary file that is read from where it stands.
            format: "sessionstore", the lossless export: sessions keep their seqs, instants, versions and namespaces; a store
                with a namespace of its own takes them all into that one. "openai": one conversation a line. "openai-messages":
                one message a line. By default the first line tells.
            on_conflict: What becomes of a session whose id is taken: "fail" raises, "skip" leaves it out, "replace" deletes the
                stored one, "new-id" appends a number to its id.
            session_id: The id for a file with one message a line; the file's name without suffixes by default.
            progress: Called with the bytes read so far and all that there are to read.

        Raises:
            InvalidInputError: A line is refused; it is named. A lossless file that is cut short or damaged is refused before
                anything is stored; else what stood before the line is stored, as the message says.
            ConflictError: An id is taken, with on_conflict="fail".
            OSError: The file cannot be read.
        """
        from .formats.importing import import_file

        self._require_open()
        return import_file(
            source,
            self._write,
            self._settings,
            store_path=self._database.path,
            file_format=format,
            on_conflict=on_conflict,
            session_id=session_id,
            progress=progress,
        )

    def export_file(
        self,
        target: str | PathLike[str] | BinaryIO,
        *,
        format: Literal["sessionstore", "openai", "openai-messages"] = "sessionstore",  # noqa: A002 - the usual word
        session_ids: str | Iterable[str] | None = None,
        all_namespaces: bool = False,
        progress: Callable[[int, int | None], object] | None = None,
        **filters: Unpack[SessionFilters],
    ) -> ExportReceipt:
        """Write sessions to a JSONL file as they are at one moment.

        Args:
            target: A path or a binary file. A path appears whole or not at all, for its owner only; .gz is compressed.
            format: "sessionstore" loses nothing. "openai" is one conversation a line: its messages and the session's metadata.
                "openai-messages" is one message a line, of one session.
            session_ids: Only these; without filters.
            all_namespaces: Those of all namespaces, in the lossless format only.
            progress: Called with the messages written so far and all that there are to write.
            filters: Those of `list`; archived sessions are included unless `archived` says otherwise.

        Raises:
            NotFoundError: One of `session_ids` is not there.
            OSError: The file cannot be written.
        """
        from .formats.exporting import export_file, selection

        self._require_open()
        namespace = None if inputs.flag("all_namespaces", all_namespaces) else self.namespace
        return export_file(
            target,
            self._read,
            selection(namespace, session_ids, filters, file_format=format),
            store_path=self._database.path,
            file_format=format,
            progress=progress,
        )

    # -- how calls run; the async face replaces these three

    def _read(self, work: Work[T]) -> T:
        self._require_open()
        return self._database.read(work, timeout=self._settings.busy_timeout)

    def _write(self, work: Work[T]) -> T:
        self._require_writable()
        settings = self._settings
        return self._database.write(work, full=settings.durability == "full", timeout=settings.busy_timeout)

    def _read_or_write(self, read: Work[T | None], write: Work[T]) -> T:
        """Write only if there is nothing to read: a commit costs a sync of the disk."""
        found = self._read(read)
        return self._write(write) if found is None else found

    # -- parts of calls

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedStoreError
        if self._parent is not None:
            self._parent._require_open()  # noqa: SLF001 - a store of the same file

    def _require_writable(self) -> None:
        self._require_open()
        if self._settings.read_only:
            raise ReadOnlyStoreError(self._database.name, "was opened with read_only=True")

    def _get_or_create(self, new: NewSession) -> SessionInfo:
        return self._read_or_write(
            lambda db: queries.sessions.find(db, new.namespace, new.session_id),
            lambda db: queries.sessions.get_or_create(db, new),
        )

    def _message_page(self, session_id: str, *, after: int, page_size: int) -> builtins.list[Message]:
        wanted = inputs.identifier("session_id", session_id)
        start = inputs.whole_number("after", after)
        size = inputs.whole_number("page_size", page_size, least=1, most=10_000)
        return self._read(lambda db: queries.messages.read_page(db, self.namespace, wanted, after=start, size=size))

    def _filter(self, filters: SessionFilters) -> SessionFilter:
        refuse_unknown(filters, SessionFilters)
        shown: SessionFilters = {"archived": False}
        shown.update(filters)
        return session_filter(self.namespace, **shown)

    def _prepared(self, index: int, message: Mapping[str, Any] | NewMessage) -> PreparedMessage:
        max_bytes = self._settings.max_text_bytes
        try:
            if isinstance(message, NewMessage):
                return prepare(message.message, max_bytes=max_bytes, **message.details)
            return prepare(message, max_bytes=max_bytes)
        except InvalidInputError as error:
            inner = error.field.removeprefix("message")
            place = f"messages[{index}]{inner if not inner or inner.startswith('.') else '.' + inner}"
            raise InvalidInputError(place, error.reason, limit=error.limit) from None
