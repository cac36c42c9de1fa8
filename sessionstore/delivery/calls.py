"""The calls that wait for deliveries, for both faces: the awaited ones run in the caller's loop, the others in a thread's."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from .. import clock, loops, queries
from ..aio import AsyncSessionStore
from ..remote.settings import Remote
from ..values.receipts import DrainReceipt
from .sender import Sender

if TYPE_CHECKING:
    from ..queries.deliveries import Outlook
    from ..store.syncing import SyncCalls

T = TypeVar("T")

# Longer waits are left to the background.
_LONGEST_PAUSE: Final = 60.0
_SHORTEST_PAUSE: Final = 0.02
_WHILE_OTHERS_SEND: Final = 0.1
_NOTHING_SENT: Final = DrainReceipt()


def drain(store: SyncCalls, *, timeout: float | None, limit: int | None = None, retries: int | None = None) -> DrainReceipt:
    """As `adrain`, from a thread without a loop."""
    if store._read(queries.deliveries.is_told_everything):  # noqa: SLF001
        # Without a thread, a loop and a client: those who drain again and again mostly find nothing.
        return _NOTHING_SENT
    return _run(lambda: adrain(_awaited(store), store._access(), seconds=timeout, limit=limit, retries=retries))  # noqa: SLF001


def flush(store: SyncCalls, *, timeout: float) -> bool:
    """As `aflush`, from a thread without a loop."""
    if store._read(queries.deliveries.is_told_everything):  # noqa: SLF001
        return True
    return _run(lambda: aflush(_awaited(store), store._access(), seconds=timeout))  # noqa: SLF001


async def adrain(
    store: AsyncSessionStore, remote: Remote, *, seconds: float | None, limit: int | None, retries: int | None = None
) -> DrainReceipt:
    """Send what waits; if the remote cannot be used, try again so often, or as often as its settings say."""
    if not (await store._outlook()).pending:  # noqa: SLF001
        return _NOTHING_SENT
    async with Sender(store, remote) as sender:
        with anyio.move_on_after(seconds) as time:
            await _send_with_retries(sender, remote.max_retries if retries is None else retries, limit)
        receipt = await sender.receipt()
    if time.cancelled_caught and receipt.left and not receipt.sent and receipt.error is None:
        return replace(receipt, error=f"the {seconds:g} seconds were over before the remote answered")
    return receipt


async def aflush(store: AsyncSessionStore, remote: Remote, *, seconds: float) -> bool:
    """Send until what is there now is gone; True if it is."""
    outlook = await store._outlook()  # noqa: SLF001
    newest = outlook.newest
    if newest is None:
        return True
    with anyio.move_on_after(seconds):
        async with Sender(store, remote) as sender:
            while await store._any_up_to(newest):  # noqa: SLF001
                await sender.send_all()
                if not await store._any_up_to(newest):  # noqa: SLF001
                    break
                if sender.trouble is not None and sender.trouble.paused is not None:
                    return False
                await anyio.sleep(_seconds_until_next(await store._outlook()))  # noqa: SLF001
    return not await store._any_up_to(newest)  # noqa: SLF001


async def _send_with_retries(sender: Sender, retries: int, limit: int | None) -> None:
    for failures in range(1, retries + 2):
        await sender.send_all(limit=limit)
        trouble = sender.trouble
        if trouble is None:
            return
        if trouble.paused == "auth" and await sender.has_new_key():
            continue
        wait = trouble.wait_after(failures, timedelta(0)).total_seconds()
        if trouble.paused is not None or failures > retries or wait > _LONGEST_PAUSE:
            return
        await anyio.sleep(wait)


def _seconds_until_next(outlook: Outlook) -> float:
    """Until there may be something to send, neither none nor long. Whoever sends now is done long before its lease ends."""
    # A key that was refused is that of another program.
    retry_at = None if outlook.paused == "auth" else outlook.retry_at
    instants = [instant for instant in (retry_at, outlook.waits_until) if instant is not None]
    waits = [(instant - clock.utc_now()).total_seconds() for instant in instants]
    waits += [_WHILE_OTHERS_SEND] if outlook.is_leased else []
    return min(max(min(waits, default=_SHORTEST_PAUSE), _SHORTEST_PAUSE), _LONGEST_PAUSE)


def _awaited(store: SyncCalls) -> AsyncSessionStore:
    from ..store import SessionStore

    # The same calls, for senders are asynchronous.
    return AsyncSessionStore(SessionStore(store._database, store._settings, parent=store))  # noqa: SLF001


def _run(work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine in a thread with a loop of its own; an interrupt of the caller cancels it."""
    outcome: list[T] = []
    errors: list[BaseException] = []
    cancel: list[Callable[[], Any]] = []

    async def main() -> None:
        async with BlockingPortal() as portal:
            with anyio.CancelScope() as scope:
                cancel.append(lambda: portal.start_task_soon(scope.cancel))
                try:
                    outcome.append(await work())
                except Exception as error:  # noqa: BLE001 - here, for the portal would wrap it into a group
                    errors.append(error)

    def in_thread() -> None:
        try:
            loops.run(main)
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            errors.append(error)

    thread = threading.Thread(target=in_thread, name="sessionstore-drain", daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        if cancel:
            cancel[0]()
        thread.join()
        raise
    if errors:
        raise errors[0]
    return outcome[0]
