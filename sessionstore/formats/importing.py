"""Reading a whole file into a store: each conversation is one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

from .. import clock, inputs, queries
from ..config import StoreSettings
from ..database.transaction import Work
from ..errors import ConflictError, InvalidInputError
from ..queries.transfer import ON_CONFLICT, OnConflict, Put
from ..rows import PreparedMessage, prepare
from ..values import SessionInfo
from ..values.receipts import ImportReceipt
from . import AUTO, IMPORT_FORMATS, NATIVE, OPENAI, OPENAI_MESSAGES, native, openai
from .streams import LineReader, Progress, open_lines

T = TypeVar("T")

_Messages = Callable[[], Iterator[tuple[int, PreparedMessage]]]
_LINES_PER_REPORT: Final = 200


class Write(Protocol):
    """Does some work in one transaction."""

    def __call__(self, work: Work[T], /) -> T:
        """Return what the work returns, after its commit."""


def import_file(
    source: object,
    write: Write,
    settings: StoreSettings,
    *,
    store_path: Path | None,
    file_format: str,
    on_conflict: str,
    session_id: str | None,
    progress: Progress | None,
) -> ImportReceipt:
    """Store the conversations of a file; `SessionStore.import_file` describes the arguments."""
    inputs.choice("format", file_format, IMPORT_FORMATS)
    inputs.choice("on_conflict", on_conflict, ON_CONFLICT)
    chosen_id = openai.checked_id(session_id)
    with open_lines(source, store_path=store_path) as lines:
        found = _detected(lines) if file_format == AUTO else file_format
        if chosen_id is not None and found != OPENAI_MESSAGES:
            raise InvalidInputError("session_id", "names the session of a file with one message a line; this one names its own")
        policy = cast(OnConflict, on_conflict)
        return _Run(lines, write, settings, file_format=found, on_conflict=policy, progress=progress).finish(chosen_id)


def _detected(lines: LineReader) -> str:
    start = lines.place()
    first = lines.read_object(skip_blank=True)
    if first is None:
        raise InvalidInputError("source", f"{lines.name} is empty, so its format cannot be told; name it")
    if native.is_header(first):
        found = NATIVE
    elif openai.is_conversation(first):
        found = OPENAI
    elif native.is_headless(first):
        raise lines.refusal("looks like the lossless format without its header; `sessionstore export` writes the whole format")
    elif openai.is_message(first):
        found = OPENAI_MESSAGES
    else:
        raise lines.refusal("is neither a sessionstore header, nor a conversation with messages, nor a message with a role")
    lines.return_to(start)
    return found


class _Run:
    """One import: what it reads, where it writes and what it has stored so far."""

    def __init__(
        self,
        lines: LineReader,
        write: Write,
        settings: StoreSettings,
        *,
        file_format: str,
        on_conflict: OnConflict,
        progress: Progress | None,
    ) -> None:
        self._lines = lines
        self._write = write
        self._settings = settings
        self._format = file_format
        self._on_conflict = on_conflict
        self._progress = progress
        self._done_before = 0
        self._total = lines.total_bytes
        self._stored = self._skipped = self._replaced = self._messages = 0
        self._renamed: list[tuple[str, str]] = []

    def finish(self, session_id: str | None) -> ImportReceipt:
        """Read to the end."""
        try:
            if self._format == NATIVE:
                self._import_native()
            elif self._format == OPENAI:
                self._import_conversations()
            else:
                self._import_messages(session_id or self._lines.stem)
        except InvalidInputError as error:
            # What was found while storing does not name its line yet.
            named = error if error.field == "source" else self._lines.refusal(str(error), limit=error.limit)
            stored = f"; {self._stored_so_far()}" if self._stored else ""
            raise InvalidInputError(named.field, named.reason + stored, limit=named.limit) from error
        except ConflictError as error:
            refused = ConflictError(error.session_id, f"{self._place()}: {error}; {self._stored_so_far()}")
            refused.add_note("on_conflict='skip', 'replace' or 'new-id' lets the import go on")
            raise refused from error
        self._report(self._total)
        return ImportReceipt(
            format=self._format,
            sessions=self._stored,
            messages=self._messages,
            skipped=self._skipped,
            replaced=self._replaced,
            renamed=tuple(self._renamed),
        )

    def _place(self) -> str:
        # A file of one conversation is in the way as a whole, before a line of it is read.
        lines = self._lines
        return f"line {lines.number} of {lines.name}" if lines.number else lines.name

    def _stored_so_far(self) -> str:
        return "1 conversation before it is stored" if self._stored == 1 else f"{self._stored} conversations before it are stored"

    # -- the three layouts

    def _import_conversations(self) -> None:
        lines, settings = self._lines, self._settings
        while (line := lines.read_object(skip_blank=True)) is not None:
            with lines.naming_line():
                info, messages = openai.conversation(
                    line,
                    fallback_id=f"{lines.stem}-{lines.number}",
                    namespace=settings.namespace,
                    now=clock.utc_now(),
                    max_bytes=settings.max_text_bytes,
                )
            self._put(self._made_now(info), partial(openai.numbered, messages))
            self._report(lines.bytes_read())

    def _import_messages(self, session_id: str) -> None:
        info = openai.session(session_id, namespace=self._settings.namespace, now=clock.utc_now())
        start = self._lines.place()

        def prepared() -> Iterator[PreparedMessage]:
            while (line := self._lines.read_object(skip_blank=True)) is not None:
                with self._lines.naming_line():
                    message = prepare(line, max_bytes=self._settings.max_text_bytes)
                yield message

        def messages() -> Iterator[tuple[int, PreparedMessage]]:
            self._lines.return_to(start)
            return openai.numbered(prepared())

        self._put(self._made_now(info), messages)

    def _import_native(self) -> None:
        lines = self._lines
        self._total *= 2
        trailer = native.verified(lines)
        self._done_before = lines.bytes_read()
        lines.return_to((0, 0))
        lines.read()
        sessions = messages = 0
        while (line := self._next_native()).get("type") == native.SESSION:
            with lines.naming_line():
                info = native.session(line)
            self._put_native(self._placed(info))
            sessions, messages = sessions + 1, messages + info.message_count
        if line.get("type") != native.END:
            raise lines.refusal("must be a session or the trailer")
        if (sessions, messages) != (trailer.sessions, trailer.messages):
            raise lines.refusal("the file does not hold as many sessions and messages as it tells")

    def _put_native(self, info: SessionInfo) -> None:
        start = self._lines.place()

        def messages() -> Iterator[tuple[int, PreparedMessage]]:
            self._lines.return_to(start)
            for index in range(info.message_count):
                line = self._next_native()
                with self._lines.naming_line():
                    message = native.message(line, max_bytes=self._settings.max_text_bytes)
                yield message
                if index % _LINES_PER_REPORT == 0:
                    self._report(self._lines.bytes_read())

        if self._put(info, messages).skipped:
            for _ in range(info.message_count):
                self._lines.read()
        self._report(self._lines.bytes_read())

    def _next_native(self) -> dict[str, Any]:
        line = self._lines.read_object()
        if line is None:
            raise self._lines.refusal("the file changed while it was read")
        return line

    def _made_now(self, info: SessionInfo) -> SessionInfo:
        """A session that begins with its import, with the life that the store gives."""
        ttl, max_age = self._settings.ttl, self._settings.max_age
        expires_at = queries.lifecycle.expiry(info.created_at, info.created_at, ttl, max_age)
        return replace(info, ttl=ttl, max_age=max_age, expires_at=expires_at)

    def _placed(self, info: SessionInfo) -> SessionInfo:
        """The session in the store's namespace, if the store was opened with one; else in its own."""
        return replace(info, namespace=self._settings.namespace) if self._settings.namespace else info

    # -- what they share

    def _put(self, info: SessionInfo, messages: _Messages) -> Put:
        def work(db: Any) -> Put:
            return queries.transfer.put(db, info, messages(), on_conflict=self._on_conflict, on_expire=self._settings.on_expire)

        done = self._write(work)
        if done.skipped:
            self._skipped += 1
            return done
        self._stored += 1
        self._messages += done.messages
        self._replaced += done.replaced
        if done.session_id != info.session_id:
            self._renamed.append((info.session_id, done.session_id))
        return done

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(min(self._done_before + done, self._total), self._total)
