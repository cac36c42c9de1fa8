"""`sessionstore.open()`: from a location to a store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from . import inputs
from .arguments import UNSET, Unset
from .config import (
    DEFAULT_BUSY_TIMEOUT,
    DEFAULT_MAX_TEXT_BYTES,
    DEFAULT_STALE_AFTER,
    REMOTE_VARIABLE,
    Durability,
    OnExpire,
    OpenOptions,
    StoreSettings,
    locate,
    remote_of_environment,
)
from .database import paths
from .database.database import Database
from .database.registry import acquire, open_in_memory
from .errors import ConfigError, InvalidInputError
from .store import SessionStore

if TYPE_CHECKING:
    from .remote.credentials import ApiKey
    from .remote.settings import Remote


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
    ttl: float | timedelta | None = None,
    max_age: float | timedelta | None = None,
    on_expire: OnExpire = "keep",
    stale_after: float | timedelta = DEFAULT_STALE_AFTER,
    remote: Remote | str | None | Unset = UNSET,
    api_key: ApiKey | str | Callable[[], str] | None = None,
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
        ttl: How long sessions made by this store live without an append, in seconds or as a timedelta; None for ever. A session
            may be given another one.
        max_age: How long they live altogether, likewise.
        on_expire: What a sweep does with an expired session: "keep" leaves it to analytics and `list(status="expired")`,
            "delete" removes it.
        stale_after: How long an agent counts as alive after it was heard of last, in seconds or as a timedelta.
        remote: The remote API that events are kept for and delivered to: its base URL, or a `Remote` with all settings. By default
            what `SESSIONSTORE_SYNC_URL` names; None for whatever the file has already. It belongs to the file: see `set_remote`.
        api_key: The key of a remote that is named by its URL, or a callable that returns it. It stays in memory.

    Raises:
        ConfigError: An argument is wrong.
        StoreOpenError: The file cannot be opened; its subclasses say why.
        StoreCorruptError: The file is damaged.
        StoreBusyError: Another program held the file past the `busy_timeout`.
        UpgradeError: The schema could not be upgraded; the file is as before.
    """
    if api_key is not None:
        # First of all: a traceback shows the variables of a frame, and this one then holds no key.
        from .remote.credentials import ApiKey as Key
        from .remote.credentials import require_valid

        api_key = Key.of(api_key)
        require_valid(api_key)
    settings = StoreSettings(
        namespace=namespace,
        durability=durability,
        busy_timeout=busy_timeout,
        max_text_bytes=max_text_bytes,
        read_only=read_only,
        ttl=_seconds("ttl", ttl),
        max_age=_seconds("max_age", max_age),
        on_expire=on_expire,
        stale_after=stale_after.total_seconds() if isinstance(stale_after, timedelta) else stale_after,
    )
    options = OpenOptions(must_exist, create_parents, read_only, migrate, follow_symlinks, strict_permissions)
    store = SessionStore(_database(location, options, in_memory=in_memory, timeout=settings.busy_timeout), settings)
    try:
        _set_remote(store, remote, api_key)
    except BaseException:
        store.close(drain_timeout=0)
        raise
    return store


def _set_remote(store: SessionStore, remote: Remote | str | None | Unset, api_key: ApiKey | None) -> None:
    if isinstance(remote, Unset):
        if api_key is not None:
            raise ConfigError("api_key: goes with remote=, the URL that it is for")
        if not store.settings.read_only:
            _follow_environment(store)
    elif remote is not None or api_key is not None:
        store.set_remote(remote, api_key)


def _follow_environment(store: SessionStore) -> None:
    named = remote_of_environment()
    if named is None:
        return
    try:
        # As a URL and a key: the settings that the file has for it stay.
        store.set_remote(named.base_url, named.api_key)
    except ConfigError:
        raise ConfigError(
            f"{REMOTE_VARIABLE}: names {named.base_url}, but the store tells its events to another remote, and one store has one "
            "remote. Correct the variable, or the store: set_remote(URL, replace=True), or sessionstore remote URL --replace"
        ) from None


def _seconds(name: str, given: float | timedelta | None) -> float | None:
    try:
        return inputs.life(name, given)
    except InvalidInputError as error:
        raise ConfigError(str(error)) from error


def _database(location: str | Path | None, options: OpenOptions, *, in_memory: bool, timeout: float) -> Database:
    if not isinstance(in_memory, bool):
        raise ConfigError("in_memory: must be True or False")
    if in_memory:
        if location is not None or options != OpenOptions():
            raise ConfigError("in_memory=True takes no location and no option about files")
        return open_in_memory(timeout=timeout)
    path, own_folder = locate(location)
    return acquire(paths.prepare(path, options, own_folder=own_folder), options, timeout=timeout)
