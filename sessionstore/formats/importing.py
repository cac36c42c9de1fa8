"""Reading a whole file into a store: each conversation is one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Final, cast

from .. import clock, inputs
from ..config import StoreSettings
from ..errors import ConflictError, InvalidInputError
from ..queries.transfer import ON_CONFLICT, OnConflict
from ..rows import PreparedMessage, prepare
from ..values.receipts import ImportReceipt
from . import (
    AUTO,
    DEEP_AGENT,
    IMPORT_FORMATS,
    LLM,
    NATIVE,
    ONE_SESSION_FORMATS,
    OPENAI,
    OPENAI_MESSAGES,
    RESPONSES,
    deep_agent,
    llm_logs,
    native,
    openai,
)
from .native_reading import NativeReader
from .receiving import Receiver, Write
from .streams import LineReader, Progress, open_lines, path_of

_DATABASE_SUFFIXES: Final = frozenset({".db", ".sqlite", ".sqlite3"})


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
    receiver = Receiver(write, settings, cast(OnConflict, on_conflict))
    if file_format == AUTO and isinstance(source, str | PathLike):
        file_format = _told_by_place(path_of("source", source))
    if file_format == LLM:
        return llm_logs.import_logs(source, receiver, store_path=store_path, session_id=chosen_id, progress=progress)
    if file_format == DEEP_AGENT:
        return deep_agent.import_files(source, receiver, store_path=store_path, session_id=chosen_id, progress=progress)
    with open_lines(source, store_path=store_path) as lines:
        found = _detected(lines) if file_format == AUTO else file_format
        if chosen_id is not None and found not in ONE_SESSION_FORMATS:
            raise InvalidInputError("session_id", "names the session of a file with one message a line; this one names its own")
        return _Run(lines, receiver, file_format=found, progress=progress).finish(chosen_id)


def _told_by_place(path: Path) -> str:
    """The format as far as the kind of the path tells it. A database is not opened to look at it: that could drop locks on it."""
    if path.is_dir():
        return DEEP_AGENT
    return LLM if path.suffix.lower() in _DATABASE_SUFFIXES else AUTO


def _detected(lines: LineReader) -> str:
    start = lines.place()
    if (lines.read() or b"").lstrip().startswith(b"["):
        raise lines.refusal(
            f"is a JSON array, and JSONL has one JSON value a line; a session file of {DEEP_AGENT} needs its format named"
        )
    lines.return_to(start)
    first = lines.read_object(skip_blank=True)
    if first is None:
        raise InvalidInputError("source", f"{lines.name} is empty, so its format cannot be told; name it")
    if native.is_header(first):
        found = NATIVE
    elif openai.is_conversation(first):
        found = OPENAI
    elif openai.is_list_of_items(first):
        found = RESPONSES
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

    def __init__(self, lines: LineReader, receiver: Receiver, *, file_format: str, progress: Progress | None) -> None:
        self._lines = lines
        self._receiver = receiver
        self._settings = receiver.settings
        self._format = file_format
        self._progress = progress
        self._done_before = 0
        self._total = lines.total_bytes

    def finish(self, session_id: str | None) -> ImportReceipt:
        """Read to the end."""
        try:
            if self._format == NATIVE:
                self._import_native()
            elif self._format in (OPENAI, RESPONSES):
                self._import_conversations(openai.MESSAGES if self._format == OPENAI else openai.ITEMS)
            else:
                self._import_messages(session_id or self._lines.stem)
        except InvalidInputError as error:
            # What was found while storing does not name its line yet.
            named = error if error.field == "source" else self._lines.refusal(str(error), limit=error.limit)
            raise self._receiver.refusal(named) from error
        except ConflictError as error:
            raise self._receiver.conflict(error, self._place()) from error
        self._report(self._total)
        return self._receiver.receipt(self._format)

    def _place(self) -> str:
        # A file of one conversation is in the way as a whole, before a line of it is read.
        lines = self._lines
        return f"line {lines.number} of {lines.name}" if lines.number else lines.name

    # -- the three layouts

    def _import_conversations(self, held_in: str) -> None:
        lines, settings = self._lines, self._settings
        while (line := lines.read_object(skip_blank=True)) is not None:
            with lines.naming_line():
                info, messages = openai.conversation(
                    line,
                    fallback_id=f"{lines.stem}-{lines.number}",
                    namespace=settings.namespace,
                    now=clock.utc_now(),
                    max_bytes=settings.max_text_bytes,
                    held_in=held_in,
                )
            self._receiver.put(self._receiver.made_now(info), partial(openai.numbered, messages))
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

        self._receiver.put(self._receiver.made_now(info), messages)

    def _import_native(self) -> None:
        self._total *= 2
        trailer = native.verified(self._lines)
        self._done_before = self._lines.total_bytes
        NativeReader(self._lines, self._receiver, self._report).finish(trailer)

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(min(self._done_before + done, self._total), self._total)
