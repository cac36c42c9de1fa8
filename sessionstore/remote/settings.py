"""Where events are delivered to, checked before anything is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from .. import inputs
from ..errors import ConfigError, InvalidInputError
from .credentials import ApiKey

DEFAULT_TIMEOUT: Final = 30.0
DEFAULT_RETRIES: Final = 3
DEFAULT_RETRY_DELAY: Final = 1.0
MAX_URL_CHARS: Final = 2_048

_LONGEST_WAIT: Final = 3_600
_MOST_RETRIES: Final = 100
_MOST_HOST_CHARS: Final = 253
_HIGHEST_PORT: Final = 65_535
_PORTS: Final = {"http": 80, "https": 443}
_VISIBLE: Final = re.compile(r"[!-~]*")
_UNSAFE: Final = re.compile(r"""[\\"<>^`{|}]""")
_HOST: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*\.?")
_PORT: Final = re.compile(r"[0-9]{0,5}")
_ESCAPE: Final = re.compile(r"%[0-9a-fA-F]{2}")


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """One remote API and how to talk to it.

    Attributes:
        base_url: Its address, in one spelling: scheme and host in lower case, no usual port, no slash at the end.
        api_key: Goes into the Authorization header.
        timeout: Seconds that a request may take.
        max_retries: How often a request is tried again at once before the event waits for a later delivery.
        retry_delay: Seconds before the first of these retries.
        allow_http: Send over plain HTTP also to other machines, where everybody on the way can read key and events.
    """

    base_url: str
    api_key: ApiKey | None = None
    timeout: float = DEFAULT_TIMEOUT
    max_retries: int = DEFAULT_RETRIES
    retry_delay: float = DEFAULT_RETRY_DELAY
    allow_http: bool = False

    def __post_init__(self) -> None:
        if self.api_key is not None and not isinstance(self.api_key, ApiKey):
            raise ConfigError("api_key: must be an ApiKey")
        try:
            allow_http = inputs.flag("allow_http", self.allow_http)
            timeout = _positive("timeout", self.timeout)
            inputs.whole_number("max_retries", self.max_retries, most=_MOST_RETRIES)
            retry_delay = inputs.duration("retry_delay", self.retry_delay, most=_LONGEST_WAIT)
            base_url = normal_url(self.base_url, allow_http=allow_http)
        except InvalidInputError as error:
            raise ConfigError(str(error)) from error
        for name, value in (("timeout", timeout), ("retry_delay", retry_delay), ("base_url", base_url)):
            object.__setattr__(self, name, value)


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
        raise _refused("must be https://, or everybody on the way reads the key and the events; allow_http=True permits it")
    shown_port = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    path = _ESCAPE.sub(lambda escape: escape[0].upper(), parts.path.rstrip("/"))
    return f"{parts.scheme}://{host}{shown_port}{path}"


def _positive(field: str, value: object) -> float:
    seconds = inputs.duration(field, value, most=_LONGEST_WAIT)
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
