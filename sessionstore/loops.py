"""The event loop of the library's own threads. No name server holds up its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

from .waiting import begun_in_thread

T = TypeVar("T")


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine in a loop of this thread, until it ends."""
    return anyio.run(main, backend="asyncio", backend_options={"loop_factory": _Loop})


class _Loop(asyncio.SelectorEventLoop):
    """asyncio's own way to ask a name server is a pool of threads, and the loop and the program wait for these at their ends."""

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - as in the class above
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        asked = begun_in_thread(lambda: socket.getaddrinfo(host, port, family, type, proto, flags))
        # Who is cancelled leaves the thread to itself.
        await asked.arrival.wait()
        return asked.get()
