"""A sweep under way: who sweeps, as of when, and how far it has come. Its drivers, sync and async, differ in how they pause."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from .. import clock, inputs

if TYPE_CHECKING:
    from ..queries.sweeping import Batch
    from ..queries.tidying import Chore, Done
    from ..values.receipts import SweepReceipt

# A batch holds the writer for a few milliseconds; in the pause before the next one others get their turn.
SWEEP_BATCH: Final = 100
SWEEP_PAUSE: Final = 0.002


def sweep_arguments(limit: int | None, now: datetime | None) -> tuple[int | None, datetime | None]:
    """Check the arguments of a sweep."""
    return inputs.optional_whole_number("limit", limit, least=1), inputs.optional_instant("now", now)


@dataclass(slots=True)
class Sweep:
    """The state of one sweep.

    Attributes:
        at: The present that the caller gave; None for the clock's.
        left: How many sessions it may still settle; None for all.
        expired: How many it has settled.
        outcome: What became of its last batch.
        blobs: How many blobs it has deleted.
        prepared: How many batches in a row have only prepared the deletion of a large session.
        past: The hash up to which it has gone through the blobs.
        rest: What is left of a chore.
        sweeper: Who sweeps.
    """

    at: datetime | None
    left: int | None
    expired: int = 0
    outcome: str = "done"
    blobs: int = 0
    prepared: int = 0
    past: str = ""
    rest: Chore | None = None
    sweeper: str = field(default_factory=clock.new_id)

    @property
    def next_size(self) -> int:
        """How many sessions the next batch may settle."""
        return SWEEP_BATCH if self.left is None else min(SWEEP_BATCH, self.left)

    def count(self, batch: Batch) -> bool:
        """Take note of a batch; True if the sweep is over."""
        self.expired += batch.settled
        self.outcome = batch.outcome
        self.prepared = 0 if batch.settled else self.prepared + 1
        if self.left is not None:
            self.left -= batch.settled
        return batch.outcome != "more" or self.left == 0

    @property
    def tidies(self) -> bool:
        """Whether it does its chores now, having settled what it may."""
        return self.outcome in ("done", "deferred")

    def note(self, chore: Chore, done: Done) -> None:
        """Take note of a chore."""
        self.rest = done.rest
        self.blobs += done.collected
        self.past = max((self.past, *chore.hashes))

    def receipt(self) -> SweepReceipt:
        """What it did."""
        from ..values.receipts import SweepReceipt

        return SweepReceipt(
            expired=self.expired,
            more=self.outcome == "more",
            busy=self.outcome == "busy",
            deferred=self.outcome == "deferred",
            blobs=self.blobs,
        )
