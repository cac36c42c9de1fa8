"""`copy_to`: everything that a store holds into another store, which may be killed and done again.

All is gone through twice: first it is copied, then both sides are compared, and what was changed in the source meanwhile is taken
again. Each transaction of the target brings whole sessions with the notes that tell so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from . import sql
from .database.transaction import Transaction, Work
from .queries import belongings, copying
from .queries.belongings import Counted, Kind
from .values.receipts import CopyReceipt

T = TypeVar("T")
Progress = Callable[[int, int | None], object]

_MOST_SESSIONS: Final = 100
_MOST_MESSAGES: Final = 2_000
_ROWS_A_BATCH: Final = 500
_BLOBS_A_BATCH: Final = 20
_KINDS: Final = {
    "state_values": belongings.STATE_VALUE,
    "agents": belongings.AGENT,
    "activities": belongings.ACTIVITY,
    "metrics": belongings.METRIC,
    "received_events": belongings.RECEIVED_EVENT,
}


class Run(Protocol):
    """Does some work in one snapshot, or in one transaction."""

    def __call__(self, work: Work[T], /) -> T:
        """Return what the work returns."""


class Copying:
    """One copy: from where, to where, and how far it is.

    Args:
        read: Reads the source.
        look: Reads the target.
        write: Writes the target.
        progress: Called with the messages done and all that there are to do; each is copied and compared.
    """

    def __init__(self, read: Run, look: Run, write: Run, progress: Progress | None) -> None:
        self._read = read
        self._look = look
        self._write = write
        self._progress = progress
        self._copier = copying.Copier(read(_store_id))
        self._done = self._total = 0
        self._copied: set[int] = set()
        self._again = 0
        self._kept: list[tuple[str, str]] = []

    def finish(self, source: str, target: str) -> CopyReceipt:
        """Copy and compare."""
        self._total = 2 * self._read(copying.totals).messages
        self._go_through()
        for kind in _KINDS.values():
            self._put_all(kind)
        self._kept.clear()
        sessions, messages = self._go_through()
        counts = {name: self._compare(kind) for name, kind in _KINDS.items()}
        blobs, lacking = self._compare_blobs()
        unequal = [name for name, (_, missing) in counts.items() if missing]
        self._report(self._total)
        return CopyReceipt(
            source=source,
            target=target,
            sessions=sessions,
            messages=messages,
            blobs=blobs,
            **{name: count for name, (count, _) in counts.items()},
            copied=len(self._copied),
            again=self._again,
            kept=tuple(self._kept),
            unequal=tuple(unequal + (["blobs"] if lacking else [])),
        )

    # -- sessions

    def _go_through(self) -> tuple[int, int]:
        """See to it that the target has every session as the source has it, and count sessions and messages."""
        sessions = messages = after = 0
        while rows := self._read(partial(self._bring_some, after)):
            sessions += len(rows)
            messages += sum(row["message_count"] for row in rows)
            after = rows[-1]["session_key"]
        return sessions, messages

    def _bring_some(self, after: int, source: Transaction) -> list[dict[str, Any]]:
        """Bring the next sessions, which are read in one snapshot and put in one transaction; their rows."""
        rows = _first_few(copying.rows_after(source, after, _MOST_SESSIONS))
        if not rows:
            return rows
        originals = [copying.original(source, row) for row in rows]
        outcomes = self._write(lambda db: [self._copier.bring(source, db, each) for each in originals])
        for original, outcome in zip(originals, outcomes, strict=True):
            if outcome.what == "kept":
                self._kept.append((original.values["namespace"], original.values["session_id"]))
            elif outcome.what != "equal":
                self._copied.add(original.key)
                self._again += outcome.what == "again"
            self._report(self._done + outcome.messages)
        return rows

    # -- what belongs to no session

    def _put_all(self, kind: Kind) -> None:
        def work(source: Transaction) -> None:
            for batch in _batches(source, kind):
                self._write(partial(_put, kind, batch))

        self._read(work)

    def _compare(self, kind: Kind) -> tuple[int, int]:
        """How many there are in the source, and how many of them the target lacks."""

        def work(source: Transaction) -> tuple[int, int]:
            count = lacking = 0
            for batch in _batches(source, kind):
                count += sum(many for _, many in batch)
                if self._missing(kind, batch):
                    # They were recorded meanwhile.
                    self._write(partial(_put, kind, batch))
                    lacking += self._missing(kind, batch)
            return count, lacking

        return self._read(work)

    def _missing(self, kind: Kind, batch: list[Counted]) -> int:
        return self._look(lambda db: belongings.missing(db, kind, batch))

    def _compare_blobs(self) -> tuple[int, int]:
        """How many blobs messages of the source have, and how many of them the target lacks."""
        count = lacking = 0
        after = ""
        while names := self._read(partial(_some_blobs, after)):
            lacking += self._look(partial(_lacking_blobs, names))
            count += len(names)
            after = names[-1]
        return count, lacking

    def _report(self, done: int) -> None:
        self._done = done
        if self._progress is not None:
            self._progress(min(done, self._total), self._total)


def _put(kind: Kind, batch: list[Counted], target: Transaction) -> int:
    return belongings.put(target, kind, batch)


def _some_blobs(after: str, source: Transaction) -> list[str]:
    return copying.used_blobs(source, after, _BLOBS_A_BATCH)


def _lacking_blobs(names: list[str], target: Transaction) -> int:
    return sum(not copying.has_intact_blob(target, name) for name in names)


def _store_id(db: Transaction) -> str:
    ((found,),) = db.driver.execute(sql.READ_STORE_ID).fetchall()
    return str(found)


def _first_few(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sessions whose messages are put in one transaction, at least one."""
    messages = 0
    for index, row in enumerate(rows):
        messages += row["message_count"]
        if index and messages > _MOST_MESSAGES:
            return rows[:index]
    return rows


def _batches(source: Transaction, kind: Kind) -> Iterator[list[Counted]]:
    found = belongings.rows(source, kind)
    if kind is belongings.RECEIVED_EVENT:
        # Not what copies noted.
        found = (row for row in found if not row[0].startswith(copying.TENANT))
    counted = belongings.counted(found)
    while batch := list(islice(counted, _ROWS_A_BATCH)):
        yield batch
