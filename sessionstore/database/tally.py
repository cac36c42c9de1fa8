"""What this process counts about its use of one open file, beside the file's own figures."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

Counted = Literal["metrics_lost", "sweeps", "sweep_failures", "sweeps_skipped", "drain_failures"]


@dataclass(slots=True)
class Tally:
    """Counters that any thread may add to.

    Attributes:
        metrics_lost: Times that a timer measured and could not record.
        sweeps: Passes of the background sweep that looked for expired sessions.
        sweep_failures: Passes that ended in an error.
        sweeps_skipped: Passes that left the work to another sweeper, or did not trust the clock.
        drain_failures: Passes of the background drain that ended in an error of this machine; the remote's are in the file.
    """

    metrics_lost: int = 0
    sweeps: int = 0
    sweep_failures: int = 0
    sweeps_skipped: int = 0
    drain_failures: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, what: Counted) -> None:
        """Add one."""
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)
