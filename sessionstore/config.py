"""Where a store is and how it behaves: frozen settings, and the one place that reads the environment."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import unquote

from . import inputs
from .errors import ConfigError, InvalidInputError

if TYPE_CHECKING:
    from .remote.credentials import ApiKey
    from .remote.settings import Remote

Durability = Literal["full", "normal"]
OnExpire = Literal["keep", "archive", "delete"]
OnFull = Literal["drop_oldest_metrics", "raise"]

URL_VARIABLE: Final = "SESSIONSTORE_URL"
REMOTE_VARIABLE: Final = "SESSIONSTORE_SYNC_URL"
KEY_VARIABLE: Final = "SESSIONSTORE_SYNC_TOKEN"
DEFAULT_NAME: Final = "sessionstore.db"
DEFAULT_BUSY_TIMEOUT: Final = 10.0
DEFAULT_STALE_AFTER: Final = 900.0
# Seconds between two passes of the background.
DEFAULT_INTERVAL: Final = 1_800.0
ON_EXPIRE: Final = ("keep", "archive", "delete")
DEFAULT_MAX_OUTBOX_BYTES: Final = 1 << 30
# Of dead events that the remote has no use for the newest are kept.
MOST_UNSUPPORTED: Final = 1_000
DROP_OLDEST_METRICS: Final = "drop_oldest_metrics"
ON_FULL: Final = (DROP_OLDEST_METRICS, "raise")
LONGEST_BUSY_TIMEOUT: Final = 86_400
DEFAULT_MAX_TEXT_BYTES: Final = 64 << 20
SQLITE_LIMIT_BYTES: Final = 1_000_000_000

_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_SQLITE_SCHEMES: Final = ("sqlite", "sqlite+pysqlite")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The choices of one `sessionstore.open()`.

    Attributes:
        namespace: The namespace that the store's calls work in.
        durability: "full" keeps acknowledged writes through power loss, "normal" through a crash of the process.
        busy_timeout: Seconds that a call waits for other writers.
        max_text_bytes: The largest message, in bytes of UTF-8.
        read_only: Refuse to write, also where another store of this process may.
        ttl: Seconds that a session of this store lives idle unless it says otherwise; None for ever.
        max_age: Seconds that it lives altogether.
        on_expire: What becomes of an expired session: "keep", "archive" or "delete".
        stale_after: Seconds without a sign of life after which an agent counts as offline.
        compress_over: Compress messages of more bytes when they are appended; None for none.
    """

    namespace: str = ""
    durability: Durability = "full"
    busy_timeout: float = DEFAULT_BUSY_TIMEOUT
    max_text_bytes: int = DEFAULT_MAX_TEXT_BYTES
    read_only: bool = False
    ttl: float | None = None
    max_age: float | None = None
    on_expire: OnExpire = "keep"
    stale_after: float = DEFAULT_STALE_AFTER
    compress_over: int | None = None

    def __post_init__(self) -> None:
        try:
            inputs.life("ttl", self.ttl)
            inputs.life("max_age", self.max_age)
            inputs.choice("on_expire", self.on_expire, ON_EXPIRE)
            inputs.period("stale_after", self.stale_after)
            inputs.optional_whole_number("compress_over", self.compress_over)
            inputs.namespace(self.namespace)
            inputs.choice("durability", self.durability, ("full", "normal"))
            inputs.duration("busy_timeout", self.busy_timeout, most=LONGEST_BUSY_TIMEOUT)
            inputs.whole_number("max_text_bytes", self.max_text_bytes, least=1, most=SQLITE_LIMIT_BYTES // 2)
        except InvalidInputError as error:
            raise ConfigError(str(error)) from error


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How the file is found and treated while it is being opened.

    Attributes:
        must_exist: Refuse to make a new file.
        create_parents: Make missing folders, for their owner only.
        read_only: Never write, not even to upgrade.
        migrate: Upgrade an older schema in place.
        follow_symlinks: Open what a symbolic link points to.
        strict_permissions: Refuse, rather than warn about, a file or folder that other users can write.
    """

    must_exist: bool = False
    create_parents: bool = False
    read_only: bool = False
    migrate: bool = True
    follow_symlinks: bool = False
    strict_permissions: bool = False

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}: must be True or False")


def remote_of_environment() -> Remote | None:
    """The remote that `SESSIONSTORE_SYNC_URL` and `SESSIONSTORE_SYNC_TOKEN` name, None if they name none.

    Raises:
        ConfigError: What they name is none.
    """
    url = os.environ.get(REMOTE_VARIABLE)
    if not url:
        return None
    from .remote.settings import Remote

    try:
        return Remote(url, os.environ.get(KEY_VARIABLE) or None)
    except ConfigError as error:
        field, _, reason = str(error).partition(": ")
        raise ConfigError(f"{KEY_VARIABLE if field == 'api_key' else REMOTE_VARIABLE}: {reason}") from None


def key_of_environment(url: str) -> ApiKey | None:
    """The key in `SESSIONSTORE_SYNC_TOKEN`, if it is for this remote.

    It is for the one that `SESSIONSTORE_SYNC_URL` names, or without that for one that nobody on the way can overhear: the remote
    of a file may be any.

    Raises:
        ConfigError: What the environment names is no key, or no remote.
    """
    from .remote.settings import Remote

    named = remote_of_environment()
    if named is not None:
        return named.api_key if named.base_url == url else None
    of_file = Remote(url, os.environ.get(KEY_VARIABLE) or None, allow_http=True)
    return of_file.api_key if of_file.is_private else None


def default_path() -> Path:
    """The store in the user's data folder."""
    from platformdirs import user_data_dir

    return Path(user_data_dir("sessionstore", appauthor=False)) / DEFAULT_NAME


def locate(location: object) -> tuple[Path, bool]:
    """The file that a location means, and whether its folder is this library's own (so that it may be made).

    Args:
        location: A path, an SQLite URL, or None for `SESSIONSTORE_URL` or else the user's data folder.

    Raises:
        ConfigError: The location is no path or URL of a file.
    """
    if location is None:
        from_environment = os.environ.get(URL_VARIABLE)
        return (default_path(), True) if not from_environment else (_path(from_environment), False)
    if isinstance(location, Path):
        return _checked(str(location)), False
    if isinstance(location, str):
        return _path(location), False
    raise ConfigError(f"location: must be a str or a pathlib.Path, not {type(location).__name__}")


def _path(location: str) -> Path:
    url = _URL.fullmatch(location)
    return _path_of_url(url["scheme"], url["rest"]) if url else _checked(location)


def _path_of_url(scheme: str, rest: str) -> Path:
    if scheme.lower() not in _SQLITE_SCHEMES:
        raise ConfigError(
            f"location: a {scheme}:// URL cannot be opened; this version opens SQLite files: sqlite:///path or a path"
        )
    host, slash, path = rest.partition("/")
    if "?" in rest or "#" in rest:
        raise ConfigError("location: an SQLite URL takes no query and no fragment; write ? as %3F, or give a plain path")
    if host or not slash or not path:
        raise ConfigError("location: an SQLite URL is sqlite:///relative/path or sqlite:////absolute/path")
    return _checked(unquote(path, errors="surrogateescape"))


def _checked(path: str) -> Path:
    if not path:
        raise ConfigError("location: is empty; SQLite would make a nameless database and lose it. Give a path")
    if path == ":memory:":
        raise ConfigError("location: a store in memory is asked for by sessionstore.open(in_memory=True)")
    if "\0" in path:
        raise ConfigError("location: must not hold a NUL character")
    if path.endswith(("/", os.sep)):
        raise ConfigError("location: ends in a slash; name the file in that folder")
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ConfigError("location: must not hold unpaired surrogate characters") from error
    return Path(path)
