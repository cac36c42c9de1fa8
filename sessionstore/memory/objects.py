"""Object storage as a memory backend: a conversation is an object, in S3, Google Cloud Storage, Azure or a folder.

It needs the extra `objects`. It stands on obstore itself rather than on its fsspec face: that gives both kinds of calls, typed
errors and atomic puts without another package, and what fsspec reaches beyond (sftp, ftp) has no atomic put.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ..errors import BackendError, ConfigError, InvalidInputError, MissingExtraError, StoreCorruptError
from . import names
from .documents import conversation_id, json_in, messages_in, to_json

try:
    import obstore
    from obstore import exceptions as failures
    from obstore import store as stores
except ImportError as error:
    raise MissingExtraError("the object storage backend", "objects") from error

_NAME: Final = "object storage"
_SUFFIX: Final = ".json"
_ID: Final = "session_id"
_MESSAGES: Final = "messages"
# What S3 and Google say, and Azure. No key of an object can be taken for it, since "<" is escaped in them.
_NO_BUCKET: Final = re.compile("<Code>(?:NoSuchBucket|ContainerNotFound)</Code>")
_CONFIG: Final = "config"
_CLIENT: Final = "client_options"
_RETRY: Final = "retry_config"
_GROUPS: Final = (_CONFIG, _CLIENT, _RETRY)
_OPTIONS: Final = frozenset((*_GROUPS, "credential_provider", "mkdir", "automatic_cleanup"))
_RETRIES: Final = frozenset(("max_retries", "backoff", "retry_timeout"))
_PANIC: Final = "PanicException"
_FILE: Final = "file://"
_SCHEMES: Final = ("s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "file", "memory")


class _Objects:
    """The store of a URL, and how ids and conversations become keys and contents."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.shown = _without_secrets(url)
        self.store = _opened(url, options)

    def key_of(self, session_id: object) -> str:
        """The key of an id."""
        return names.name_of(conversation_id(session_id)) + _SUFFIX

    def place_of(self, key: str) -> str:
        """Where an object is, for messages."""
        return f"{self.shown}/{key}"

    def content(self, session_id: str, messages: object) -> bytes:
        """What an object holds: its id, too, since a key may be too short for it."""
        return f'{{"{_ID}":{json.dumps(session_id, ensure_ascii=False)},"{_MESSAGES}":{to_json(messages)}}}'.encode()

    def messages(self, data: bytes, key: str, session_id: str) -> list[dict[str, Any]]:
        """The conversation that an object holds.

        Raises:
            StoreCorruptError: It holds something else.
        """
        found = self._object(data, key)
        if found.get(_ID) != session_id:
            raise StoreCorruptError(self.place_of(key), "holds another session; it is kept as it is")
        return messages_in(found.get(_MESSAGES), self.place_of(key))

    def id_in(self, data: bytes, key: str) -> str:
        """The id of a conversation whose key does not tell it."""
        found = self._object(data, key).get(_ID)
        if not isinstance(found, str) or not names.is_id(found) or self.key_of(found) != key:
            raise StoreCorruptError(self.place_of(key), "holds another session; it is kept as it is")
        return found

    def keys(self, entries: Iterable[Mapping[str, Any]]) -> list[str]:
        """The names of objects that are conversations, by their keys."""
        # Keys come with the prefix where a store has no folder of its own for it.
        keys = [str(entry["path"]) for entry in entries]
        return [key for key in keys if key.endswith(_SUFFIX) and "/" not in key]

    def _object(self, data: bytes, key: str) -> dict[str, Any]:
        found = json_in(data, self.place_of(key))
        if not isinstance(found, dict):
            raise StoreCorruptError(self.place_of(key), "holds no conversation; it is kept as it is")
        return found


