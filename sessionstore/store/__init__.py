"""SessionStore: the calls that users make, a module for each group. One public call is one transaction, or one snapshot."""

from __future__ import annotations

from datetime import timedelta

from .. import hints, inputs
from ..config import DEFAULT_INTERVAL
from ..keys import EncryptionKey, Given, require_valid
from .agents import AgentCalls
from .analytics import AnalyticsCalls
from .branches import BranchCalls
from .checkpoints import CheckpointCalls
from .copies import CopyCalls
from .documents import DocumentCalls
from .erasing import EraseCalls
from .files import FileCalls
from .lives import LifeCalls
from .messages import MessageCalls
from .metrics import MetricCalls
from .outbox import Outbox
from .search import SearchCalls
from .sessions import SessionCalls
from .state import StateCalls
from .syncing import SyncCalls
from .turns import TurnCalls


class SessionStore(
    DocumentCalls,
    TurnCalls,
    SessionCalls,
    BranchCalls,
    LifeCalls,
    EraseCalls,
    MessageCalls,
    SearchCalls,
    StateCalls,
    CheckpointCalls,
    FileCalls,
    CopyCalls,
    MetricCalls,
    AgentCalls,
    AnalyticsCalls,
    SyncCalls,
):
    """Sessions and their messages in one file. `sessionstore.open()` makes it; it may be used by many threads.

    Every call raises `ClosedStoreError` after `close()`, `ForkedStoreError` in a forked child, `StoreBusyError` when others
    hold the file past the `busy_timeout`, `StoreCorruptError` when it meets damage, and `InvalidInputError` for arguments it
    refuses. A call that returns is on disk; a call that raises has written nothing.
    """

    @property
    def outbox(self) -> Outbox:
        """The events that are to be told to the remote: what waits, what was given up, and what is to become of it."""
        return Outbox(self)

    def status(self, *, storage: bool = False) -> hints.StoreStatus:
        """How the store is doing: engine, journal mode and why, sizes, counts, what happened since it was opened.

        Args:
            storage: Also tell what compression and blobs save; that takes time with the number of messages.
        """
        from ..diagnosis import status

        with_storage = inputs.flag("storage", storage)
        return self._read(lambda db: status(db, self._database, self._settings, storage=with_storage))

    def doctor(self) -> hints.Diagnosis:
        """Look at every page and every message for damage; takes time with the size of the file."""
        from ..diagnosis import diagnose

        problem = self._index_problem()
        return self._read(lambda db: diagnose(db, self._database, problem))

    def rekey(self, key: EncryptionKey | Given) -> None:
        """Encrypt the file with another key, in one transaction: a kill leaves the old key or the new one.

        Args:
            key: The new key, as `open` takes it. Keep it before you call this.

        Raises:
            ConfigError: It is no key, or the store is not encrypted (then `sessionstore encrypt` does it).
            StoreBusyError: Another process has the file open, or calls of this one went on past the `busy_timeout`; the file has
                its old key.
            DiskFullError: There is no room for a second copy of what it holds; the file has its old key.
        """
        key = EncryptionKey.made_of(key)
        self._require_writable()
        require_valid(key)
        self._database.rekey(key.resolved(), timeout=self._settings.busy_timeout)

    def background(self, *, interval: float | timedelta = DEFAULT_INTERVAL) -> hints.Background:
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
