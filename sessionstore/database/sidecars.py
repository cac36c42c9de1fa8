"""Whether a write-ahead log that lies beside a database file belongs to it.

SQLite takes any valid log for the file's own: one left by a restored or copied database replaces the content, and closing the
connection makes that last. So it is looked at first, through connections that cannot write.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import ForeignDatabaseError
from ..keys import EncryptionKey
from . import encryption, engine, paths

_STORE_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOG_MAGICS: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


class _Names(NamedTuple):
    application_id: int
    store_id: str | None


def refuse_foreign_log(path: Path, key: EncryptionKey | None = None, *, timeout: float) -> None:
    """Make sure that the log beside a file, if there is any, is its own. The writer lock is held, or the file is only read.

    Raises:
        ForeignDatabaseError: It was written for another database; nothing was touched.
    """
    if not paths.size_of(paths.sidecar(path, paths.WAL_SUFFIX)) or not paths.size_of(path):
        return
    log = paths.sidecar(path, paths.WAL_SUFFIX)
    if key is not None and encryption.is_foreign_log(path, log, key):
        raise ForeignDatabaseError(log, f"was written with another key than {path.name}, or for another file; move it away")
    try:
        own = _names(path, key, without_log=True, timeout=timeout)
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        # A checkpoint was cut short: without its log the file is no database yet.
        return
    # A store whose tables are in the log still has no name of its own.
    if own.store_id is not None and _names(path, key, without_log=False, timeout=timeout) != own:
        raise ForeignDatabaseError(
            log,
            f"belongs to another database than {path.name}; move it away, nothing was touched",
        )


def is_no_log(path: Path) -> bool:
    """Whether what lies beside a file does not even begin as a log does. Before the first connection to it only."""
    log = paths.sidecar(path, paths.WAL_SUFFIX)
    if not paths.size_of(log):
        return False
    with log.open("rb") as file:
        return file.read(len(_LOG_MAGICS[0])) not in _LOG_MAGICS


def _names(path: Path, key: EncryptionKey | None, *, without_log: bool, timeout: float) -> _Names:
    connection = engine.connect_read_only(path, key, immutable=without_log)
    try:
        engine.set_busy_timeout(connection, int(timeout * 1000))
        application_id = engine.pragma(connection, "application_id")
        named = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'store_info'").fetchall()[0][0]
        rows = connection.execute("SELECT store_id FROM store_info").fetchall() if named else []
        # Where a checkpoint was cut short, the page of the table may hold something else.
        is_name = len(rows) == 1 and isinstance(rows[0][0], str) and _STORE_ID.fullmatch(rows[0][0])
        return _Names(application_id, rows[0][0] if is_name else None)
    finally:
        connection.close()
