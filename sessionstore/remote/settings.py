"""Where events are delivered to, checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from .. import inputs
from ..config import DEFAULT_MAX_OUTBOX_BYTES, ON_FULL, OnFull
from ..errors import ConfigError, InvalidInputError
from .credentials import ApiKey, require_valid

DEFAULT_TIMEOUT: Final = 30.0
DEFAULT_RETRIES: Final = 3
DEFAULT_RETRY_DELAY: Final = 1.0
MAX_URL_CHARS: Final = 2_048

_LEAST_OUTBOX_BYTES: Final = 1 << 16
_LONGEST_WAIT: Final = 3_600
# A claim holds for twice as long, and no claim for more than an hour.
_LONGEST_TIMEOUT: Final = 1_800
_MOST_RETRIES: Final = 100
_MOST_HOST_CHARS: Final = 253
_HIGHEST_PORT: Final = 65_535
_PORTS: Final = {"http": 80, "https": 443}
_VISIBLE: Final = re.compile(r"[!-~]*")
_UNSAFE: Final = re.compile(r"""[\\"<>^`{|}]""")
_HOST: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*\.?")
_PORT: Final = re.compile(r"[0-9]{0,5}")
_ESCAPE: Final = re.compile(r"%[0-9a-fA-F]{2}")


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Remote:
    """One remote API and how to talk to it.

    Attributes:
        base_url: Its address, in one spelling: scheme and host in lower case, no usual port, no slash at the end.
        api_key: Goes into the Authorization header: a text, or a callable that returns the one to use now.
        timeout: Seconds that a request may take, from its first byte to the last one of its answer.
        max_retries: How often one `drain()` tries again, when the remote cannot be used, before it leaves the rest for later.
        retry_delay: Seconds; the first retry comes within them at random. The limit doubles each time, up to five minutes.
        allow_http: Send over plain HTTP also to other machines, where everybody on the way can read key and events.
        ca_file: A file of certificates (PEM) to trust instead of the usual ones. Certificates are always checked.
        trust_env: Use the proxies that the environment names (HTTPS_PROXY and the like).
        sync_messages: Tell the messages with their texts, too, to a remote that takes them. It belongs to the file.
        max_outbox_bytes: How large the events may be together that wait, at least 65,536 bytes; 1 GiB by default. It belongs to the
            file.
        on_full: What becomes of figures when they would be larger: "drop_oldest_metrics" drops the oldest of them and counts that,
            "raise" makes the call that would add one raise `QuotaError`. Events about the lives of sessions and agents are always
            kept. It belongs to the file.
    """

    base_url: str
    api_key: ApiKey | None
    timeout: float
    max_retries: int
    retry_delay: float
    allow_http: bool
    ca_file: str | Path | None
    trust_env: bool
    sync_messages: bool
    max_outbox_bytes: int
    on_full: OnFull

    def __init__(
        self,
        base_url: str,
        api_key: ApiKey | str | Callable[[], str] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_RETRIES,
        retry_delay: float = DEFAULT_RETRY_DELAY,
        allow_http: bool = False,
        ca_file: str | Path | None = None,
        trust_env: bool = False,
        sync_messages: bool = False,
        max_outbox_bytes: int = DEFAULT_MAX_OUTBOX_BYTES,
        on_full: OnFull = "drop_oldest_metrics",
    ) -> None:
        # First of all: a traceback shows the variables of a frame, and this one then holds no key.
        api_key = ApiKey.of(api_key)
        require_valid(api_key)
        if ca_file is not None and not isinstance(ca_file, str | Path):
            raise ConfigError("ca_file: must be a path")
        try:
            checked = {
                "base_url": normal_url(base_url, allow_http=inputs.flag("allow_http", allow_http)),
                "api_key": api_key,
                "timeout": _positive("timeout", timeout),
                "max_retries": inputs.whole_number("max_retries", max_retries, most=_MOST_RETRIES),
                "retry_delay": inputs.duration("retry_delay", retry_delay, most=_LONGEST_WAIT),
                "allow_http": allow_http,
                "ca_file": ca_file,
                "trust_env": inputs.flag("trust_env", trust_env),
                "sync_messages": inputs.flag("sync_messages", sync_messages),
                "max_outbox_bytes": inputs.whole_number("max_outbox_bytes", max_outbox_bytes, least=_LEAST_OUTBOX_BYTES),
                "on_full": inputs.choice("on_full", on_full, ON_FULL),
            }
        except InvalidInputError as error:
            # Nothing that the error knows is missing in its words, and a URL is mistyped often.
            raise ConfigError(str(error)) from None
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        # The traceback of a refused argument may show a remote that is not finished.
        known = (field.name for field in fields(self) if hasattr(self, field.name))
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in known)})"

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read what is sent."""
        return self.base_url.startswith("https://") or self.is_here

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return _is_loopback(_host_and_port(urlsplit(self.base_url).netloc)[0])


def named_remote(remote: Remote | str | None, api_key: ApiKey | str | Callable[[], str] | None) -> Remote | None:
    """The remote that arguments name: a URL and its key, or all settings in one; None for none.

    Raises:
        ConfigError: They name none.
    """
    # First of all: a traceback shows the variables of a frame, and this one then holds no key.
    api_key = ApiKey.of(api_key)
    require_valid(api_key)
    if not isinstance(remote, Remote) and remote is not None:
        return Remote(remote, api_key)
    if api_key is not None:
        raise ConfigError("api_key: goes with the URL of a remote; a Remote has its own")
    return remote


def normal_url(url: object, *, allow_http: bool = False) -> str:
    """The one spelling of a base URL, so that two of them can be compared.

    Raises:
        InvalidInputError: It is not the address of an API, or goes over plain HTTP to another machine. The message does not show
            it, because it may hold a password.
    """
    text = _checked_text(url)
    parts = _split(text)
    if parts is None or parts.scheme not in _PORTS or not parts.netloc:
        raise _refused("must be https:// and a host, such as https://api.example.com/v1")
    if "@" in parts.netloc:
        raise _refused("must hold no user name and no password; pass the key as api_key")
    if "?" in text or "#" in text:
        raise _refused("must have no query and no fragment; pass the key as api_key")
    if {"", ".", ".."} & set(parts.path.strip("/").split("/")) and parts.path.strip("/"):
        raise _refused("must have no empty, . or .. parts in its path")
    host, port = _host_and_port(parts.netloc)
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise _refused("must be https://, or everybody on the way reads the key and all that is sent; allow_http=True permits it")
    shown_port = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    path = _ESCAPE.sub(lambda escape: escape[0].upper(), parts.path.rstrip("/"))
    return f"{parts.scheme}://{host}{shown_port}{path}"


def _positive(field: str, value: object) -> float:
    seconds = inputs.duration(field, value, most=_LONGEST_TIMEOUT)
    if not seconds:
        raise InvalidInputError(field, "must be more than 0", limit=0)
    return seconds


def _checked_text(url: object) -> str:
    """The text of a URL, of characters that every program reads the same way."""
    if not isinstance(url, str):
        raise _refused("must be a str")
    if len(url) > MAX_URL_CHARS:
        raise _refused(f"must have at most {MAX_URL_CHARS} characters", limit=MAX_URL_CHARS)
    if not url.isascii():
        raise _refused("must be of ASCII characters; write an international host in its xn-- form")
    if not _VISIBLE.fullmatch(url):
        raise _refused("must hold no spaces, line ends or control characters")
    if _UNSAFE.search(url):
        raise _refused('must hold none of \\ " < > ^ ` { | }')
    return str.__str__(url)


def _split(text: str) -> SplitResult | None:
    # The error of urlsplit shows the URL, so it is not kept as the cause of another.
    try:
        return urlsplit(text)
    except ValueError:
        return None


def _host_and_port(netloc: str) -> tuple[str, int | None]:
    """The host in its one spelling, an IPv6 address in brackets; and the port, None if there is none."""
    bracketed = netloc.startswith("[")
    host, _, port = netloc[1:].partition("]") if bracketed else netloc.partition(":")
    if bracketed and port:
        if not port.startswith(":"):
            raise _refused("must have a colon between its address and its port")
        port = port[1:]
    if not _PORT.fullmatch(port) or (port and not 1 <= int(port) <= _HIGHEST_PORT):
        raise _refused(f"must have a port from 1 to {_HIGHEST_PORT}", limit=_HIGHEST_PORT)
    return (_ipv6(host) if bracketed else _named(host)), int(port) if port else None


def _named(host: str) -> str:
    lower = host.lower()
    if len(lower) > _MOST_HOST_CHARS or not _HOST.fullmatch(lower):
        raise _refused("must have a host of letters, digits, hyphens and dots")
    return lower


def _ipv6(host: str) -> str:
    try:
        address = IPv6Address(host)
    except AddressValueError:
        address = None
    if address is None or address.scope_id:
        raise _refused("must have an IPv6 address without a zone in its brackets")
    # Python spells these one way up to 3.12 and the other way from 3.13 on.
    mapped = address.ipv4_mapped
    return f"[{address}]" if mapped is None else f"[::ffff:{mapped}]"


def _is_loopback(host: str) -> bool:
    """Whether a host can only be this machine."""
    if host == "localhost":
        return True
    try:
        if host.startswith("["):
            address = IPv6Address(host[1:-1])
            return (address.ipv4_mapped or address).is_loopback
        return IPv4Address(host).is_loopback
    except AddressValueError:
        return False


def _refused(reason: str, *, limit: int | None = None) -> InvalidInputError:
    return InvalidInputError("base_url", reason, limit=limit)
