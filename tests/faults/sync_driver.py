"""A program that delivers the events of a file, for tests that stop and end it: `sync_driver.py SETTINGS`, as JSON.

Its leases are short, so that nobody waits a minute for them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import timedelta
from typing import Any

import sessionstore
from sessionstore.queries import deliveries
from sessionstore.remote import settlement
from sessionstore.remote.delivery import Delivery
from sessionstore.remote.settings import Remote


def say(words: Any) -> None:
    """Tell the test."""
    print(json.dumps(words), flush=True)


def main(path: str, url: str, way: str, lease: float, key: str) -> None:
    """Deliver in some way."""
    settlement.SHORTEST_LEASE = timedelta(seconds=lease)
    remote = Remote(url, key, timeout=lease / 2, max_retries=0)
    if way == "stall":
        drain_at_signals(path, remote)
    elif way == "leave":
        leave_in_mid_request(path, remote)
    else:
        with sessionstore.open(path, remote=remote) as store, store.background():
            time.sleep(600)


def leave_in_mid_request(path: str, remote: Remote) -> None:
    """Come to the program's end with a background that waits for an answer."""
    store = sessionstore.open(path, remote=remote)
    store.background().start()
    while not store.query("SELECT 1 FROM outbox_holds").rows:
        time.sleep(0.01)
    say("leaving")


def drain_at_signals(path: str, remote: Remote) -> None:
    """A drain for each SIGUSR1, that stops itself between an answer and its settlement.

    It tells how many events were somebody else's when it settled.
    """
    wanted = (signal.SIGUSR1,)
    signal.pthread_sigmask(signal.SIG_BLOCK, (*wanted, signal.SIGCONT))
    lost: list[int] = []
    writers: list[Any] = []
    settle, take = deliveries.settle, Delivery.take

    def counted(db: Any, settled: settlement.Settlement) -> int:
        lost.append(settle(db, settled))
        return lost[-1]

    def stalled(delivery: Delivery, answer: Any) -> settlement.Settlement:
        taken = take(delivery, answer)
        if not lost:
            # Whoever is stopped with the lock of the file holds up all others.
            assert writers[0].pause(deadline=time.monotonic() + 10)
            os.kill(os.getpid(), signal.SIGSTOP)
            # This thread may run on for a moment before it stops.
            signal.sigwait((signal.SIGCONT,))
            writers[0].resume()
        return taken

    deliveries.settle, Delivery.take = counted, stalled
    with sessionstore.open(path, remote=remote) as store:
        writers.append(store._database.writer)
        say("ready")
        while True:
            signal.sigwait(wanted)
            lost.clear()
            receipt = store.drain()
            say({"sent": receipt.sent, "lost": sum(lost), "error": receipt.error})


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