class ObjectBackend:
    """Whole conversations as objects. A put is atomic; the last save wins."""

    def __init__(self, url: str, **options: Any) -> None:
        """Nothing is sent yet.

        Args:
            url: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://account/container/prefix`, `file:///folder` (which must be
                there; `FileBackend` keeps its files from other users, this does not) or `memory:///`.
            options: Those of `obstore.store.from_url`: `config={...}` with keys, region and endpoint, `client_options`,
                `retry_config`, `credential_provider`. By default credentials come from the environment, as the clients of the
                clouds take them.

        Raises:
            InvalidInputError: The URL or an option is none that is known, or the folder is not there.
            ConfigError: The storage cannot be opened with these options.
        """
        self._objects = _Objects(url, options)

    def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Keep a conversation in place of the one before.

        Raises:
            InvalidInputError: The id or a message is refused.
            BackendError: The storage could not be asked, or refused.
        """
        key = self._objects.key_of(session_id)
        data = self._objects.content(session_id, messages)
        with _translating():
            obstore.put(self._objects.store, key, data)

    def load(self, session_id: str) -> list[dict[str, Any]] | None:
        """The messages of a conversation; None if there is none.

        Raises:
            StoreCorruptError: The object holds something else.
            BackendError: The storage could not be asked, or refused.
        """
        key = self._objects.key_of(session_id)
        data = self._read(key)
        return None if data is None else self._objects.messages(data, key, session_id)

    def delete(self, session_id: str) -> None:
        """Delete a conversation; nothing happens if there is none.

        Raises:
            BackendError: The storage could not be asked, or refused.
        """
        key = self._objects.key_of(session_id)
        with _translating():
            try:
                obstore.delete(self._objects.store, key)
            except FileNotFoundError as error:
                _require_bucket(error)

    def list(self) -> list[str]:
        """The ids of all conversations under the URL, sorted. It reads those whose ids are too long for a key.

        Raises:
            StoreCorruptError: Such an object holds something else.
            BackendError: The storage could not be asked, or refused.
        """
        with _translating():
            keys = self._objects.keys(obstore.list_with_delimiter(self._objects.store)["objects"])
        found = [self._id_of(key) for key in keys]
        return sorted(each for each in found if each is not None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._objects.shown!r})"

    def _read(self, key: str) -> bytes | None:
        with _translating():
            try:
                return bytes(obstore.get(self._objects.store, key).bytes())
            except FileNotFoundError as error:
                _require_bucket(error)
                return None

    def _id_of(self, key: str) -> str | None:
        name = key.removesuffix(_SUFFIX)
        if not names.is_cut(name):
            return names.id_of(name)
        data = self._read(key)
        return None if data is None else self._objects.id_in(data, key)


class AsyncObjectBackend:
    """Whole conversations as objects, for asyncio. The methods are those of `ObjectBackend`, awaited."""

    def __init__(self, url: str, **options: Any) -> None:
        """The arguments are those of `ObjectBackend`."""
        self._objects = _Objects(url, options)

    async def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Keep a conversation in place of the one before."""
        key = self._objects.key_of(session_id)
        data = self._objects.content(session_id, messages)
        async with _translating_awaited():
            await obstore.put_async(self._objects.store, key, data)

    async def load(self, session_id: str) -> list[dict[str, Any]] | None:
        """The messages of a conversation; None if there is none."""
        key = self._objects.key_of(session_id)
        data = await self._read(key)
        return None if data is None else self._objects.messages(data, key, session_id)

    async def delete(self, session_id: str) -> None:
        """Delete a conversation; nothing happens if there is none."""
        key = self._objects.key_of(session_id)
        async with _translating_awaited():
            try:
                await obstore.delete_async(self._objects.store, key)
            except FileNotFoundError as error:
                _require_bucket(error)

    async def list(self) -> list[str]:
        """The ids of all conversations under the URL, sorted."""
        async with _translating_awaited():
            listed = await obstore.list_with_delimiter_async(self._objects.store)
        found = [await self._id_of(key) for key in self._objects.keys(listed["objects"])]
        return sorted(each for each in found if each is not None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._objects.shown!r})"

    async def _read(self, key: str) -> bytes | None:
        async with _translating_awaited():
            try:
                found = await obstore.get_async(self._objects.store, key)
                return bytes(await found.bytes_async())
            except FileNotFoundError as error:
                _require_bucket(error)
                return None

    async def _id_of(self, key: str) -> str | None:
        name = key.removesuffix(_SUFFIX)
        if not names.is_cut(name):
            return names.id_of(name)
        data = await self._read(key)
        return None if data is None else self._objects.id_in(data, key)


