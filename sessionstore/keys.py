"""The key of an encrypted store and where it comes from, held so that it shows nowhere by accident."""

from __future__ import annotations

import base64
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias

from .config import default_path
from .errors import ConfigError, MissingExtraError
from .hidden import Hidden

KEY_BYTES: Final = 32
VARIABLE: Final = "SESSIONSTORE_KEY"

_NAMED: Final = "passphrase:"
_FEWEST_CHARS: Final = 8
_MOST_CHARS: Final = 1_024
_MOST_FILE_BYTES: Final = 2_048
_LONGEST_WAIT: Final = 60.0
# What SQLCipher 4 derives a key from a passphrase with.
_ROUNDS: Final = 256_000
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{43}=?")
_WRITTEN: Final = "must be 32 bytes, or their hex or base64; a text to remember is given as sessionstore.Passphrase(...)"


class Passphrase(Hidden):
    """A text that a key is made of, slowly on purpose: each connection of the store takes about a tenth of a second more.

    A random key of 32 bytes is better wherever nobody has to remember it.

    Raises:
        ConfigError: It is too short or too long, or no text. The message does not show it.
    """

    __slots__ = ("_refused", "_text")
    _refused: str | None
    _text: str

    def __init__(self, text: str) -> None:
        self._wrap(text)
        # Tools that show the variables of a traceback must not find it there.
        del text
        if self._refused is not None:
            raise ConfigError(f"passphrase: {self._refused}")

    def _wrap(self, text: str) -> None:
        self._refused = _fault_of_passphrase(text)
        self._text = str.__str__(text) if self._refused is None else ""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Passphrase):
            return NotImplemented
        import hmac

        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Passphrase, self._text))


class EncryptionKey(Hidden):
    """The key of a store: 32 bytes, a passphrase, or a callable that returns one of them when a store is opened.

    Raises:
        ConfigError: It is no key. The message does not show it.
    """

    __slots__ = ("_passphrase", "_provider", "_raw", "_refused", "source")
    _passphrase: str | None
    _provider: Callable[[], Any] | None
    _raw: bytes | None
    _refused: str | None
    source: str

    def __init__(self, key: Given, *, source: str = "key") -> None:
        self._wrap(key, source)
        del key
        require_valid(self)

    @classmethod
    def of(cls, key: EncryptionKey | Given | None) -> EncryptionKey | None:
        """The key for an argument that may be one already. It never raises.

        Who takes a key binds it anew with this, and only then calls `require_valid()`: a traceback shows the variables of a frame.
        """
        return None if key is None else cls.made_of(key)

    @classmethod
    def made_of(cls, key: EncryptionKey | Given) -> EncryptionKey:
        """As `of`, where there has to be a key."""
        if isinstance(key, EncryptionKey):
            return key
        made = cls.__new__(cls)
        made._wrap(key, "key")  # noqa: SLF001 - of this class
        return made

    @property
    def fault(self) -> str | None:
        """What is wrong with what was given as a key, which is not kept then."""
        return self._refused

    def resolved(self) -> EncryptionKey:
        """The key itself, where a callable gives it; errors of the callable are raised.

        Raises:
            ConfigError: It is no key.
        """
        require_valid(self)
        if self._provider is None:
            return self
        made = EncryptionKey.__new__(EncryptionKey)
        # In one go, so that no variable of this frame holds what the callable returned.
        made._wrap(self._provider(), self.source)  # noqa: SLF001 - of this class
        if made._provider is not None:  # noqa: SLF001
            # As of `lambda: file_key(path)`.
            made._wrap(made._provider(), made.source)  # noqa: SLF001
        if made._provider is not None:  # noqa: SLF001
            raise ConfigError(f"{self.source}: the callable returned another one, and that one no key either")
        require_valid(made)
        return made

    def reveal(self) -> str:
        """What SQLCipher takes: the raw key, or the passphrase. To be given to a connection and nowhere else."""
        if self._raw is not None:
            return f"x'{self._raw.hex()}'"
        return self._passphrase or ""

    def raw(self, salt: bytes) -> bytes:
        """The 32 bytes that pages of a file with this salt are encrypted with."""
        if self._raw is not None:
            return self._raw
        import hashlib

        return hashlib.pbkdf2_hmac("sha512", (self._passphrase or "").encode(), salt, _ROUNDS, KEY_BYTES)

    def _wrap(self, key: object, source: str) -> None:
        self.source = source
        self._raw = self._passphrase = self._provider = None
        self._refused = None
        if isinstance(key, EncryptionKey):
            self._raw, self._passphrase, self._provider = key._raw, key._passphrase, key._provider  # noqa: SLF001
            self._refused, self.source = key._refused, key.source  # noqa: SLF001
        elif isinstance(key, Passphrase):
            self._passphrase = key._text  # noqa: SLF001 - of this module
        elif callable(key) and not isinstance(key, str | bytes | bytearray):
            self._provider = key
        elif isinstance(key, str) and key.startswith(_NAMED):
            made = Passphrase.__new__(Passphrase)
            made._wrap(key.removeprefix(_NAMED))  # noqa: SLF001 - of this module
            self._refused, self._passphrase = made._refused, made._text  # noqa: SLF001
        else:
            self._raw = _bytes_of(key)
            self._refused = _fault(key, self._raw)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EncryptionKey):
            return NotImplemented
        if self._provider is not None or other._provider is not None:
            return self._provider == other._provider
        import hmac

        return hmac.compare_digest(self.reveal().encode(), other.reveal().encode())

    def __hash__(self) -> int:
        return hash((EncryptionKey, self._provider or self.reveal()))


