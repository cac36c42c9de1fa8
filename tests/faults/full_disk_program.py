"""Programs on a full disk, run as processes of their own: one that appends, one that is killed while it has the reserve."""

from __future__ import annotations

import os
import signal
import sys

import sessionstore
from sessionstore.database.reserve import Reserve


def append_without_end(path: str) -> None:
    """Tell of each message that is acknowledged, and of each first failure after one, until it is killed."""
    store = sessionstore.open(path)
    number, was_full = 0, False
    while True:
        try:
            store.append("other", "user", f"{number} " + "o" * 300)
        except sessionstore.DiskFullError:
            if not was_full:
                print("full", number, flush=True)
            was_full = True
        else:
            print("stored", number, flush=True)
            number, was_full = number + 1, False


def die_with_the_reserve(path: str, *session_ids: str) -> None:
    """Be killed when the reserve is spent, before it is taken back."""

    def die(_: Reserve) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Reserve.take_back = die  # type: ignore[method-assign]
    with sessionstore.open(path) as store:
        store.delete(session_ids)


if __name__ == "__main__":
    {"append": append_without_end, "die": die_with_the_reserve}[sys.argv[1]](*sys.argv[2:])
