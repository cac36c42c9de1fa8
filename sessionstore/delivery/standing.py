"""The drain that goes on in the background: woken by commits, held back by trouble, ended by the closing of the store."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import anyio

from .. import clock
from ..errors import ClosedStoreError, ConfigError, ForkedStoreError
from ..logs import log
from ..remote.settings import Remote
from ..waiting import Arrival
from .sender import Sender

if TYPE_CHECKING:
    from ..aio import AsyncSessionStore
    from ..queries.deliveries import Outlook

# Events that other processes store are found by looking; those of this one wake the drain.
_LOOKS_EVERY: Final = 10.0
_GATHERS_FOR: Final = 0.2
_AFTER_AN_ERROR: Final = 30.0


class StandingDrain:
    """The loop. An error ends one pass, not the loop."""

    def __init__(self, store: AsyncSessionStore) -> None:
        self._store = store
        self._arrival: Arrival | None = None
        self._sender: Sender | None = None
        self._remote: Remote | None = None

    async def run(self) -> None:
        """Go on until it is cancelled or the store is closed."""
        bell = self._store._database.writer.bell  # noqa: SLF001 - a part of the library
        bell.add(self._wake)
        try:
            is_open = True
            while is_open:
                is_open = await self._go_on()
        finally:
            bell.discard(self._wake)
            with anyio.CancelScope(shield=True):
                await self._forget_sender()

    async def _go_on(self) -> bool:
        """Wait for work and do it; False once the store is closed."""
        try:
            await self._wait_for_work()
            await self._work()
        except (ClosedStoreError, ForkedStoreError):
            return False
        except Exception as error:  # noqa: BLE001 - whatever went wrong may go right the next time
            self._store._database.tally.count("drain_failures")  # noqa: SLF001
            log(logging.ERROR, "drain_failed", "deliveries failed; they are tried again", reason=error)
            await anyio.sleep(_AFTER_AN_ERROR)
        return True

    async def _wait_for_work(self) -> None:
        while True:
            # First this: what is stored after the look wakes.
            arrival = self._arrival = Arrival()
            outlook = await self._store._outlook()  # noqa: SLF001
            seconds = await self._seconds_until_due(outlook)
            if not seconds:
                return
            with anyio.move_on_after(min(seconds, _LOOKS_EVERY)):
                await arrival.wait()
                # Events that follow each other go together, and a busy program is not looked at after each of its commits.
                await anyio.sleep(_GATHERS_FOR)

    async def _seconds_until_due(self, outlook: Outlook) -> float:
        """0 if there is something to send now."""
        if outlook.url is None or not outlook.pending:
            return _LOOKS_EVERY
        seconds = 0.0
        # Whose key was refused waits by itself; another program may have another key.
        if outlook.retry_at is not None and outlook.paused != "auth":
            seconds = max((outlook.retry_at - clock.utc_now()).total_seconds(), 0.0)
            if outlook.paused is None:
                return seconds
        if self._sender is not None:
            seconds = max(seconds, await self._sender.seconds_until_key_is_tried())
        return 0.0 if seconds and await self._may_be_set_right() else seconds

    async def _may_be_set_right(self) -> bool:
        """Whether somebody may have done what a pause waits for: started anew, or set the remote again."""
        if self._sender is None:
            return True
        try:
            return await self._store._access() != self._remote  # noqa: SLF001
        except ConfigError:
            return False

    async def _work(self) -> None:
        try:
            remote = await self._store._access()  # noqa: SLF001
        except ConfigError as error:
            # Taken away meanwhile, or the environment names another one.
            log(logging.ERROR, "drain_failed", "deliveries failed; they are tried again", reason=error)
            await anyio.sleep(_LOOKS_EVERY)
            return
        if self._sender is None or remote != self._remote:
            await self._forget_sender()
            self._sender, self._remote = Sender(self._store, remote), remote
        await self._sender.send_all()
        if self._sender.trouble is None:
            await self._wait_for_held_streams()

    async def _wait_for_held_streams(self) -> None:
        """What is left now is held: it is being sent by others, or waits for its next try."""
        arrival = self._arrival = Arrival()
        outlook = await self._store._outlook()  # noqa: SLF001
        if outlook.pending and (outlook.is_leased or outlook.waits_until is not None):
            # Whoever sends them goes on with what comes after them.
            until = outlook.waits_until
            seconds = _LOOKS_EVERY if until is None else (until - clock.utc_now()).total_seconds()
            with anyio.move_on_after(min(max(seconds, 0.0), _LOOKS_EVERY)):
                await arrival.wait()
                await anyio.sleep(_GATHERS_FOR)

    async def _forget_sender(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            await sender.__aexit__(None, None, None)

    def _wake(self) -> None:
        """In the thread that committed."""
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.set()
