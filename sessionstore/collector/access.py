"""Who may use the collector: API keys and their tenants, the names it goes by, and no web pages."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..errors import ConfigError, InvalidInputError
from ..queries.collecting.arrivals import tenant_name
from .problems import Problem

DEFAULT_TENANT: Final = "default"
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SHORTEST_KEY: Final = 16
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,253}")
_LARGEST_FILE: Final = 1 << 20


class ApiKeys:
    """The keys, of which only hashes are held, and whose they are. Without any, everybody is the default tenant."""

    def __init__(self, keys: Iterable[tuple[str, str]] = ()) -> None:
        tenants: dict[bytes, str] = {}
        for tenant, key in keys:
            if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable():
                raise ConfigError(f"an API key has at least {_SHORTEST_KEY} printable ASCII characters")
            if tenants.setdefault(_hash(key), tenant) != tenant:
                raise ConfigError("an API key belongs to one tenant")
        self._tenants = tenants

    def __bool__(self) -> bool:
        return bool(self._tenants)

    def __repr__(self) -> str:
        return f"<{len(self._tenants)} API keys>"

    def tenant(self, authorization: str | None) -> str:
        """Whose request it is.

        Raises:
            Problem: The header names no key of ours.
        """
        if not self._tenants:
            return DEFAULT_TENANT
        scheme, _, key = (authorization or "").partition(" ")
        given = _hash(key.strip()) if scheme.lower() == "bearer" else b""
        found = None
        # All of them are looked at, so that the time tells nothing.
        for known, tenant in self._tenants.items():
            if hmac.compare_digest(known, given):
                found = tenant
        if found is None:
            # Not in the words of the header, which clients hide where they log an answer.
            said = "this API key is not known" if key else "no API key was sent"
            raise Problem(401, "unauthorized", said, WWW_Authenticate="Bearer")
        return found


def read_keys(path: Path) -> ApiKeys:
    """The keys of a file: a line each, `KEY` or `TENANT KEY`; what begins with # is a comment.

    Raises:
        ConfigError: The file cannot be read, others can read it, or a line is wrong.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{path}: is no regular file")
            if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(f"{path}: other users can read the API keys; chmod 600 {path}")
            text = file.read(_LARGEST_FILE).decode()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no UTF-8 text") from None
    keys = ApiKeys(_entry(path, number, line) for number, line in _lines(text))
    if not keys:
        raise ConfigError(f"{path}: holds no API key; write one a line, KEY or TENANT KEY")
    return keys


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_names(host: str, allowed: Iterable[str], *, has_keys: bool) -> frozenset[str] | None:
    """The names in requests' Host that a collector answers to; None for any.

    Keys protect what names protect otherwise, and a proxy before a collector passes the public name on. So with keys the names
    are looked at only if some are given.

    Args:
        host: The address that is listened on.
        allowed: More names; an IPv6 address with or without its brackets.
        has_keys: Whether an API key is needed.

    Raises:
        ConfigError: A name is none.
    """
    given = frozenset(_own_name(name) for name in allowed)
    if has_keys and not given:
        return None
    return LOOPBACK_NAMES | given | {_own_name(host)}


def require_own_name(host: str | None, names: frozenset[str]) -> None:
    """Refuse a request that was meant for another name: a web page can make a browser send one here.

    Raises:
        Problem: The Host header is none of the collector's names.
    """
    name = host or ""
    name = name[: name.rfind(":")] if name.rpartition(":")[2].isdigit() else name
    if name.lower() not in names:
        raise Problem(403, "wrong_host", "this collector goes by other names; serve --allowed-host adds one")


def refuse_browsers(origin: str | None) -> None:
    """Refuse what a web page sends.

    Raises:
        Problem: There is an Origin header.
    """
    if origin is not None:
        raise Problem(403, "browser", "this API is not for web pages")


def _own_name(name: str) -> str:
    """A name as a Host header has it."""
    try:
        return f"[{ipaddress.IPv6Address(name.removeprefix('[').removesuffix(']'))}]"
    except ValueError:
        if _HOST_NAME.fullmatch(name) is None:
            raise ConfigError(f"allowed host {name!r}: must be a name or an address, without a port") from None
    return name.lower()


def _lines(text: str) -> Iterable[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.strip().startswith("#"):
            yield number, line


def _entry(path: Path, number: int, line: str) -> tuple[str, str]:
    words = line.split()
    if len(words) > 2:
        raise ConfigError(f"{path}, line {number}: must be KEY or TENANT KEY")
    try:
        return (tenant_name(words[0]), words[1]) if len(words) == 2 else (DEFAULT_TENANT, words[0])
    except InvalidInputError as error:
        raise ConfigError(f"{path}, line {number}: {error}") from None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
