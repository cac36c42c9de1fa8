"""MongoDB as a memory backend: a conversation is a document. It needs the extra `mongodb`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from .. import inputs
from ..content import decode
from ..errors import BackendError, ConfigError, InvalidInputError, MissingExtraError, QuotaError
from .clients import AsyncHoldsClient, HoldsClient
from .documents import checked, conversation_id, messages_in
from .names import is_id

try:
    import bson
    from bson.raw_bson import RawBSONDocument
    from pymongo import AsyncMongoClient, MongoClient
    from pymongo import errors as failures
except ImportError as error:
    raise MissingExtraError("the MongoDB backend", "mongodb") from error

MAX_DOCUMENT_BYTES: Final = 16 << 20
DEFAULT_DATABASE: Final = "sessionstore"
DEFAULT_COLLECTION: Final = "conversations"
DEFAULT_TIMEOUT: Final = 10.0
_NAME: Final = "MongoDB"
_TOO_LARGE: Final = 10334
_ID: Final = "_id"
_MESSAGES: Final = "messages"
# What begins an operator or parts a path, ends a name in BSON, or begins an escape here.
_UNSAFE: Final = re.compile(r"[$.\x00%]")
_NAME_ALLOWED: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")
_ESCAPED: Final = re.compile(r"%([0-9A-F]{2})")


class MongoBackend(HoldsClient):
    """Whole conversations in a collection of MongoDB, a document for each. The last save wins.

    The messages are BSON objects, which queries can look into; of their names "$", "." and "%" are percent-encoded.
    """

    def __init__(
        self,
        client: str | MongoClient[Any],
        *,
        database: str = DEFAULT_DATABASE,
        collection: str = DEFAULT_COLLECTION,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """Nothing is sent yet.

        Args:
            client: A URL, `mongodb://` or `mongodb+srv://`, or a `MongoClient`, which stays open when this is closed.
            database: The name of the database.
            collection: That of the collection.
            timeout: Seconds to wait for the server; a client that is given has its own.
        """
        _require_names(database, collection)
        self._is_owned = not isinstance(client, MongoClient)
        self._client = client if isinstance(client, MongoClient) else _connected(MongoClient, client, timeout)
        self._collection = self._client[database][collection]

    def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Keep a conversation in place of the one before.

        Raises:
            InvalidInputError: The id or a message is refused.
            QuotaError: It is larger than a document may be, 16 MiB.
            BackendError: The server could not be asked, or refused.
        """
        new = document(session_id, messages)
        with _translating(session_id):
            self._collection.replace_one({_ID: conversation_id(session_id)}, new, upsert=True)

    def load(self, session_id: str) -> list[dict[str, Any]] | None:
        """The messages of a conversation; None if there is none.

        Raises:
            StoreCorruptError: The document holds something else.
            BackendError: The server could not be asked, or refused.
        """
        wanted = conversation_id(session_id)
        with _translating(session_id):
            found = self._collection.find_one({_ID: wanted})
        return None if found is None else messages_of(found)

    def delete(self, session_id: str) -> None:
        """Delete a conversation; nothing happens if there is none.

        Raises:
            BackendError: The server could not be asked, or refused.
        """
        wanted = conversation_id(session_id)
        with _translating(session_id):
            self._collection.delete_one({_ID: wanted})

    def list(self) -> list[str]:
        """The ids of all conversations in the collection, sorted.

        Raises:
            BackendError: The server could not be asked, or refused.
        """
        with _translating():
            return _ids([found[_ID] for found in self._collection.find({}, {_ID: 1})])

    def __repr__(self) -> str:
        # Without the client: it may know a password.
        return f"{type(self).__name__}({self._collection.full_name!r})"


