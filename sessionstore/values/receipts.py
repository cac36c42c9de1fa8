"""What calls report that removed, swept, imported, exported or copied: receipts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteReceipt:
    """What a delete removed, or with `dry_run` would remove.

    Attributes:
        session_ids: The sessions, oldest first.
        missing: Names that were asked for and are not there.
    """

    session_ids: tuple[str, ...]
    messages: int
    missing: tuple[str, ...]
    dry_run: bool

    @property
    def sessions(self) -> int:
        """How many sessions."""
        return len(self.session_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReceipt:
    """What a sweep did.

    Attributes:
        expired: Sessions whose expiry it settled.
        more: Whether it stopped at its limit while others were due.
        busy: Whether it left the work to another sweeper that is at it.
        deferred: Whether it did not trust the clock, which is far ahead of all that is stored; `sweep(now=...)` says that it is
            right.
        blobs: Large strings that no message has any more, and that it deleted.
    """

    expired: int
    more: bool = False
    busy: bool = False
    deferred: bool = False
    blobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReceipt:
    """What an import stored.

    Attributes:
        format: The layout of the file: "sessionstore", "openai", "go-deep-agent" or another one.
        sessions: How many were stored, those that replaced others included.
        messages: How many they hold.
        skipped: Sessions that were left out because there were sessions of their names.
        replaced: Sessions that took the place of others.
        renamed: The id in the file and the id in the store, of each session that got another one.
        merged: Sessions that were there already and got what they lacked; their messages count, they do not.
    """

    format: str
    sessions: int
    messages: int
    skipped: int
    replaced: int
    renamed: tuple[tuple[str, str], ...]
    merged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReceipt:
    """What an export wrote.

    Attributes:
        format: The layout: "sessionstore", "openai", "html" or another one.
        size_bytes: How much was written, before any compression.
        left_out: How many of the messages have no place in the layout.
        rows: How many rows of a view were written.
    """

    format: str
    sessions: int
    messages: int
    size_bytes: int
    left_out: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReceipt:
    """What a drain did.

    Attributes:
        sent: Events that the remote has now.
        refused: Times that it did not take one, which waits for its next try.
        dead: Events that were given up: dead letters, kept to look at.
        requests: How many requests that took.
        left: Whether events still wait.
        error: Why it stopped before the end, if the remote could not be used.
        paused: What somebody has to set right first: "auth" (the key), "config" (the address), "redirect", "certificate".
        retry_at: When the background tries again.
    """

    sent: int = 0
    refused: int = 0
    dead: int = 0
    requests: int = 0
    left: bool = False
    error: str | None = None
    paused: str | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReceipt:
    """What a backup holds.

    Attributes:
        path: The file.
        store_id: The id of the store, which its backups share.
        schema_revision: The revision of its tables.
        taken_at: The moment that it shows.
        size_bytes: The size of the file.
        sessions: How many sessions it holds, expired ones included.
        messages: How many messages they have.
    """

    path: str
    store_id: str
    schema_revision: str
    taken_at: datetime
    size_bytes: int
    sessions: int
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReceipt:
    """What a restore put in place.

    Attributes:
        path: The store.
        store_id: The id of the store, that of the backup.
        schema_revision: The revision of its tables; the next open upgrades an older one.
        size_bytes: The size of the file.
        sessions: How many sessions it holds, expired ones included.
        messages: How many messages they have.
        previous: Where the file is that was in the place, None if there was none.
    """

    path: str
    store_id: str
    schema_revision: str
    size_bytes: int
    sessions: int
    messages: int
    previous: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VacuumReceipt:
    """What a vacuum gave back.

    Attributes:
        full: Whether the file was rebuilt.
        bytes_before: The size of the file and its log before.
        bytes_after: Their size after.
        complete: Whether the log was emptied. If a reader kept it from that, the file shrinks when the reader is done and the log
            is copied.
    """

    full: bool
    bytes_before: int
    bytes_after: int
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionReceipt:
    """What became of a file that was encrypted or decrypted.

    Attributes:
        path: The store.
        encrypted: Whether it is encrypted now.
        sessions: How many sessions it holds, expired ones included.
        messages: How many messages they have.
        size_bytes: The size of the file.
        plain_copies: Copies that upgrades of the schema and restores kept and that are plain still; remove them if nobody may
            read them.
    """

    path: str
    encrypted: bool
    sessions: int
    messages: int
    size_bytes: int
    plain_copies: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReceipt:
    """What a copy brought, and whether both stores now have the same.

    Attributes:
        source: The store that was copied.
        target: The store that it was copied to.
        sessions: How many sessions the source holds, expired ones included.
        messages: How many messages they have.
        blobs: How many large parts these have.
        state_values: How many values users and applications have; those of sessions go with these.
        agents: How many agents it knows.
        activities: What they did.
        metrics: How many figures were recorded.
        received_events: How many events a collector had received.
        copied: Sessions that this run wrote; the others were there already.
        again: How often it wrote one again, since it was changed in the source.
        kept: Namespace and id of sessions that the target has otherwise: changed there, or others of the same name. They were left.
        unequal: What else of the target is not as in the source: "blobs", "metrics" and the like.
    """

    source: str
    target: str
    sessions: int
    messages: int
    blobs: int
    state_values: int
    agents: int
    activities: int
    metrics: int
    received_events: int
    copied: int
    again: int
    kept: tuple[tuple[str, str], ...]
    unequal: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether the target has all that the source has."""
        return not self.kept and not self.unequal


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseReceipt:
    """What an erase removed for good, or with `dry_run` would remove.

    Attributes:
        session_ids: The ids of the sessions, oldest first; forks that went with them are among them.
        missing: Ids that were asked for and have no session. What named them elsewhere went all the same.
        messages: How many messages they had, those that they shared included.
        superseded: How many messages that had been replaced in them.
        checkpoints: How many checkpoints of graphs they had.
        blobs: Large strings that no message has any more.
        events: Events about them that the remote had not acknowledged.
        metrics: Recorded figures that named them.
        activity: Notes of what agents did whose details named them, and agents whose metadata did; these went.
        forks_kept: Forks that keep the messages that they share.
        forks_in_the_way: With `dry_run`: forks for which erasing would be refused as long as `forks` is "raise".
        shared_with: Other sessions, such as the parent of a fork, that hold messages of these, replaced ones included. Not those
            whose messages are equal because somebody wrote the same.
        told_remote: Whether the remote is told to forget them.
        untold: Ids that the remote is not told to forget, because other sessions of the same id stay.
        complete: Whether nothing of them is left in the file and beside it. What programs have in memory, backups elsewhere and
            what a remote stores are out of reach.
        reasons: Why it is not complete.
        dry_run: Whether nothing was done.
    """

    session_ids: tuple[str, ...]
    missing: tuple[str, ...]
    messages: int
    superseded: int
    blobs: int
    events: int
    metrics: int
    activity: int
    forks_kept: tuple[str, ...]
    forks_in_the_way: tuple[str, ...]
    shared_with: tuple[str, ...]
    told_remote: bool
    untold: tuple[str, ...]
    complete: bool
    reasons: tuple[str, ...]
    dry_run: bool
    checkpoints: int = 0

    @property
    def sessions(self) -> int:
        """How many ids had sessions."""
        return len(self.session_ids)