Given: TypeAlias = bytes | str | Passphrase | Callable[[], bytes | str | Passphrase | EncryptionKey]


def require_valid(key: EncryptionKey | None) -> None:
    """Refuse what is no key.

    Raises:
        ConfigError: It is none. The message does not show it.
    """
    if key is not None and key.fault is not None:
        raise ConfigError(f"{key.source}: {key.fault}")


def environment_key(variable: str = VARIABLE) -> EncryptionKey:
    """The key in an environment variable: hex or base64 of 32 bytes, or "passphrase:" and a text. It is read at each open."""

    def read() -> str:
        written = os.environ.get(variable)
        if not written:
            how = "is not set" if written is None else "is set and empty"
            raise ConfigError(f"{variable}: {how}, and the key of the store should be there")
        return written

    return EncryptionKey(read, source=variable)


def file_key(path: str | PathLike[str]) -> EncryptionKey:
    """The key in a file that only its owner can read (mode 0600), written as `environment_key` has it. It is read at each open."""
    return EncryptionKey(lambda: _text_of_file(Path(path)), source=f"key file {os.fspath(path)}")


def keyring_key(service: str, name: str, *, create: bool = False) -> EncryptionKey:
    """The key in the keyring of the system (extra `keyring`), asked for at each open.

    Args:
        service: The service that it is kept under, such as the name of your program.
        name: The name of the key, such as that of the store.
        create: Make a random key and keep it there if there is none.
    """
    return EncryptionKey(lambda: _text_of_keyring(service, name, create=create), source=f"keyring {service}/{name}")


