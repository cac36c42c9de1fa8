"""`sessionstore.open()`: from a location to a store."""

from __future__ import annotations

from pathlib import Path

from .config import DEFAULT_BUSY_TIMEOUT, DEFAULT_MAX_TEXT_BYTES, Durability, OpenOptions, StoreSettings, locate
from .database import paths
from .database.database import Database
from .database.registry import acquire, open_in_memory
from .errors import ConfigError
from .store import SessionStore


def open(
    location: str | Path | None = None,
    *,
    namespace: str = "",
    durability: Durability = "full",
    busy_timeout: float = DEFAULT_BUSY_TIMEOUT,
    max_text_bytes: int = DEFAULT_MAX_TEXT_BYTES,
    in_memory: bool = False,
    must_exist: bool = False,
    create_parents: bool = False,
    read_only: bool = False,
    migrate: bool = True,
    follow_symlinks: bool = False,
    strict_permissions: bool = False,
) -> SessionStore:
    """Open a store, making or upgrading its file where needed. Stores on one file share one connection pool in a process.

    Args:
        location: A path (`str` or `pathlib.Path`) or a `sqlite:///` URL. By default the environment variable
            `SESSIONSTORE_URL`, or else a file in the user's data folder. A path is taken literally; `~` is not expanded.
        namespace: Keeps sessions of equal ids apart; "" by default.
        durability: "full": an acknowledged write survives a power loss. "normal": it survives a crash of the program, and a
            power loss may take the newest ones; a lone writer is several times faster.
        busy_timeout: Seconds to wait for other writers before `StoreBusyError`.
        max_text_bytes: The largest message, in bytes of UTF-8.
        in_memory: A store without a file, gone when it is closed.
        must_exist: Refuse to make a new file.
        create_parents: Make missing folders, for their owner only.
        read_only: Only read. The file must have the current schema; on a medium that cannot be written, no program may write it.
        migrate: Upgrade an older schema in place, after a backup.
        follow_symlinks: Open what a symbolic link points to.
        strict_permissions: Refuse a file or folder that other users can write, instead of warning.

    Raises:
        ConfigError: An argument is wrong.
        StoreOpenError: The file cannot be opened; its subclasses say why.
        StoreCorruptError: The file is damaged.
        StoreBusyError: Another program held the file past the `busy_timeout`.
        UpgradeError: The schema could not be upgraded; the file is as before.
    """
    settings = StoreSettings(namespace, durability, busy_timeout, max_text_bytes, read_only)
    options = OpenOptions(must_exist, create_parents, read_only, migrate, follow_symlinks, strict_permissions)
    return SessionStore(_database(location, options, in_memory=in_memory, timeout=settings.busy_timeout), settings)


def _database(location: str | Path | None, options: OpenOptions, *, in_memory: bool, timeout: float) -> Database:
    if not isinstance(in_memory, bool):
        raise ConfigError("in_memory: must be True or False")
    if in_memory:
        if location is not None or options != OpenOptions():
            raise ConfigError("in_memory=True takes no location and no option about files")
        return open_in_memory(timeout=timeout)
    path, own_folder = locate(location)
    return acquire(paths.prepare(path, options, own_folder=own_folder), options, timeout=timeout)
