"""A process that drains a file until it is killed, with a short lease, so that who takes over need not wait for a minute."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

import sessionstore
from sessionstore.remote import settlement
from sessionstore.remote.settings import Remote


def main(path: str, url: str, limit: str) -> None:
    """Drain again and again, a few events at a time: the kills shall find some that wait."""
    settlement.SHORTEST_LEASE = timedelta(seconds=1)
    remote = Remote(url, timeout=0.4, max_retries=0, retry_delay=0.05)
    with sessionstore.open(path, remote=remote) as store:
        while True:
            store.drain(timeout=5, limit=int(limit))
            time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
