"""What the verb drain does: one pass over the outbox, or deliveries until somebody ends them."""

from __future__ import annotations

import logging
import os
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from anyio.from_thread import start_blocking_portal

from .. import queries
from ..aio import AsyncSessionStore
from ..config import REMOTE_VARIABLE, remote_of_environment
from ..delivery.joining import joined
from ..delivery.standing import StandingDrain
from ..errors import ConfigError, InvalidInputError
from ..logs import LOGGER
from ..remote.credentials import MAX_KEY_CHARS, ApiKey
from ..remote.settings import Remote, normal_url
from .console import complain, counted, plain, say, write_json

if TYPE_CHECKING:
    from ..queries.deliveries import Outlook
    from ..store import SessionStore
    from ..values.receipts import DrainReceipt
    from .target import Target

_FAILED: Final = 1
_OTHERS: Final = 0o077
_TO_DO: Final = {
    "auth": "give the right key: --api-key-file FILE, or SESSIONSTORE_SYNC_TOKEN",
    "config": "there is no such API at that address: sessionstore remote URL --replace sets another one",
    "redirect": "nothing is sent to other addresses: sessionstore remote URL --replace sets the right one",
    "certificate": "its certificate is not trusted: --ca-file FILE names its authority",
}
_LATER: Final = "what is left stays in the outbox: drain again later, or let drain --watch go on"


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says of the remote."""

    remote: str | None
    key_file: Path | None
    ca_file: Path | None


def drain(target: Target, given: Given, *, timeout: float | None, as_json: bool) -> int:
    """Send what waits, say what became of it, and tell by the exit code whether the remote could be used."""
    with _opened(target, given) as (store, url):
        receipt = store.drain(timeout=timeout)
        waiting = store.outbox.stats().pending
    if as_json:
        write_json({"remote": url, **plain(receipt), "pending": waiting})
    else:
        say(f"{url}: {_summary(receipt, waiting)}")
    if receipt.error is None:
        return 0
    complain(f"the remote could not be used: {receipt.error}; {_TO_DO.get(receipt.paused or '', _LATER)}")
    return _FAILED


def watch(target: Target, given: Given, *, timeout: float | None) -> int:
    """Deliver whatever is stored until SIGTERM, Ctrl-C or the end of the time."""
    over = threading.Event()
    with _opened(target, given) as (store, url), _ended_by_signals(over.set), _telling():
        say(f"delivering to {url}; Ctrl-C ends it", "dim")
        with start_blocking_portal() as portal:
            going = portal.start_task_soon(_Watch(AsyncSessionStore(store)).run)
            going.add_done_callback(lambda _: over.set())
            over.wait(timeout)
            going.cancel()
    return 0


class _Watch(StandingDrain):
    """Deliveries that begin at once, whatever happened before, and tell how many events went out."""

    _is_new = True
    _told: tuple[object, int] = (None, 0)

    async def _seconds_until_due(self, outlook: Outlook) -> float:
        is_new, self._is_new = self._is_new, False
        return 0.0 if is_new and outlook.pending else await super()._seconds_until_due(outlook)

    async def _work(self) -> None:
        await super()._work()
        await self._say_sent()
        await self._say_next_try()

    async def _wait_for_held_streams(self) -> None:
        await self._say_sent()
        await super()._wait_for_held_streams()

    async def _say_sent(self) -> None:
        if self._sender is None:
            return
        before = self._told[1] if self._told[0] is self._sender else 0
        sent = (await self._sender.receipt()).sent
        self._told = (self._sender, sent)
        if sent > before:
            say(f"{counted(sent - before, 'event')} sent")

    async def _say_next_try(self) -> None:
        if self._sender is None or self._sender.trouble is None:
            return
        outlook = await self._store._outlook()  # noqa: SLF001 - a part of the library
        if outlook.retry_at is not None:
            say(f"the next try is at {outlook.retry_at.astimezone():%H:%M:%S}", "dim")


class _Trouble(logging.Handler):
    """Says what goes wrong meanwhile."""

    def emit(self, record: logging.LogRecord) -> None:
        """One event of this library."""
        reason, paused = getattr(record, "reason", None), getattr(record, "paused", None)
        message = record.getMessage()
        parts = [message, None if reason is None or str(reason) in message else str(reason), _TO_DO.get(str(paused))]
        say("; ".join(part for part in parts if part), "yellow")


@contextmanager
def _telling() -> Iterator[None]:
    handler, level = _Trouble(logging.INFO), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        LOGGER.removeHandler(handler)


@contextmanager
def _ended_by_signals(end: Callable[[], None]) -> Iterator[None]:
    def handler(number: int, frame: FrameType | None) -> None:
        del number, frame
        end()

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def _opened(target: Target, given: Given) -> Iterator[tuple[SessionStore, str]]:
    """The store with its remote, and the remote's URL."""
    if given.key_file is not None:
        # So that a wrong file is told now; it is read again whenever the key is needed.
        ApiKey(_key(given.key_file))
    if given.ca_file is not None:
        _check_certificates(given.ca_file)
    store = target.open(migrate=True)
    try:
        yield store, _named(store, given)
    finally:
        store.close(drain_timeout=0)


