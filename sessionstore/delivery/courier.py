"""The HTTP client of a remote: every request ends within its time, and with an answer or a reason why there is none."""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self, cast

import anyio
import httpx

from ..errors import AuthError, ConfigError
from ..masking import mask
from ..remote.answers import Answer, Failure
from ..remote.credentials import ApiKey
from ..remote.pace import MOST_REQUESTS
from ..remote.requests import Request
from ..remote.settings import Remote
from ..waiting import Outcome

_CONNECT_SECONDS: Final = 5.0
_MAX_ANSWER_BYTES: Final = 4 << 20
_MAX_ERROR_CHARS: Final = 150


class Courier:
    """One long-lived client. It follows no redirects, checks certificates, and asks no proxy unless it is told to."""

    def __init__(self, remote: Remote, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._remote = remote
        self._client = httpx.AsyncClient(
            headers={"User-Agent": f"sessionstore/{version('sessionstore')}", "Accept": "application/json",
                     "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(remote.timeout, connect=min(_CONNECT_SECONDS, remote.timeout)),
            limits=httpx.Limits(max_connections=MOST_REQUESTS + 1),
            follow_redirects=False,
            trust_env=remote.trust_env,
            verify=_trusted(remote),
            transport=transport,
        )  # fmt: skip
        self._last_key: ApiKey | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._client.aclose()

    async def post(self, request: Request) -> Answer | Failure:
        """Send events."""
        return await self._ask("POST", request.path, headers=request.headers, content=request.body)

    async def get(
        self, path: str, *, query: Mapping[str, str | int] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer | Failure:
        """Ask for something."""
        return await self._ask("GET", path, params=query, headers=headers)

    async def key_is_new(self) -> bool:
        """Whether the key is another one than that of the last request."""
        return self._remote.api_key is not None and await self._key_of_now(self._remote.api_key) != self._last_key

    async def _ask(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> Answer | Failure:
        # One deadline for both: a claim relies on how long a request takes.
        deadline = anyio.current_time() + self._remote.timeout
        key = None if self._remote.api_key is None else await self._key_of_now(self._remote.api_key)
        self._last_key = key
        url = self._remote.base_url + path
        try:
            with anyio.fail_after(deadline - anyio.current_time()):
                # A variable with all headers would show the key in tracebacks.
                async with self._client.stream(
                    method, url, headers={**(headers or {}), **_authorization(key)}, **options
                ) as response:
                    return Answer(response.status_code, response.headers, await _bounded_body(response), key)
        except TimeoutError:
            return Failure(f"no answer within {self._remote.timeout:g} seconds")
        except httpx.HTTPError as error:
            is_unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            return Failure(_described(error, key), is_certificate=_is_certificate(error), is_unsent=is_unsent)

    async def _key_of_now(self, key: ApiKey) -> ApiKey:
        """The key of this moment. A callable is asked for it, and may fail, or hang: nobody types the password of a keyring.

        Raises:
            AuthError: It failed.
        """
        if not key.is_asked_for:
            return key
        asked = Outcome(lambda: ApiKey(key.reveal()))
        threading.Thread(target=asked.run, name="sessionstore-key", daemon=True).start()
        try:
            with anyio.fail_after(self._remote.timeout):
                await asked.arrival.wait()
            return asked.get()
        except ConfigError as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001 - whatever a user's callable raises
            failure = f"api_key: asking for it raised {type(error).__name__}"
        # Outside, so that it is not chained: what a keyring says of its failure may hold the key.
        raise AuthError(failure)


def _authorization(key: ApiKey | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key.reveal()}"}


async def _bounded_body(response: httpx.Response) -> bytes | None:
    """The body, None if it is too long, or compressed although nobody asked for that."""
    if response.headers.get("content-encoding", "identity") != "identity":
        return None
    body = bytearray()
    # Closed here and now: an answer that is too long is left in its middle.
    async with aclosing(cast(AsyncGenerator[bytes, None], response.aiter_bytes())) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > _MAX_ANSWER_BYTES:
                return None
    return bytes(body)


def _trusted(remote: Remote) -> ssl.SSLContext | bool:
    if remote.base_url.startswith("http://"):
        # Reading the usual certificates takes longer than many a drain. This context trusts nobody.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if remote.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(remote.ca_file))
    except OSError as error:
        raise ConfigError(f"ca_file: {remote.ca_file} holds no certificates that can be used: {error}") from error


def _described(error: httpx.HTTPError, key: ApiKey | None) -> str:
    text = " ".join(str(error).split())
    hidden = text if key is None else key.hidden_in(text)
    return mask(f"{type(error).__name__}: {hidden}" if hidden else type(error).__name__)[:_MAX_ERROR_CHARS]


def _is_certificate(error: BaseException) -> bool:
    """Whether a certificate was refused, somewhere down the chain of causes."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