def _opened(url: object, options: Mapping[str, Any]) -> Any:
    if not isinstance(url, str) or url.partition("://")[0] not in _SCHEMES:
        raise InvalidInputError("url", "must be a URL that begins with one of " + ", ".join(f"{each}://" for each in _SCHEMES))
    groups = {name: _group(name, options.get(name)) for name in _GROUPS}
    _refuse_misplaced(groups, {name: options[name] for name in options if name not in _OPTIONS})
    if url.startswith(_FILE) and not options.get("mkdir") and not Path(url2pathname(urlsplit(url).path)).is_dir():
        raise InvalidInputError("url", "there is no such folder; create it first")
    try:
        return stores.from_url(url, **{**options, **groups})
    except failures.UnknownConfigurationKeyError as error:
        raise InvalidInputError(_unknown_in(options, str(error)), "is no configuration key of this storage") from None
    except (failures.BaseError, ValueError, TypeError) as error:
        wrong = next((key for key, value in groups[_CLIENT].items() if _fault_of_client({key: value})), None)
        if wrong is not None:
            problem = "has a value that obstore does not take; times are texts such as '3s'"
            raise InvalidInputError(f"{_CLIENT}.{wrong}", problem) from None
        # Not chained: that error may hold what was given, keys among it.
        raise ConfigError(f"url: cannot be opened with these options ({type(error).__name__})") from None
    except BaseException as error:
        # What obstore panics with is no Exception, and has no name that could be imported.
        if type(error).__name__ != _PANIC:
            raise
    raise InvalidInputError("config", "holds a key that obstore cannot take there; those of the HTTP client go into client_options")


def _group(name: str, given: object) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise InvalidInputError(name, "must be a dict whose keys are texts")
    return dict(given)


def _refuse_misplaced(groups: Mapping[str, Mapping[str, Any]], others: Mapping[str, Any]) -> None:
    """Refuse options in the wrong place, of which obstore panics, and unknown ones that it does not name or does not see."""
    for key in (*groups[_CONFIG], *others):
        if _is_client_option(key):
            field = key if key in others else f"{_CONFIG}.{key}"
            raise InvalidInputError(field, f"is an option of the HTTP client: give it as client_options={{{key.lower()!r}: ...}}")
    for key in groups[_CLIENT]:
        if not _is_client_option(key):
            raise InvalidInputError(f"{_CLIENT}.{key}", "is no option of the HTTP client")
    if unknown := sorted(set(groups[_RETRY]) - _RETRIES):
        raise InvalidInputError(f"{_RETRY}.{unknown[0]}", "is unknown; there are " + ", ".join(sorted(_RETRIES)))


def _is_client_option(key: str) -> bool:
    """Whether obstore has an option of its HTTP client by this name: it has no list of them, but does not know others."""
    return not isinstance(_fault_of_client({key: ""}), ValueError)


def _fault_of_client(given: Mapping[str, Any]) -> Exception | None:
    """What obstore has against options of its HTTP client: a ValueError for a name that it does not know."""
    try:
        stores.HTTPStore.from_url("http://localhost", client_options=cast(Any, given))
    except (failures.BaseError, ValueError, TypeError) as error:
        return error
    return None


def _unknown_in(options: Mapping[str, Any], told: str) -> str:
    """The key of the configuration that an error names."""
    given = [*((f"{_CONFIG}.{key}", key) for key in options.get(_CONFIG) or ()), *((key, key) for key in options)]
    return next((field for field, key in given if f"'{key.lower()}'" in told.lower()), _CONFIG)


def _without_secrets(url: object) -> str:
    """A URL without what may be a user, a password or a signature."""
    if not isinstance(url, str):
        return ""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("?")[0].partition("#")[0].partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}".rstrip("/")


def _require_bucket(error: FileNotFoundError) -> None:
    """Raise the error again if it is not the object that is missing, but where it should be."""
    if _NO_BUCKET.search(str(error)):
        raise error


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except (failures.BaseError, OSError, ValueError) as error:
        # Not chained: that error may hold a signed address.
        raise BackendError(_NAME, _reason(error)) from None


@asynccontextmanager
async def _translating_awaited() -> AsyncIterator[None]:
    with _translating():
        yield


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    if isinstance(error, failures.UnauthenticatedError | failures.PermissionDeniedError | PermissionError):
        return f"the credentials are not accepted, or may not do this ({kind})"
    if isinstance(error, failures.NotFoundError | FileNotFoundError) or _NO_BUCKET.search(str(error)):
        return f"there is no such bucket, container or folder ({kind})"
    return f"it could not be reached, or refused ({kind})"
