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
from .sessions import SessionCalls

if TYPE_CHECKING:
    from ..background import Background


class SessionStore(SessionCalls, LifeCalls, MessageCalls, FileCalls, MetricCalls, AgentCalls, AnalyticsCalls):
    """Sessions and their messages in one file. `sessionstore.open()` makes it; it may be used by many threads.

    Every call raises `ClosedStoreError` after `close()`, `ForkedStoreError` in a forked child, `StoreBusyError` when others
    hold the file past the `busy_timeout`, `StoreCorruptError` when it meets damage, and `InvalidInputError` for arguments it
    refuses. A call that returns is on disk; a call that raises has written nothing.
    """

    def status(self) -> StoreStatus:
        """How the store is doing: engine, journal mode and why, sizes, counts, what happened since it was opened."""
        from ..diagnosis import status

        return self._read(lambda db: status(db, self._database, self._settings))

    def doctor(self) -> Diagnosis:
        """Look at every page and every message for damage; takes time with the size of the file."""
        from ..diagnosis import diagnose

        return self._read(lambda db: diagnose(db, self._database))

    def background(self, *, interval: float | timedelta = DEFAULT_INTERVAL) -> Background:
        """Work beside the calls, begun by `with store.background():` or its `start()`: the periodic sweep, in one daemon thread.

        Args:
            interval: Seconds (or a timedelta) between two sweeps; the first one comes at once. It ends within a second when the
                block is left; an error ends one sweep, is logged and counted in `status()`.
        """
        from ..background import Background

        self._require_writable()
        self._database.require_writable()
        return Background(self, interval=interval)
