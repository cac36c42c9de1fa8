"""`sessionstore.open()`: from a location to a store."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from . import hints, inputs
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
from .database import paths, restores
from .database.database import Database
from .database.encryption import require_driver
from .database.registry import acquire, open_in_memory, withdraw
from .errors import ConfigError, InvalidInputError, StoreOpenError
from .keys import VARIABLE as KEY_VARIABLE
from .keys import EncryptionKey, Given, environment_key
from .keys import require_valid as require_valid_key
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
    ttl: float | timedelta | None = None,
    max_age: float | timedelta | None = None,
    on_expire: OnExpire = "keep",
    stale_after: float | timedelta = DEFAULT_STALE_AFTER,
    compress_over: int | None = None,
    remote: hints.Remote | str | None | Unset = UNSET,
    api_key: hints.ApiKey | str | Callable[[], str] | None = None,
    key: EncryptionKey | Given | None | Unset = UNSET,
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
            "archive" does that, too, and compresses its messages, "delete" removes it.
        stale_after: How long an agent counts as alive after it was heard of last, in seconds or as a timedelta.
        compress_over: Compress a message whose text and rest are longer than so many bytes when it is appended, if that saves a
            tenth. Calls do not show it; plain SQL sees no text of such a message. Archived sessions are compressed in any case.
        remote: The remote API that events are kept for and delivered to: its base URL, or a `Remote` with all settings. By default
            what `SESSIONSTORE_SYNC_URL` names; None for whatever the file has already. It belongs to the file: see `set_remote`.
        api_key: The key of a remote that is named by its URL, or a callable that returns it. It stays in memory.
        key: Encrypts the whole file (extra `encryption`): 32 bytes, their hex or base64, a `Passphrase`, a callable that returns
            one of them, or what `file_key`, `keyring_key` and `environment_key` make. By default what `SESSIONSTORE_KEY` holds, if
            it is set; None for a plain file. An encrypted file opens with its key only, and a plain one never with any.

    Raises:
        ConfigError: An argument is wrong.
        MissingExtraError: A key was given, and SQLCipher is not installed.
        WrongKeyError: The file is encrypted with another key, or not at all, or no key was given for it.
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
    if not isinstance(key, Unset):
        key = EncryptionKey.of(key)
        require_valid_key(key)
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
        compress_over=compress_over,
    )
    options = OpenOptions(must_exist, create_parents, read_only, migrate, follow_symlinks, strict_permissions)
    _require_valid_remote(remote, api_key, read_only=settings.read_only)
    user = object()
    try:
        database = _database(location, options, key, user, in_memory=in_memory, timeout=settings.busy_timeout)
        store = SessionStore(database, settings, user=user)
        _set_remote(store, remote, api_key)
        return store
    except BaseException:
        withdraw(user, timeout=settings.busy_timeout)
        raise


def _require_valid_remote(remote: hints.Remote | str | None | Unset, api_key: hints.ApiKey | None, *, read_only: bool) -> None:
    """What is wrong with it is said before there is a file."""
    if not isinstance(remote, Unset):
        from .remote.settings import named_remote

        named_remote(remote, api_key)
    elif api_key is not None:
        raise ConfigError("api_key: goes with remote=, the URL that it is for")
    elif not read_only:
        remote_of_environment()


def _set_remote(store: SessionStore, remote: hints.Remote | str | None | Unset, api_key: hints.ApiKey | None) -> None:
    if isinstance(remote, Unset):
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


def _database(
    location: str | Path | None,
    options: OpenOptions,
    key: EncryptionKey | None | Unset,
    user: object,
    *,
    in_memory: bool,
    timeout: float,
) -> Database:
    if not isinstance(in_memory, bool):
        raise ConfigError("in_memory: must be True or False")
    if in_memory:
        if location is not None or options != OpenOptions() or not (key is None or isinstance(key, Unset)):
            raise ConfigError("in_memory=True takes no location, no key and no option about files")
        return open_in_memory(user, timeout=timeout)
    path, own_folder = locate(location)
    resolved = resolved_key(key)
    while True:
        restores.settle(paths.absolute(path, follow=options.follow_symlinks), timeout=timeout)
        file = paths.prepare(path, options, own_folder=own_folder)
        try:
            return acquire(file, options, user, key=resolved, timeout=timeout)
        except StoreOpenError:
            # A restore may have ended while this waited for it: then the file that is there now is opened.
            if not paths.is_replaced(file):
                raise


def resolved_key(key: EncryptionKey | None | Unset) -> EncryptionKey | None:
    """The key itself, for an argument that may leave it to the environment.

    Raises:
        ConfigError: There is none where one should be.
        MissingExtraError: There is one, and SQLCipher is not installed: before any file is made.
    """
    if isinstance(key, Unset):
        # Set and empty is a mistake, as of a secret that was not found: not the wish for a plain file.
        key = environment_key() if KEY_VARIABLE in os.environ else None
    if key is None:
        return None
    require_driver()
    return key.resolved()


def conceal(arguments: dict[str, Any]) -> None:
    """Replace the keys among the arguments of `open` by what hides them, where they pass through frames that may raise."""
    for name, hidden in (("key", EncryptionKey.of), ("api_key", _api_key)):
        if name in arguments and not isinstance(arguments[name], Unset):
            arguments[name] = hidden(arguments[name])


def _api_key(given: hints.ApiKey | str | Callable[[], str] | None) -> hints.ApiKey | None:
    from .remote.credentials import ApiKey as Key

    return Key.of(given)
