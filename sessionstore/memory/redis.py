"""Redis as a memory backend: a conversation is a JSON array under a key of its own. It needs the extra `redis`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, Final
from urllib.parse import unquote

from .. import inputs
from ..errors import BackendError, ConfigError, InvalidInputError, MissingExtraError
from . import names
from .clients import AsyncHoldsClient, HoldsClient
from .documents import conversation_id, from_json, to_json

try:
    import redis.exceptions as failures
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis
except ImportError as error:
    raise MissingExtraError("the Redis backend", "redis") from error

DEFAULT_PREFIX: Final = "sessionstore:memory:"
DEFAULT_TIMEOUT: Final = 10.0
_NAME: Final = "Redis"
_PART: Final = ":"
_SCANNED: Final = 1_000
_CODE: Final = re.compile(r"[A-Z]{2,30}\b")
_GLOB: Final = re.compile(r"([*?\[\]\\^-])")


class _Keys:
    """How ids become keys, and how long these live."""

    def __init__(self, prefix: str, ttl: float | timedelta | None) -> None:
        given = inputs.identifier("prefix", prefix)
        # Keys can be told apart then, whatever the prefixes: no id's part holds a colon.
        self.prefix = given if given.endswith(_PART) else given + _PART
        self.ttl = inputs.life("ttl", ttl)
        self.pattern = _GLOB.sub(r"\\\1", self.prefix) + "*"

    @property
    def ttl_ms(self) -> int | None:
        """The time to live in whole milliseconds."""
        return None if self.ttl is None else max(1, round(self.ttl * 1_000))

    def of(self, session_id: object) -> str:
        """The key of an id."""
        return self.prefix + conversation_id(session_id).replace("%", "%25").replace(_PART, "%3A")

    def ids(self, keys: Sequence[str | bytes]) -> list[str]:
        """The ids of those keys that are ours, sorted."""
        found = {self._id_of(key.decode(errors="replace") if isinstance(key, bytes) else key) for key in keys}
        return sorted(each for each in found if each is not None)

    def _id_of(self, key: str) -> str | None:
        session_id = unquote(key.removeprefix(self.prefix))
        return session_id if names.is_id(session_id) and self.of(session_id) == key else None

    def __repr__(self) -> str:
        # Without the URL: it may hold a password.
        return f"prefix={self.prefix!r}, ttl={self.ttl!r}"


class RedisBackend(HoldsClient):
    """Whole conversations in Redis, or in a server that speaks its protocol. The last save wins.

    How long they survive a crash of the server is up to its `appendfsync`.
    """

    def __init__(
        self,
        client: str | Redis,
        *,
        prefix: str = DEFAULT_PREFIX,
        ttl: float | timedelta | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """Nothing is sent yet.

        Args:
            client: A URL, `redis://`, `rediss://` or `unix://`, or a `redis.Redis`, which stays open when this is closed.
            prefix: What the keys begin with; a colon is put behind it. Backends of other prefixes never see each other.
            ttl: Seconds (or a timedelta) that a conversation lives after its last save; None for ever.
            timeout: Seconds to wait for the server; a client that is given has its own.
        """
        self._keys = _Keys(prefix, ttl)
        self._is_owned = not isinstance(client, Redis)
        self._client = client if isinstance(client, Redis) else _connected(Redis, client, timeout)

    def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Keep a conversation in place of the one before; its time to live begins anew.

        Raises:
            InvalidInputError: The id or a message is refused.
            BackendError: The server could not be asked, or refused.
        """
        key, text = self._keys.of(session_id), to_json(messages)
        with _translating():
            self._client.set(key, text, px=self._keys.ttl_ms)

    def load(self, session_id: str) -> list[dict[str, Any]] | None:
        """The messages of a conversation; None if there is none, or if it has expired.

        Raises:
            StoreCorruptError: The key holds something else.
            BackendError: The server could not be asked, or refused.
        """
        key = self._keys.of(session_id)
        with _translating():
            found: Any = self._client.get(key)
        return None if found is None else from_json(found, _place(key))

    def delete(self, session_id: str) -> None:
        """Delete a conversation; nothing happens if there is none.

        Raises:
            BackendError: The server could not be asked, or refused.
        """
        key = self._keys.of(session_id)
        with _translating():
            self._client.delete(key)

    def list(self) -> list[str]:
        """The ids of all conversations under the prefix, sorted. Those that come or go meanwhile may be in it or not.

        Raises:
            BackendError: The server could not be asked, or refused.
        """
        with _translating():
            return self._keys.ids(list(self._client.scan_iter(match=self._keys.pattern, count=_SCANNED)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._keys!r})"


class AsyncRedisBackend(AsyncHoldsClient):
    """Whole conversations in Redis, for asyncio. The methods are those of `RedisBackend`, awaited.

    It belongs to the event loop that uses it first, as clients of Redis do.
    """

    def __init__(
        self,
        client: str | AsyncRedis,
        *,
        prefix: str = DEFAULT_PREFIX,
        ttl: float | timedelta | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """The arguments are those of `RedisBackend`; a client is a `redis.asyncio.Redis`."""
        self._keys = _Keys(prefix, ttl)
        self._is_owned = not isinstance(client, AsyncRedis)
        self._client = client if isinstance(client, AsyncRedis) else _connected(AsyncRedis, client, timeout)
        self._end_client = self._client.aclose

    async def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Keep a conversation in place of the one before; its time to live begins anew."""
        key, text = self._keys.of(session_id), to_json(messages)
        async with _translating_awaited():
            await self._client.set(key, text, px=self._keys.ttl_ms)

    async def load(self, session_id: str) -> list[dict[str, Any]] | None:
        """The messages of a conversation; None if there is none, or if it has expired."""
        key = self._keys.of(session_id)
        async with _translating_awaited():
            found: Any = await self._client.get(key)
        return None if found is None else from_json(found, _place(key))

    async def delete(self, session_id: str) -> None:
        """Delete a conversation; nothing happens if there is none."""
        key = self._keys.of(session_id)
        async with _translating_awaited():
            await self._client.delete(key)

    async def list(self) -> list[str]:
        """The ids of all conversations under the prefix, sorted."""
        async with _translating_awaited():
            return self._keys.ids([key async for key in self._client.scan_iter(match=self._keys.pattern, count=_SCANNED)])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._keys!r})"


def _connected(kind: Any, url: object, timeout: float) -> Any:
    if not isinstance(url, str):
        raise InvalidInputError("client", f"must be a URL or a {kind.__module__.rpartition('.client')[0]}.Redis")
    seconds = inputs.period("timeout", timeout)
    try:
        return kind.from_url(url, socket_timeout=seconds, socket_connect_timeout=seconds)
    except ValueError:
        # Not chained: that error may hold a part of the URL, which may be a password.
        raise ConfigError("client: is no URL of a Redis server: redis://, rediss:// or unix://") from None


def _place(key: str) -> str:
    return f"the Redis key {key}"


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except failures.AuthenticationError as error:
        raise BackendError(_NAME, "the server does not accept the user or the password") from error
    except (failures.ConnectionError, failures.TimeoutError) as error:
        raise BackendError(_NAME, f"{type(error).__name__}: is the server running, and the address right?") from error
    except failures.RedisError as error:
        # Not chained: a server may repeat what it was told. The first word is a code, as OOM or READONLY.
        code = _CODE.match(str(error))
        raise BackendError(_NAME, f"the server refused ({code[0] if code else type(error).__name__})") from None


@asynccontextmanager
async def _translating_awaited() -> AsyncIterator[None]:
    with _translating():
        yield
