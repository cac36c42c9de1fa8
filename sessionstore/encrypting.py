"""`sessionstore.encrypt_file()` and `decrypt_file()`: an existing store made encrypted, or plain again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .config import DEFAULT_BUSY_TIMEOUT, OpenOptions, StoreSettings, locate
from .database import conversions, encryption, paths, restores
from .database.registry import is_open, kept_closed
from .errors import ConfigError, SessionStoreError, StoreOpenError
from .keys import EncryptionKey, Given, require_valid
from .values.receipts import ConversionReceipt


def encrypt_file(
    location: str | Path, key: EncryptionKey | Given, *, busy_timeout: float = DEFAULT_BUSY_TIMEOUT
) -> ConversionReceipt:
    """Encrypt a store that nobody has open. A kill leaves the plain file or the encrypted one; the plain one is then removed.

    The bytes of the plain file may stay in free blocks of the disk, and in backups of it.

    Args:
        location: The file, as `open` takes it.
        key: The key, as `open` takes it. Keep it before you call this: without it nobody reads the store again.
        busy_timeout: Seconds to wait until others have closed the file.

    Raises:
        ConfigError: It is no key, or the file is encrypted already.
        MissingExtraError: SQLCipher is not installed.
        StoreOpenError: There is no such store.
        StoreBusyError: Somebody has it open; nothing was changed.
        StoreCorruptError: It is damaged; nothing was changed.
        DiskFullError: There is no room for a copy; nothing was changed.
    """
    key = EncryptionKey.made_of(key)
    return _converted(location, key, encrypted=True, timeout=busy_timeout)


def decrypt_file(
    location: str | Path, key: EncryptionKey | Given, *, busy_timeout: float = DEFAULT_BUSY_TIMEOUT
) -> ConversionReceipt:
    """Make an encrypted store plain that nobody has open. A kill leaves the encrypted file or the plain one.

    The arguments and errors are those of `encrypt_file`; `WrongKeyError` if the file is plain or has another key.
    """
    key = EncryptionKey.made_of(key)
    return _converted(location, key, encrypted=False, timeout=busy_timeout)


def _converted(location: str | Path, key: EncryptionKey, *, encrypted: bool, timeout: float) -> ConversionReceipt:
    require_valid(key)
    if location is None:
        raise ConfigError("location: name the file")
    timeout = StoreSettings(busy_timeout=timeout).busy_timeout
    encryption.require_driver()
    resolved = key.resolved()
    path = paths.absolute(locate(location)[0])
    try:
        restores.settle(path, timeout=timeout)
        file = paths.prepare(path, OpenOptions(must_exist=True), own_folder=False)
        with kept_closed(path, file.identity):
            convert = conversions.encrypt if encrypted else conversions.decrypt
            done = convert(path, resolved, timeout=timeout)
    except OSError as error:
        if isinstance(error, SessionStoreError):
            raise
        raise StoreOpenError(path, error.strerror or type(error).__name__) from error
    return ConversionReceipt(
        path=str(path),
        encrypted=encrypted,
        sessions=done.sessions,
        messages=done.messages,
        size_bytes=paths.size_of(path),
        plain_copies=tuple(_plain_copies(path)) if encrypted else (),
    )


def _plain_copies(path: Path) -> Iterator[str]:
    # A copy that this process has open is named without a look, which would drop its locks.
    return (str(copy) for copy in conversions.copies_beside(path) if is_open(copy) or encryption.is_plain(copy))
