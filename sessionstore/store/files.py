"""The calls about files: conversations in and out, backups, and the room that the store's own file takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Literal, Unpack

from .. import hints, inputs
from ..arguments import SessionFilters
from ..database.transaction import Transaction
from ..errors import ConfigError, InvalidInputError
from ..formats import ExportFormat, ImportFormat
from ..keys import EncryptionKey
from .calls import Calls


class FileCalls(Calls):
    """Files."""

    def import_file(
        self,
        source: str | PathLike[str] | BinaryIO,
        *,
        format: ImportFormat = "auto",  # noqa: A002 - the usual word
        on_conflict: Literal["fail", "skip", "replace", "new-id", "merge"] = "fail",
        session_id: str | None = None,
        progress: Callable[[int, int | None], object] | None = None,
    ) -> hints.ImportReceipt:
        """Store the conversations of a file; each one is a transaction.

        Args:
            source: A path, or a binary file that is read from where it stands; JSONL may be gzip.
            format: "sessionstore", the lossless export: sessions keep their seqs, instants, versions and namespaces; a store
                with a namespace of its own takes them all into that one. "openai" and "responses": one conversation a line, of chat
                messages or of items of the Responses API. "openai-messages" and "responses-items": one of them a line.
                "go-deep-agent": a folder of its session files, or one of them. "llm": its logs.db. By default the first line, or
                the kind of path, tells.
            on_conflict: What becomes of a session whose id is taken: "fail" raises, "skip" leaves it out, "replace" deletes the
                stored one, "new-id" appends a number to its id, "merge" adds what it lacks.
            session_id: The id for a file that holds one session; the file's name without suffixes by default.
            progress: Called with the bytes read so far and all that there are to read; with conversations, if it is a database.

        Raises:
            InvalidInputError: A line is refused; it is named. A lossless file that is cut short or damaged is refused before
                anything is stored; else what stood before the line is stored, as the message says.
            ConflictError: An id is taken, with on_conflict="fail"; or, with "merge", the messages of both sides are not the same.
            OSError: The file cannot be read.
        """
        from ..formats.importing import import_file

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
        format: ExportFormat = "sessionstore",  # noqa: A002 - the usual word
        view: str | None = None,
        session_ids: str | Iterable[str] | None = None,
        all_namespaces: bool = False,
        progress: Callable[[int, int | None], object] | None = None,
        **filters: Unpack[SessionFilters],
    ) -> hints.ExportReceipt:
        """Write sessions, or a view, to a file as they are at one moment.

        Args:
            target: A path or a binary file. A path appears whole or not at all, for its owner only; .gz is compressed.
                "go-deep-agent" needs the path of a folder.
            format: "sessionstore" loses nothing. "openai" is one conversation a line: its messages, as a chat API takes them, and
                the session's metadata; "openai-messages" is one message a line, of one session. "responses" and "responses-items"
                are the same with the messages as they are stored. "go-deep-agent" is a folder of its session files.
                "markdown" and "html" are transcripts to read. "csv" and "parquet" are the rows of a view.
            view: Which view, such as "v_messages"; with "csv" and "parquet" only, which take neither `session_ids` nor filters.
            session_ids: Only these; without filters.
            all_namespaces: Those of all namespaces, in the lossless format and of views only.
            progress: Called with the messages written so far and all that there are to write; with rows, of a view.
            filters: Those of `list`; archived sessions are included unless `archived` says otherwise.

        Raises:
            NotFoundError: One of `session_ids` is not there.
            MissingExtraError: Parquet needs the extra `parquet`.
            OSError: The file cannot be written.
        """
        from ..formats import EXPORT_FORMATS, TABLE_FORMATS
        from ..formats.exporting import export_file, selection

        self._require_open()
        inputs.choice("format", format, EXPORT_FORMATS)
        namespace = None if inputs.flag("all_namespaces", all_namespaces) else self.namespace
        if (view is not None) != (format in TABLE_FORMATS):
            raise InvalidInputError("view", f"goes with the formats {' and '.join(TABLE_FORMATS)}, which need one")
        if view is not None:
            return self._export_view(target, view, format, namespace, (session_ids, filters), progress)
        return export_file(
            target,
            self._read,
            selection(namespace, session_ids, filters, file_format=format),
            store_path=self._database.path,
            file_format=format,
            progress=progress,
        )

    def _export_view(
        self,
        target: object,
        view: str,
        file_format: str,
        namespace: str | None,
        chosen: tuple[object, SessionFilters],
        progress: Any,
    ) -> hints.ExportReceipt:
        from ..formats.tables import export_view

        if chosen != (None, {}):
            raise InvalidInputError("session_ids", "and filters choose sessions; the rows of a view are all written")
        return export_view(
            target,
            self._read,
            view,
            namespace=namespace,
            store_path=self._database.path,
            file_format=file_format,
            progress=progress,
        )

    def backup(
        self,
        target: str | PathLike[str],
        *,
        overwrite: bool = False,
        progress: Callable[[int, int | None], object] | None = None,
    ) -> hints.BackupReceipt:
        """Copy the whole store to another file, as it is at one moment, while everybody goes on writing.

        The file appears whole and looked over, or not at all, for its owner only. `sessionstore.restore()` puts it back.

        Args:
            target: Where to; a folder that is there.
            overwrite: Replace a file that is there.
            progress: Called with the bytes copied so far and all that there are to copy.

        Raises:
            InvalidInputError: There is a file already, or a database is there.
            ConfigError: The store is in memory.
            StoreBusyError: Another backup is being written there.
            DiskFullError: There is no room for it.
            OSError: The folder cannot be written.
        """
        from ..database import backups
        from ..values.receipts import BackupReceipt

        self._require_open()
        self._database.require_open()
        place = backups.place_of(target)
        replaces = inputs.flag("overwrite", overwrite)
        self._own_path()

        def copy(db: Transaction) -> tuple[backups.Contents, EncryptionKey | None, datetime]:
            # No other key while this reads: rekey() waits for it.
            key = self._database.key
            # Reading pins the snapshot that the copy then shows.
            contents = backups.contents_of(db.driver, Path(db.path))
            backups.write_pages(db.driver, unfinished, key, progress)
            return contents, key, db.now

        with backups.new_file(place, overwrite=replaces) as unfinished:
            contents, key, taken_at = self._read(copy)
            backups.verify_copy(unfinished, contents, key)
            size_bytes = unfinished.stat().st_size
        return BackupReceipt(
            path=str(place),
            store_id=contents.store_id,
            schema_revision=contents.revision,
            taken_at=taken_at,
            size_bytes=size_bytes,
            sessions=contents.sessions,
            messages=contents.messages,
        )

    def vacuum(self, *, full: bool = False, progress: Callable[[int, int | None], object] | None = None) -> hints.VacuumReceipt:
        """Give the room of what was deleted back to the file system.

        Args:
            full: Rebuild the whole file instead, after its search index; this also puts together what lies apart. Nobody can write
                meanwhile, and it needs as much free room as the store takes, twice where temporary files are on the same disk.
            progress: Called with the pages given back so far and all that there are to give back.

        Raises:
            ConfigError: The store is in memory.
            DiskFullError: There is not enough room to rebuild it; nothing was done.
            StoreBusyError: Others wrote past the `busy_timeout`.
        """
        from ..database import paths, vacuums
        from ..values.receipts import VacuumReceipt

        self._require_writable()
        database, timeout = self._database, self._settings.busy_timeout
        database.require_writable()
        path = self._own_path()

        def size() -> int:
            return paths.size_of(path) + paths.size_of(paths.sidecar(path, paths.WAL_SUFFIX))

        before = size()
        rebuilt = inputs.flag("full", full) or not vacuums.is_incremental(database, timeout=timeout)
        if rebuilt:
            vacuums.require_room(path, self._read(vacuums.bytes_in_use), in_memory=database.key is not None)
            self._merge_search_index()
            vacuums.rebuild(database, path, timeout=timeout)
        else:
            vacuums.give_back(database, timeout=timeout, progress=progress)
        complete = vacuums.empty_log(database, path, timeout=timeout)
        return VacuumReceipt(full=rebuilt, bytes_before=before, bytes_after=size(), complete=complete)

    def _own_path(self) -> Path:
        path = self._database.path
        if path is None:
            raise ConfigError("a store in memory has no file; export_file() writes its sessions to one")
        return path