class AsyncMongoBackend(AsyncHoldsClient):
    """Whole conversations in a collection of MongoDB, for asyncio. The methods are those of `MongoBackend`, awaited.

    It belongs to the event loop that uses it first, as clients of MongoDB do.
    """

    def __init__(
        self,
        client: str | AsyncMongoClient[Any],
        *,
        database: str = DEFAULT_DATABASE,
        collection: str = DEFAULT_COLLECTION,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """The arguments are those of `MongoBackend`; a client is an `AsyncMongoClient`."""
        _require_names(database, collection)
        self._is_owned = not isinstance(client, AsyncMongoClient)
        self._client = client if isinstance(client, AsyncMongoClient) else _connected(AsyncMongoClient, client, timeout)
        self._end_client = self._client.close
        self._collection = self._client[database][collection]

    async def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Keep a conversation in place of the one before."""
        new = document(session_id, messages)
        async with _translating_awaited(session_id):
            await self._collection.replace_one({_ID: conversation_id(session_id)}, new, upsert=True)

    async def load(self, session_id: str) -> list[dict[str, Any]] | None:
        """The messages of a conversation; None if there is none."""
        wanted = conversation_id(session_id)
        async with _translating_awaited(session_id):
            found = await self._collection.find_one({_ID: wanted})
        return None if found is None else messages_of(found)

    async def delete(self, session_id: str) -> None:
        """Delete a conversation; nothing happens if there is none."""
        wanted = conversation_id(session_id)
        async with _translating_awaited(session_id):
            await self._collection.delete_one({_ID: wanted})

    async def list(self) -> list[str]:
        """The ids of all conversations in the collection, sorted."""
        async with _translating_awaited():
            return _ids([found[_ID] async for found in self._collection.find({}, {_ID: 1})])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._collection.full_name!r})"


def document(session_id: str, messages: object) -> RawBSONDocument:
    """A conversation as a document of MongoDB.

    Raises:
        InvalidInputError: The id or a message is refused.
        QuotaError: It is larger than a document may be.
    """
    wanted = conversation_id(session_id)
    given = [decode(each.role, each.text, each.extra) for each in checked(messages)]
    data = bson.encode({_ID: wanted, _MESSAGES: [_renamed(message, _escaped) for message in given]})
    if len(data) > MAX_DOCUMENT_BYTES:
        raise _too_large(wanted)
    return RawBSONDocument(data)


def messages_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conversation that a document holds.

    Raises:
        StoreCorruptError: It holds something else.
    """
    messages = messages_in(found.get(_MESSAGES), f"the MongoDB document {found[_ID]}")
    return [_renamed(message, _plain) for message in messages]


def _renamed(value: Any, name: Callable[[str], str]) -> Any:
    """A value with other names in its objects, and whole numbers of BSON as such of Python; it is at most 64 levels deep."""
    if isinstance(value, dict):
        return {name(key): _renamed(each, name) for key, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, name) for each in value]
    return int(value) if type(value) is bson.Int64 else value


def _escaped(name: str) -> str:
    return _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", name)


def _plain(name: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)


def _ids(found: Sequence[object]) -> list[str]:
    return sorted(each for each in found if isinstance(each, str) and is_id(each))


def _connected(kind: Any, url: object, timeout: float) -> Any:
    if not isinstance(url, str):
        raise InvalidInputError("client", f"must be a URL or a pymongo.{kind.__name__}")
    wait_ms = round(inputs.period("timeout", timeout) * 1_000)
    try:
        return kind(url, serverSelectionTimeoutMS=wait_ms, connectTimeoutMS=wait_ms, socketTimeoutMS=wait_ms)
    except (failures.PyMongoError, ValueError, TypeError):
        # Not chained: that error may hold a part of the URL, which may be a password.
        raise ConfigError("client: is no URL of a MongoDB server: mongodb:// or mongodb+srv://") from None


def _require_names(database: object, collection: object) -> None:
    """Refuse what MongoDB does not allow as a name, before there is a client that would have to be closed."""
    for field, name in (("database", database), ("collection", collection)):
        if not isinstance(name, str) or not _NAME_ALLOWED.fullmatch(name):
            raise InvalidInputError(field, "must be 1 to 63 letters, digits, underscores or dashes")


def _too_large(session_id: str) -> QuotaError:
    return QuotaError(
        f"session {session_id!r} is larger than a document of MongoDB may be ({MAX_DOCUMENT_BYTES} bytes); "
        "go on in a new session, or keep it elsewhere",
        limit=MAX_DOCUMENT_BYTES,
    )


@contextmanager
def _translating(session_id: str = "") -> Iterator[None]:
    try:
        yield
    except failures.DocumentTooLarge:
        raise _too_large(session_id) from None
    except failures.PyMongoError as error:
        if isinstance(error, failures.OperationFailure) and error.code == _TOO_LARGE:
            raise _too_large(session_id) from None
        # Not chained: a server may repeat what it was told.
        raise BackendError(_NAME, _reason(error)) from None


@asynccontextmanager
async def _translating_awaited(session_id: str = "") -> AsyncIterator[None]:
    with _translating(session_id):
        yield


def _reason(error: failures.PyMongoError) -> str:
    kind = type(error).__name__
    if isinstance(error, failures.OperationFailure):
        return f"the server refused ({kind}, code {error.code}); are the user and the password right?"
    return f"{kind}: is the server running, and the address right?"
