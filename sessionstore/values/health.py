"""What is known about how a store is doing: its status, and what `doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSizes:
    """What compression and blobs save.

    Attributes:
        packed_messages: Messages whose texts are compressed in their rows.
        packed_bytes: How many bytes these take.
        unpacked_bytes: How many they would take.
        blobs: Large strings of messages that stand beside them, each once.
        blob_bytes: How many bytes these take, compressed where that helps.
        referred_bytes: How many they would take if every message had its own, as they are.
        graph_checkpoints: Checkpoints of graphs.
        graph_checkpoint_bytes: How many bytes these take, with the values of their channels and what waits to be in the next ones.
    """

    packed_messages: int
    packed_bytes: int
    unpacked_bytes: int
    blobs: int
    blob_bytes: int
    referred_bytes: int
    graph_checkpoints: int = 0
    graph_checkpoint_bytes: int = 0

    @property
    def saved_bytes(self) -> int:
        """How many bytes are saved; less than nothing while blobs that no message has wait to be collected."""
        return self.unpacked_bytes - self.packed_bytes + self.referred_bytes - self.blob_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """How a store is doing.

    Attributes:
        path: The file, or None for a store in memory.
        store_id: The random id that the file was given when it was made.
        schema_revision: The revision of its tables.
        encrypted: Whether the whole file is.
        sqlite_version: The SQLite that runs it: the one that this Python links, or that of SQLCipher for an encrypted file.
        wal_reset_affected: Whether that SQLite has the WAL-reset bug (3.7.0 to 3.51.2 without its fix).
        journal_mode: "wal" on local file systems.
        journal_reason: Why that mode, and what keeps it safe.
        filesystem: The kind of file system, None if unknown.
        wal_bytes: The size of the write-ahead log.
        free_bytes: The room that is left on the disk for programs without special rights; None in memory, or if it cannot be told.
        reserve_bytes: What is set aside beside the file, so that a full disk lets sessions be deleted; made when room gets low.
        overdue: Sessions past their expiry that no sweep has settled yet.
        last_sweep_at: When a sweep last settled some.
        search: When messages are indexed for searching: "on", "deferred" or "off".
        search_waiting: How many messages wait to be indexed, at most.
        remote: The remote that events are kept for, None if there is none.
        outbox_pending: Events that wait for it; `outbox.stats()` tells more.
        outbox_dead: Events that were given up and are kept to look at.
        outbox_dropped: Events that were ever given up for want of room, or purged while they waited.
        sync_paused: What somebody has to set right before anything is sent; None for nothing.
        commits: Transactions committed by this process since it opened the file.
        writes: Writing calls in those transactions; more than `commits` when callers shared them.
        busy_waits: How often this process had to wait for another one.
        metrics_lost: Times that a timer of this process measured and could not record.
        sweeps: Passes of the background sweep in this process that looked for expired sessions.
        sweep_failures: Passes that ended in an error.
        sweeps_skipped: Passes that left the work to another sweeper, or did not trust the clock.
        drain_failures: Passes of the background drain in this process that ended in an error of this machine.
        warnings: What works with less than the usual guarantees.
        storage: What compression and blobs save, if it was asked for.
    """

    path: str | None
    store_id: str
    schema_revision: str
    encrypted: bool
    sqlite_version: str
    wal_reset_affected: bool
    journal_mode: str
    journal_reason: str
    filesystem: str | None
    durability: str
    read_only: bool
    file_bytes: int
    wal_bytes: int
    free_bytes: int | None
    reserve_bytes: int
    sessions: int
    messages: int
    overdue: int
    last_sweep_at: datetime | None
    search: str
    search_waiting: int
    remote: str | None
    outbox_pending: int
    outbox_dead: int
    outbox_dropped: int
    sync_paused: str | None
    commits: int
    writes: int
    checkpoints: int
    busy_waits: int
    metrics_lost: int
    sweeps: int
    sweep_failures: int
    sweeps_skipped: int
    drain_failures: int
    warnings: tuple[str, ...]
    storage: StorageSizes | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that `doctor` looked at."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that `doctor` looked at."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """True if nothing is wrong."""
        return all(check.ok for check in self.checks)
