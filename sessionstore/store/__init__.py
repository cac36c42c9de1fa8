"""SessionStore: the calls that users make, a module for each group. One public call is one transaction, or one snapshot."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from ..config import DEFAULT_INTERVAL
from ..values.health import Diagnosis, StoreStatus
from .agents import AgentCalls
from .analytics import AnalyticsCalls
from .files import FileCalls
from .lives import LifeCalls
from .messages import MessageCalls
from .metrics import MetricCalls
from .outbox import Outbox
from .sessions import SessionCalls
from .syncing import SyncCalls

if TYPE_CHECKING:
    from ..background import Background


class SessionStore(SessionCalls, LifeCalls, MessageCalls, FileCalls, MetricCalls, AgentCalls, AnalyticsCalls, SyncCalls):
    """Sessions and their messages in one file. `sessionstore.open()` makes it; it may be used by many threads.

    Every call raises `ClosedStoreError` after `close()`, `ForkedStoreError` in a forked child, `StoreBusyError` when others
    hold the file past the `busy_timeout`, `StoreCorruptError` when it meets damage, and `InvalidInputError` for arguments it
    refuses. A call that returns is on disk; a call that raises has written nothing.
    """

    @property
    def outbox(self) -> Outbox:
        """The events that are to be told to the remote: what waits, what was given up, and what is to become of it."""
        return Outbox(self)

    def status(self) -> StoreStatus:
        """How the store is doing: engine, journal mode and why, sizes, counts, what happened since it was opened."""
        from ..diagnosis import status

        return self._read(lambda db: status(db, self._database, self._settings))

    def doctor(self) -> Diagnosis:
        """Look at every page and every message for damage; takes time with the size of the file."""
        from ..diagnosis import diagnose

        return self._read(lambda db: diagnose(db, self._database))

    def background(self, *, interval: float | timedelta = DEFAULT_INTERVAL) -> Background:
        """Work beside the calls, begun by `with store.background():` or its `start()`, in one daemon thread.

        It sweeps, and delivers events to the remote, if there is one: soon after each commit that has any, and after trouble when
        the backoff allows. It ends within a second when the block is left; an error ends one pass, is logged and counted.

        Args:
            interval: Seconds (or a timedelta) between two sweeps; the first one comes at once.
        """
        from ..background import Background

        self._require_writable()
        self._database.require_writable()
        return Background(self, interval=interval)