def create_key_file(path: str | PathLike[str]) -> None:
    """Write a new random key to a file that only its owner can read.

    Raises:
        FileExistsError: There is a file already; a key is never overwritten.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, os.urandom(KEY_BYTES).hex().encode() + b"\n")
        os.fsync(descriptor)
    except OSError:
        Path(path).unlink()
        raise
    finally:
        os.close(descriptor)
    if os.name == "posix":
        # Its name has to survive a power loss as well as what it encrypts.
        folder = os.open(Path(path).absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _text_of_file(path: Path) -> str:
    try:
        found = path.stat()
        _require_key_file(path, found)
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such key file") from None
    except UnicodeDecodeError:
        pass
    except OSError as error:
        raise ConfigError(f"{path}: the key file cannot be read ({error.strerror})") from None
    # Not inside of the handler: the error that it handles holds what the file does.
    raise ConfigError(f"{path}: the key {_WRITTEN}")


def _require_key_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path}: is no regular file")
    # So small is no database: opening one of those behind SQLite's back would drop its locks.
    if found.st_size > _MOST_FILE_BYTES:
        raise ConfigError(f"{path}: has {found.st_size} bytes; a key file holds one line")
    if os.name == "posix" and found.st_mode & 0o077:
        raise ConfigError(f"{path}: can be read by other users; chmod 600 it")


def _text_of_keyring(service: str, name: str, *, create: bool) -> str:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise MissingExtraError("a key in the keyring", "keyring") from None
    _require_safe(keyring.get_keyring())
    try:
        # In one go, so that no variable holds it.
        return keyring.get_password(service, name) or _new_in_keyring(keyring, service, name, create=create)
    except KeyringError as error:
        raise ConfigError(f"keyring {service}/{name}: the keyring refused ({type(error).__name__})") from None


def _new_in_keyring(keyring: Any, service: str, name: str, *, create: bool) -> str:
    if not create:
        raise ConfigError(f"keyring {service}/{name}: there is no such key; keyring_key(..., create=True) makes one")
    with _alone_at_keyring():
        # Another process may have been faster.
        if not keyring.get_password(service, name):
            keyring.set_password(service, name, os.urandom(KEY_BYTES).hex())
        return str(keyring.get_password(service, name) or "")


@contextmanager
def _alone_at_keyring() -> Iterator[None]:
    """Let one process at a time make a key: of two, the first would be lost with the store that it encrypts."""
    place = default_path().with_name("keyring-lock")
    with ExitStack() as stack:
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = stack.enter_context(closing(sqlite3.connect(place, timeout=_LONGEST_WAIT, isolation_level=None)))
            lock.execute("BEGIN EXCLUSIVE")
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"{place}: cannot be locked, and a key is made by one process at a time ({error})") from None
        yield


def _require_safe(backend: Any) -> None:
    """Refuse keyrings that keep nothing, or keep it for everybody to read."""
    for each in (backend, *getattr(backend, "backends", ())):
        names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(each).__mro__}
        if names & {"keyring.backends.fail.Keyring", "keyring.backends.null.Keyring"}:
            raise ConfigError("keyring: this system has none; use environment_key() or file_key(), or install a keyring backend")
        if any("plaintext" in name.lower() for name in names):
            raise ConfigError("keyring: its backend keeps what it is given as plain text; configure another one")


def _bytes_of(key: object) -> bytes | None:
    """The bytes that are given or written. It does not raise: its frame holds the key."""
    if isinstance(key, bytes | bytearray):
        return bytes(key)
    if not isinstance(key, str):
        return None
    # What a program prints, or a file holds, ends with a line break.
    key = key.strip()
    if _HEX.fullmatch(key):
        return bytes.fromhex(key)
    if _BASE64.fullmatch(key):
        return base64.urlsafe_b64decode(key.rstrip("=").replace("+", "-").replace("/", "_") + "=")
    return None


def _fault(key: object, raw: bytes | None) -> str | None:
    """What is wrong with a key, without telling it; None for a good one. It does not raise: its frame holds the key."""
    if not isinstance(key, str | bytes | bytearray):
        return f"must be 32 bytes, a Passphrase, or a callable that returns one, not {type(key).__name__}"
    if raw is None:
        return _WRITTEN
    if len(raw) != KEY_BYTES:
        return f"must be {KEY_BYTES} bytes, not {len(raw)}"
    if not any(raw):
        return "must be random, not all zero"
    return None


def _fault_of_passphrase(text: object) -> str | None:
    if not isinstance(text, str):
        return f"must be a str, not {type(text).__name__}"
    if not _FEWEST_CHARS <= len(text) <= _MOST_CHARS:
        return f"must have {_FEWEST_CHARS} to {_MOST_CHARS} characters"
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        return "must not hold NUL or unpaired surrogate characters"
    if text.lower().startswith("x'"):
        return "must not begin as raw keys do (x'); give the 32 bytes themselves as key"
    return None
