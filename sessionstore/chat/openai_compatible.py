"""OpenAICompatible: a model behind an HTTP server that speaks chat completions, plain and streamed."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, closing, contextmanager, suppress
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast
from urllib.parse import urlsplit

from anyio import move_on_after
from anyio.lowlevel import RunVar

from .. import clock, inputs
from ..errors import ConfigError, InvalidInputError, ModelError
from ..masking import mask
from ..remote.answers import Answer, described
from ..remote.backoff import retry_after
from ..remote.credentials import ApiKey, require_valid
from ..remote.settings import normal_url
from ..waiting import in_thread
from .completions import StreamedAnswer, ToldError, answer_of, request_body
from .models import Piece, pieces_of

if TYPE_CHECKING:
    import httpx
    from httpx_sse import EventSource

AnyText = TypeVar("AnyText", str, bytes)

DEFAULT_TIMEOUT: Final = 60.0
MAX_ANSWER_BYTES: Final = 64 << 20

_PATH: Final = "/chat/completions"
_CONNECT_SECONDS: Final = 10.0
_LONGEST_TIMEOUT: Final = 86_400.0
_SECONDS_TO_FINISH: Final = 5.0
_MOST_KEPT: Final = 20
_MOST_ERROR_CHARS: Final = 150
_MOST_ERROR_BYTES: Final = 1 << 20
_TAKEN: Final = frozenset({"model", "messages", "tools", "stream", "stream_options", "n"})


class OpenAICompatible:
    """A model that OpenAI, Ollama, llama.cpp, vLLM or another server of chat completions offers.

    Connections are opened at the first question and kept for the following ones. One may be shared by several agents, threads and
    event loops. No redirects are followed; certificates are always checked.

    Args:
        base_url: The server's address up to its version, such as https://api.openai.com/v1 or http://localhost:11434/v1.
        model: The name that the server has for the model.
        api_key: Goes into the Authorization header: a text, or a plain callable that returns the one to use now.
        timeout: Seconds of silence after which a question is given up: before the answer begins, and between its chunks.
        options: What else each request says: `temperature`, `max_tokens`, `reasoning_effort` and the like.
        stream_usage: Ask for the usage at the end of a stream; a few servers do not know how.
        allow_http: Talk plain HTTP also to other machines, where everybody on the way can read key and conversation.
        trust_env: Use the proxies that the environment names (HTTPS_PROXY and the like).

    Raises:
        ConfigError: An argument is wrong.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: ApiKey | str | Callable[[], str] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        options: Mapping[str, Any] | None = None,
        stream_usage: bool = True,
        allow_http: bool = False,
        trust_env: bool = False,
    ) -> None:
        # First of all: a traceback shows the variables of a frame, and this one then holds no key.
        api_key = ApiKey.of(api_key)
        require_valid(api_key)
        try:
            self._base_url = normal_url(base_url, allow_http=inputs.flag("allow_http", allow_http))
            self._name = inputs.identifier("model", model)
            self._timeout = inputs.period("timeout", timeout)
            self._stream_usage = inputs.flag("stream_usage", stream_usage)
            self._trust_env = inputs.flag("trust_env", trust_env)
            inputs.json_object("options", dict(options or {}), max_bytes=inputs.MAX_METADATA_BYTES)
        except InvalidInputError as error:
            raise ConfigError(str(error)) from None
        if self._base_url.endswith(_PATH):
            raise ConfigError(f"base_url: goes up to the version, such as /v1; {_PATH} is added to it")
        if self._timeout > _LONGEST_TIMEOUT:
            raise ConfigError(f"timeout: must be at most {_LONGEST_TIMEOUT:g} seconds")
        if taken := sorted(_TAKEN & set(options or {})):
            raise ConfigError(f"options: {', '.join(taken)} cannot be set there")
        self._options = dict(options or {})
        self._api_key = api_key
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        # Connections belong to the event loop that opened them.
        self._async_client: RunVar[httpx.AsyncClient | None] = RunVar("sessionstore_model_client", None)

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._base_url

    @property
    def model(self) -> str:
        """The model's name."""
        return self._name

    def pieces(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, streamed: bool) -> Iterator[Piece]:
        """The answer to a conversation: pieces of its text, if it is streamed, and at the end the whole `ModelAnswer`.

        Raises:
            ModelError: There is none that can be used.
        """
        # Made before anybody measures how long the answer takes.
        return self._pieces(self._client_here(), messages, tools, streamed)

    def _pieces(
        self, client: httpx.Client, messages: list[dict[str, Any]], tools: list[dict[str, Any]], streamed: bool
    ) -> Iterator[Piece]:
        key = self._key_of_now()
        with (
            self._translated(key),
            client.stream("POST", _PATH, **self._request(key, messages, tools, streamed)) as got,
        ):
            bounded = _Bounded(got)
            if got.status_code != HTTPStatus.OK:
                raise self._refusal(got.headers, got.status_code, bounded.read_some(), key)
            if not streamed or not bounded.has_events:
                yield from pieces_of(answer_of(bounded.read()), streamed=streamed)
                return
            answer = StreamedAnswer()
            with closing(cast("Generator[Any, None, None]", _events_of(bounded).iter_sse())) as events:
                for event in events:
                    if text := answer.take(event.data):
                        yield text
                    if answer.is_done:
                        # A server may hold the body open, which costs the connection, and not the answer.
                        break
            yield answer.answer()

    def pieces_async(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, streamed: bool) -> AsyncIterator[Piece]:
        """As `pieces`, to be called in the event loop."""
        return self._pieces_async(self._client_of_loop(), messages, tools, streamed)

    async def _pieces_async(
        self, client: httpx.AsyncClient, messages: list[dict[str, Any]], tools: list[dict[str, Any]], streamed: bool
    ) -> AsyncIterator[Piece]:
        key = await in_thread(self._key_of_now) if self._api_key is not None and self._api_key.is_asked_for else self._key_of_now()
        async with self._asked(client, key, messages, tools, streamed) as got:
            if got.status_code != HTTPStatus.OK:
                raise self._refusal(got.headers, got.status_code, await got.aread_some(), key)
            if not streamed or not got.has_events:
                for piece in pieces_of(answer_of(await got.aread()), streamed=streamed):
                    yield piece
                return
            answer = StreamedAnswer()
            async with aclosing(cast("AsyncGenerator[Any, None]", _events_of(got).aiter_sse())) as events:
                async for event in events:
                    if text := answer.take(event.data):
                        yield text
                    if answer.is_done:
                        break
            yield answer.answer()

    def close(self) -> None:
        """Close the connections of threads; the next question opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def close_async(self) -> None:
        """Close the connections of this event loop, and those of threads."""
        client = self._async_client.get()
        self._async_client.set(None)
        if client is not None:
            await client.aclose()
        self.close()

    def __repr__(self) -> str:
        # The traceback of a refused argument may show one that is not finished.
        return f"{type(self).__name__}({getattr(self, '_base_url', None)!r}, {getattr(self, '_name', None)!r})"

    def _client_here(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(**self._settings())
            return self._client

    def _client_of_loop(self) -> httpx.AsyncClient:
        import httpx

        client = self._async_client.get()
        if client is None:
            client = httpx.AsyncClient(**self._settings())
            self._async_client.set(client)
        return client

    def _settings(self) -> dict[str, Any]:
        import httpx

        return {
            "base_url": self._base_url,
            "headers": {"User-Agent": f"sessionstore/{version('sessionstore')}", "Accept-Encoding": "identity"},
            "timeout": httpx.Timeout(self._timeout, connect=min(_CONNECT_SECONDS, self._timeout)),
            "follow_redirects": False,
            # A stream keeps its connection for minutes: nobody waits for another one's end.
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=_MOST_KEPT),
            "trust_env": self._trust_env,
            "verify": _certificates(trust_env=self._trust_env),
        }

    def _request(
        self, key: ApiKey | None, messages: list[dict[str, Any]], tools: list[dict[str, Any]], streamed: bool
    ) -> dict[str, Any]:
        body = request_body(self._name, messages, tools, streamed=streamed, tell_usage=self._stream_usage, options=self._options)
        return {
            "json": body,
            "headers": {
                "Accept": "text/event-stream" if streamed else "application/json",
                **({} if key is None else {"Authorization": f"Bearer {key.reveal()}"}),
            },
        }

    @asynccontextmanager
    async def _asked(
        self,
        client: httpx.AsyncClient,
        key: ApiKey | None,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]],
        streamed: bool,
    ) -> AsyncIterator[_AsyncBounded]:
        with self._translated(key):
            async with client.stream("POST", _PATH, **self._request(key, messages, tools, streamed)) as got:
                bounded = _AsyncBounded(got)
                try:
                    yield bounded
                finally:
                    await bounded.finish()

    def _key_of_now(self) -> ApiKey | None:
        """The key of this moment.

        Raises:
            ModelError: The callable that gives it failed.
        """
        if self._api_key is None or not self._api_key.is_asked_for:
            return self._api_key
        try:
            return ApiKey(self._api_key.reveal())
        except ConfigError as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001 - whatever a user's callable raises
            failure = f"api_key: asking for it raised {type(error).__name__}"
        # Outside, so that it is not chained: what a keyring says of its failure may hold the key.
        raise ModelError(failure)

    @contextmanager
    def _translated(self, key: ApiKey | None) -> Iterator[None]:
        """Errors of the network as ours. What is chained may show the request, so nothing is."""
        import httpx

        failure = None
        try:
            yield
        except httpx.TimeoutException:
            failure = f"no answer from {self._base_url} within {self._timeout:g} seconds of silence"
        except (httpx.HTTPError, httpx.StreamError) as error:
            told = " ".join(str(error).split())
            hidden = told if key is None else key.hidden_in(told)
            failure = f"{self._base_url}: {mask(f'{type(error).__name__}: {hidden}')[:_MOST_ERROR_CHARS]}"
        except ToldError as error:
            told_in = Answer(HTTPStatus.OK, {}, json.dumps({"error": error.words}).encode(), key)
            failure = f"{self._base_url}: {error}, {described(told_in)}"
        if failure is not None:
            raise ModelError(failure) from None

    def _refusal(self, headers: Mapping[str, str], status: int, body: bytes | None, key: ApiKey | None) -> ModelError:
        answer = Answer(status, headers, body, key)
        wait = retry_after(headers.get("retry-after"), clock.utc_now())
        # The most frequent mistake with local servers.
        hint = (
            ""
            if status != HTTPStatus.NOT_FOUND or urlsplit(self._base_url).path
            else "; most servers want a base_url that ends in /v1"
        )
        return ModelError(
            f"{self._base_url} answered {described(answer)}{hint}",
            status=status,
            retry_after=None if wait is None else wait.total_seconds(),
        )


class _Counted:
    """A response whose body is read up to a limit: no server fills the memory."""

    def __init__(self, got: httpx.Response) -> None:
        self._got = got
        self._left = MAX_ANSWER_BYTES
        self.headers = got.headers
        self.status_code = got.status_code

    @property
    def has_events(self) -> bool:
        """Whether it is a stream. Some servers answer as a whole, whatever they were asked for."""
        kind: str = self.headers.get("content-type", "")
        return kind.partition(";")[0].strip().lower() == "text/event-stream"

    def _count(self, part: AnyText) -> AnyText:
        self._left -= len(part)
        if self._left < 0:
            raise ModelError(f"the model's answer is larger than {MAX_ANSWER_BYTES} bytes")
        return part


class _Bounded(_Counted):
    """Read in a thread. To the parser of events it looks like a response."""

    def read(self) -> bytes:
        """The body."""
        return b"".join(map(self._count, self._got.iter_bytes()))

    def read_some(self) -> bytes | None:
        """The body of an error; None if it is longer than anybody would read."""
        self._left = _MOST_ERROR_BYTES
        try:
            return self.read()
        except ModelError:
            return None

    def iter_text(self) -> Iterator[str]:
        """The body as text, as it comes."""
        return map(self._count, self._got.iter_text())


class _AsyncBounded(_Counted):
    """Read in a task. To the parser of events it looks like a response."""

    def __init__(self, got: httpx.Response) -> None:
        super().__init__(got)
        self._open: list[AsyncIterator[Any]] = []

    async def aread(self) -> bytes:
        """The body."""
        body = []
        chunks = self._opened(self._got.aiter_bytes())
        while chunk := await anext(chunks, b""):
            body.append(self._count(chunk))
        return b"".join(body)

    async def aread_some(self) -> bytes | None:
        """The body of an error; None if it is longer than anybody would read."""
        self._left = _MOST_ERROR_BYTES
        try:
            return await self.aread()
        except ModelError:
            return None

    def aiter_text(self) -> _Texts:
        """The body as text, as it comes."""
        return _Texts(self._opened(self._got.aiter_text()), self._count)

    async def finish(self) -> None:
        """Let go of the body, whether it was read to its end or not.

        httpx reads it through a chain of async generators. Closing the outermost one would leave the others to the garbage
        collector, which trio warns of; an error from the closed connection ends them all.
        """
        import httpx

        with move_on_after(_SECONDS_TO_FINISH, shield=True):
            await self._got.aclose()
            for chain in self._open:
                with suppress(httpx.HTTPError, httpx.StreamError):
                    while await anext(chain, None) is not None:
                        pass

    def _opened(self, chain: AsyncIterator[Any]) -> AsyncIterator[Any]:
        self._open.append(chain)
        return chain


class _Texts:
    """Texts as they come. Not an async generator, which would close with the parser's and leave the chain below it open."""

    def __init__(self, texts: AsyncIterator[str], count: Callable[[str], str]) -> None:
        self._texts = texts
        self._count = count

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        return self._count(await anext(self._texts))


def _events_of(got: _Counted) -> EventSource:
    from httpx_sse import EventSource

    return EventSource(cast(Any, got))


@cache
def _certificates(*, trust_env: bool) -> ssl.SSLContext:
    """What proves a server. Loading it takes longer than a short answer."""
    import httpx

    return httpx.create_ssl_context(trust_env=trust_env)