def _named(store: SessionStore, given: Given) -> str:
    """Make what the command line names, or else the environment or the file, the remote."""
    of_file = store._read(queries.subscription.remote)  # noqa: SLF001 - a part of the library
    of_environment = remote_of_environment() if given.remote is None else None
    url = given.remote or (of_environment.base_url if of_environment is not None else of_file)
    if url is None:
        raise ConfigError(f"the store has no remote; give one: --remote URL, or {REMOTE_VARIABLE}")
    key_file = given.key_file
    key = None if key_file is None else lambda: _key(key_file)
    try:
        # What the file has was permitted when it was set.
        named = Remote(url, key, allow_http=is_same(url, of_file), ca_file=given.ca_file)
    except ConfigError as error:
        raise in_words_of_the_command_line(error, "--remote") from None
    if of_file not in (None, named.base_url):
        raise ConfigError(
            f"{'--remote' if of_environment is None else REMOTE_VARIABLE}: the store tells its events to {of_file}, and one store "
            "has one remote; sessionstore remote URL --replace sets another one"
        )
    store.set_remote(joined(store, named))
    return named.base_url


def is_same(url: str, other: str | None) -> bool:
    """Whether a URL is another one's in some spelling."""
    try:
        return normal_url(url, allow_http=True) == other
    except InvalidInputError:
        return False


def in_words_of_the_command_line(error: ConfigError, argument: str) -> ConfigError:
    """A refusal of a URL that names what was typed."""
    _, _, reason = str(error).partition("base_url: ")
    if not reason:
        return error
    return ConfigError(f"{argument}: {reason.replace('allow_http=True', 'sessionstore remote URL --allow-http')}")


def _check_certificates(ca_file: Path) -> None:
    with ca_file.open("rb"):
        pass
    try:
        ssl.create_default_context(cafile=str(ca_file))
    except OSError:
        raise ConfigError(f"{ca_file}: holds no certificates that can be used; they are in PEM") from None


def _key(key_file: Path) -> str:
    with key_file.open("rb") as file:
        if os.name == "posix" and os.fstat(file.fileno()).st_mode & _OTHERS:
            raise ConfigError(f"{key_file}: other users can read the key; chmod 600 {key_file}")
        text = file.read(MAX_KEY_CHARS + 2).strip()
    if not text or not text.isascii() or b"\n" in text:
        raise ConfigError(f"{key_file}: must hold the key, on one line, and nothing else")
    return text.decode("ascii")


def _summary(receipt: DrainReceipt, waiting: int) -> str:
    facts = [f"{counted(receipt.sent, 'event')} sent"]
    facts += [f"{receipt.refused:,} refused, to be tried again"] if receipt.refused else []
    facts += [f"{receipt.dead:,} given up: see outbox list --state dead"] if receipt.dead else []
    if not waiting:
        return "; ".join([*facts, "none left"])
    held = receipt.error is None and receipt.retry_at is not None
    why = " (refused ones wait, or others are sending them)" if held else ""
    return "; ".join([*facts, f"{waiting:,} left{why}"])
