"""`sessionstore.restore()`: a backup takes the place of a store."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from .arguments import UNSET, Unset
from .config import DEFAULT_BUSY_TIMEOUT, StoreSettings, locate
from .database import backups, paths, restores
from .database.registry import is_open, kept_closed
from .database.transaction import Transaction
from .errors import SessionStoreError, StoreBusyError, StoreCorruptError, StoreOpenError, UnsafePathError
from .keys import EncryptionKey, Given, require_valid
from .opening import resolved_key
from .queries import backup_health
from .values.receipts import RestoreReceipt

_SHOWN: Final = 5


def restore(
    backup: str | Path,
    location: str | Path | None = None,
    *,
    key: EncryptionKey | Given | None | Unset = UNSET,
    busy_timeout: float = DEFAULT_BUSY_TIMEOUT,
    progress: Callable[[int, int | None], object] | None = None,
) -> RestoreReceipt:
    """Put a copy of a backup in the place of a store, or where there is none. No program may have that store open.

    The backup is looked over first and stays as it is. What was in the place is kept, with the log that belongs to it, in a folder
    beside it; the receipt names it. Killed at any moment, the old store is there or the new one, whole; the next open or restore
    clears up. A backup of an older schema is upgraded when the store is opened.

    Args:
        backup: The file to restore: what `backup()` made, or the copy of a store that was closed.
        location: The place: a path or a `sqlite:///` URL; by default where `open()` looks.
        key: What the backup is encrypted with, as for `open()`.
        busy_timeout: Seconds to wait for programs that are about to end.
        progress: Called with the bytes copied so far and all that there are to copy.

    Raises:
        ConfigError: An argument is wrong.
        NotADatabaseError: The backup is no database, or empty, or not there.
        ForeignDatabaseError: The backup, or what is in the place, is another program's.
        SchemaTooNewError: A newer version made the backup.
        StoreCorruptError: The backup is damaged, be it in a single message.
        WrongKeyError: The backup is encrypted with another key, or not at all, or no key was given for it.
        UnsafePathError: One of the paths leads to a link, a folder or a device.
        StoreBusyError: A program has the store open, or uses the backup as one; nothing was changed.
        DiskFullError: There is no room for a copy; nothing was changed.
    """
    if not isinstance(key, Unset):
        # First of all: a traceback shows the variables of a frame, and this one then holds no key.
        key = EncryptionKey.of(key)
        require_valid(key)
    secret = resolved_key(key)
    timeout = StoreSettings(busy_timeout=busy_timeout).busy_timeout
    source = paths.absolute(locate(backup)[0], follow=True)
    _require_backup(source)
    contents = backups.verify(source, secret)
    _require_intact(source, secret)
    place, own_folder = locate(location)
    path = paths.absolute(place)
    try:
        restores.settle(path, timeout=timeout)
        identity = paths.prepare_to_replace(path, own_folder=own_folder)
        if identity is not None and source.samefile(path):
            raise UnsafePathError(path, "is the backup itself; name the store that it is to replace")

        def fill(target: Path) -> None:
            with backups.reading(source, secret) as driver:
                backups.write_pages(driver, target, secret, progress)
            backups.verify_copy(target, contents, secret)

        with kept_closed(path, identity):
            previous = restores.replace(path, fill, secret, timeout=timeout)
    except OSError as error:
        if isinstance(error, SessionStoreError):
            raise
        raise StoreOpenError(path, error.strerror or type(error).__name__) from error
    return RestoreReceipt(
        path=str(path),
        store_id=contents.store_id,
        schema_revision=contents.revision,
        size_bytes=paths.size_of(path),
        sessions=contents.sessions,
        messages=contents.messages,
        previous=None if previous is None else str(previous),
    )


def _require_intact(source: Path, key: EncryptionKey | None) -> None:
    """Pages can be whole, and a message not what was written all the same."""
    with backups.reading(source, key) as driver, closing(Transaction(driver, source)) as db:
        damaged = list(backup_health.damaged(db))
    if damaged:
        some = ", ".join(damaged[:_SHOWN])
        raise StoreCorruptError(
            source,
            f"{len(damaged)} damaged: {some}. Nothing was changed; restore another backup. sessionstore --store BACKUP doctor "
            "tells more about this one",
        )


def _require_backup(source: Path) -> None:
    """A backup is one file that nobody writes."""
    paths.require_regular(source)
    if is_open(source):
        raise StoreBusyError(source, "a store of this process has it open; restore what its backup() makes")
    for suffix in (paths.WAL_SUFFIX, paths.JOURNAL_SUFFIX):
        if os.path.lexists(paths.sidecar(source, suffix)):
            raise StoreBusyError(
                source, f"{source.name}{suffix} lies beside it, as of a store that is open or was killed; restore a backup of it"
            )
