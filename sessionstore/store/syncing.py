"""The calls that bring events to the remote, and the transactions that a sender is made of."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from .. import hints, inputs, queries
from ..config import key_of_environment
from ..database.full_disk import Freeing
from ..errors import ConfigError, SessionStoreError
from ..logs import log
from .calls import Calls

if TYPE_CHECKING:
    from ..database.transaction import Transaction
    from ..queries.deliveries import Outlook
    from ..remote.settlement import Place, QueuedEvent, Settlement, Trouble

DEFAULT_DRAIN_TIMEOUT: Final = 2.0
DEFAULT_FLUSH_TIMEOUT: Final = 30.0
_LONGEST_TIMEOUT: Final = 86_400
NO_REMOTE: Final = "the store has no remote: open it with remote=, or call set_remote()"


class SyncCalls(Calls):
    """Deliveries to the remote."""

    def set_remote(
        self,
        remote: hints.Remote | str | None,
        api_key: hints.ApiKey | str | Callable[[], str] | None = None,
        *,
        replace: bool = False,
    ) -> None:
        """Tell events to a remote API from now on. It belongs to the file: all programs on it keep their events for it.

        Args:
            remote: Its base URL, or a `Remote` with all settings; None (with `replace`) for none any more. A URL alone leaves the
                settings as they are that the file, or this program, has for it.
            api_key: The key for a URL. It stays in memory: each program that delivers gives it.
            replace: Leave another remote that the file has. Events that wait go to the new one.

        Raises:
            ConfigError: The address or the key is wrong, or the store has another remote.
        """
        from ..delivery.joining import joined
        from ..remote.credentials import ApiKey, require_valid
        from ..remote.settings import Remote, named_remote

        # First of all: a traceback shows the variables of a frame, and this one then holds no key.
        api_key = ApiKey.of(api_key)
        require_valid(api_key)
        wanted = named_remote(remote, api_key)
        if wanted is not None and not isinstance(remote, Remote):
            wanted = joined(self, wanted)
        replacing = inputs.flag("replace", replace)
        if wanted is None and not replacing:
            raise ConfigError("remote: None takes the remote away; say so with replace=True")
        if wanted is None or not self._read(lambda db: queries.subscription.is_set(db, wanted)):
            self._write(lambda db: queries.subscription.set_remote(db, wanted, replace=replacing))
        self._database.remote = wanted
        self._database.writer.bell.ring()

    def drain(self, *, timeout: float | None = None, limit: int | None = None) -> hints.DrainReceipt:
        """Send the events that wait to the remote, now, even if it could not be used a moment ago.

        It ends when nothing is left that may be sent, or when the remote cannot be used: what is left stays in the outbox, and
        being offline costs no event an attempt. Events of a session, or of an agent, arrive in their order. Several programs
        may drain one file at a time.

        Args:
            timeout: At most so many seconds; None for as long as it takes.
            limit: At most about so many events.

        Raises:
            ConfigError: The store has no remote.
        """
        from ..delivery import calls

        seconds, most = drain_arguments(timeout, limit)
        return calls.drain(self, timeout=seconds, limit=most)

    def flush(self, timeout: float = DEFAULT_FLUSH_TIMEOUT) -> bool:
        """Wait until the events that are there now are delivered, or given up, and send them meanwhile.

        Args:
            timeout: At most so many seconds.

        Returns:
            False if some are left: the time is over, or deliveries pause until somebody sets something right.

        Raises:
            ConfigError: The store has no remote.
        """
        from ..delivery import calls

        return calls.flush(self, timeout=flush_argument(timeout))

    def close(self, *, drain_timeout: float = DEFAULT_DRAIN_TIMEOUT) -> None:
        """Try to deliver what waits, finish running calls and let go of the file. A second close does nothing.

        Args:
            drain_timeout: Seconds for the deliveries; what is left stays in the outbox. Nothing is tried where this program
                named no remote, or where the remote could not be used a moment ago.

        Raises:
            StoreBusyError: Another process held the file past the `busy_timeout`; close again to try again.
        """
        seconds = inputs.duration("drain_timeout", drain_timeout, most=_LONGEST_TIMEOUT)
        if not self._closed and self._parent is None:
            self._deliver_last(seconds)
        super().close()

    def _deliver_last(self, seconds: float) -> None:
        """Deliver for a while; being offline, or a store that cannot be used any more, is no reason not to close."""
        if not seconds or self._database.remote is None:
            return
        try:
            outlook = self._outlook()
            # The refused key may be that of another program.
            if outlook.pending and (outlook.retry_at is None or outlook.paused == "auth"):
                from ..delivery import calls

                # Once: whoever closes does not wait for a remote to come back.
                calls.drain(self, timeout=seconds, retries=0)
        except (SessionStoreError, RuntimeError) as error:
            # A RuntimeError: Python starts no threads at its end.
            log(logging.WARNING, "events_left", "the last events were not delivered; they are on disk", reason=error)

    def _access(self) -> hints.Remote:
        """The remote, with the key that this program has for it."""
        url = self._read(queries.subscription.remote)
        given = self._database.remote
        if given is not None and given.base_url == url:
            return given
        if url is None:
            raise ConfigError(NO_REMOTE)
        from ..remote.settings import Remote

        return Remote(url, key_of_environment(url), allow_http=True)

    def _outlook(self) -> Outlook:
        return self._read(queries.deliveries.outlook)

    def _any_up_to(self, newest: int) -> bool:
        return self._read(lambda db: queries.deliveries.any_up_to(db, newest))

    # A claim makes no room, but what is claimed is settled.

    # Full: what is sent must be on disk, or a power cut could take back what the remote already knows.

    def _claim(self, token: str, most: int, most_bytes: int, lease: timedelta) -> list[QueuedEvent] | None:
        """The claimed events; None if others have just taken all that was there: then there may be more.

        What is claimable is looked for first, without the lock of the file: that may pass very many events that are held.
        """
        found: list[int] = []

        def look(db: Transaction) -> list[QueuedEvent] | None:
            found[:] = queries.deliveries.claimable(db, token, most)
            return None if found else []

        def claim(db: Transaction) -> list[QueuedEvent] | None:
            return queries.deliveries.claim(db, token, most=most, most_bytes=most_bytes, lease=lease, among=found) or None

        return self._read_or_write(look, Freeing(claim), full=True)

    def _held(self, token: str) -> frozenset[Place]:
        return self._read(lambda db: queries.deliveries.held(db, token))

    def _settle(self, settlement: Settlement) -> int:
        return self._write(Freeing(lambda db: queries.deliveries.settle(db, settlement)))

    def _settle_and_claim(self, settlement: Settlement, most: int, most_bytes: int, lease: timedelta) -> list[QueuedEvent]:
        """The next events. Where these stand behind many that others hold, it returns none: `_claim` looks for them."""

        def work(db: Transaction) -> list[QueuedEvent]:
            return queries.deliveries.settle_and_claim(db, settlement, most=most, most_bytes=most_bytes, lease=lease)

        return self._write(Freeing(work), full=True)

    def _release(self, token: str, arrives_until: datetime | None = None) -> None:
        return self._write(Freeing(lambda db: queries.deliveries.release(db, token, arrives_until=arrives_until)))

    def _purge_settled(self, age: timedelta) -> int:
        """Delete dead and erased events of such an age, and of those that the remote has no use for all but the newest."""

        def are_due(db: Transaction) -> bool:
            # A clock that is far ahead would find all of them old.
            return queries.outbox_upkeep.any_settled(db, db.now - age) and not queries.sweeping.clock_is_doubtful(db)

        def look(db: Transaction) -> int | None:
            return None if queries.outbox_upkeep.has_too_many_unsupported(db) or are_due(db) else 0

        def work(db: Transaction) -> int:
            queries.outbox_upkeep.drop_unsupported(db)
            return queries.outbox_upkeep.purge_settled(db, db.now - age) if are_due(db) else 0

        return self._read_or_write(look, Freeing(work))

    def _note_trouble(self, trouble: Trouble) -> None:
        return self._write(Freeing(lambda db: queries.deliveries.note_trouble(db, trouble)))


def drain_arguments(timeout: float | None, limit: int | None) -> tuple[float | None, int | None]:
    """Check the arguments of a drain."""
    seconds = None if timeout is None else flush_argument(timeout)
    return seconds, inputs.optional_whole_number("limit", limit, least=1)


def flush_argument(timeout: float) -> float:
    """Check the argument of a flush."""
    return inputs.duration("timeout", timeout, most=_LONGEST_TIMEOUT)
