"""The calls that read and write files of conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from typing import BinaryIO, Literal, Unpack

from .. import inputs
from ..arguments import SessionFilters
from ..values.receipts import ExportReceipt, ImportReceipt
from .calls import Calls


class FileCalls(Calls):
    """Files."""

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
        from ..formats.exporting import export_file, selection

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
