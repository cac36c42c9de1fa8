"""What calls report that removed, swept, imported or exported: receipts."""

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
    """

    expired: int
    more: bool = False
    busy: bool = False
    deferred: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReceipt:
    """What an import stored.

    Attributes:
        format: The layout of the file: "sessionstore", "openai" or "openai-messages".
        sessions: How many were stored, those that replaced others included.
        messages: How many they hold.
        skipped: Sessions that were left out because there were sessions of their names.
        replaced: Sessions that took the place of others.
        renamed: The id in the file and the id in the store, of each session that got another one.
    """

    format: str
    sessions: int
    messages: int
    skipped: int
    replaced: int
    renamed: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReceipt:
    """What an export wrote.

    Attributes:
        format: The layout: "sessionstore", "openai" or "openai-messages".
        size_bytes: How much text, before any compression.
    """

    format: str
    sessions: int
    messages: int
    size_bytes: int


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
