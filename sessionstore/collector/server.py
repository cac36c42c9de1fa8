"""The process of a collector: it listens, serves until it is told to stop, lets running requests end, and closes its store."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..aio import AsyncSessionStore
from ..aio_opening import aopen
from ..arguments import UNSET, Unset
from ..errors import ConfigError
from ..keys import EncryptionKey
from ..queries import subscription
from . import create_app
from .access import ApiKeys, is_loopback, own_names, read_keys
from .app import response
from .problems import stopping

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8787
# A request that is stored ends in much less; one whose body does not come is cut off.
_GRACE_SECONDS: Final = 15
_IDLE_SECONDS: Final = 30
_BACKLOG: Final = 512
# More than a batch of events makes.
_OBJECTS_BETWEEN_COLLECTIONS: Final = 20_000


def serve(
    location: str | None,
    *,
    key: EncryptionKey | Unset = UNSET,
    key_file: Path | None = None,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    allowed_hosts: Iterable[str] = (),
    listening: Callable[[str], None],
) -> None:
    """Serve a store until SIGTERM or SIGINT.

    Args:
        location: The store's path or URL; made if it is not there.
        key: What the store is encrypted with, as for `sessionstore.open()`.
        key_file: The API keys; without it, only this machine is served.
        host: The address to listen on.
        port: The port; 0 picks a free one.
        allowed_hosts: More names that requests may be sent to.
        listening: Called with the URL once requests are answered.

    Raises:
        ConfigError: The keys or the address are wrong, or the store has a remote itself.
    """
    keys = ApiKeys() if key_file is None else read_keys(key_file)
    if not keys and not is_loopback(host):
        raise ConfigError(f"{host}: without API keys only this machine is served; give --api-key-file, or listen on 127.0.0.1")
    names = own_names(host, allowed_hosts, has_keys=bool(keys))
    with _listener(host, port) as listener:
        asyncio.run(_serve(location, key, keys, listener, names=names, listening=listening))


async def _serve(
    location: str | None,
    key: EncryptionKey | Unset,
    keys: ApiKeys,
    listener: socket.socket,
    *,
    names: frozenset[str] | None,
    listening: Callable[[str], None],
) -> None:
    # Whatever the environment names is the remote of those who tell, not of who is told.
    async with aopen(location, remote=None, key=key) as store:
        await _require_no_remote(store)
        app = create_app(store, keys=keys, names=names)
        config = uvicorn.Config(
            Ending(app),
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        _spare_the_garbage_collector()
        await _Server(config, lambda: listening(_url(listener))).serve(sockets=[listener])


def _spare_the_garbage_collector() -> None:
    """What is loaded by now stays for good. Looking through it again and again took a fifth of the processor's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


async def _require_no_remote(store: AsyncSessionStore) -> None:
    """What agents told would be told again, and for ever if it comes back here."""
    if await store._read(subscription.is_wanted):  # noqa: SLF001 - the collector's own queries
        raise ConfigError(
            "this store tells its events to a remote itself; a collector needs a store of its own, "
            "or take the remote away: sessionstore remote --none"
        )


class Ending:
    """An app whose requests end with an answer, and without a traceback, when a server that stops waits for them no longer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            # Only a server that stops cancels a request. It cuts off an answer that has begun.
            if not begun:
                await response(stopping())(scope, receive, send)


class _Server(uvicorn.Server):
    """uvicorn, which says when it listens, and whose process ends well when it is told to stop."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self._listening()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal. uvicorn would raise it again at the end, and the store would not be closed."""
        before = {each: signal.signal(each, self._stop) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        # The second one does not wait for those who hold their connection open.
        self.force_exit = self.should_exit
        self.should_exit = True


def _listener(host: str, port: int) -> socket.socket:
    # asyncio sends at once, without Nagle's 40 ms, only where the protocol is named.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}") from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
